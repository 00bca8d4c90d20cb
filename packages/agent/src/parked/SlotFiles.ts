/**
 * What an agent keeps in memory about its parked slots, on a file system that neither waits for a disk nor survives a
 * reboot, which ends the slots too:
 *
 * - `slots/ID/`: mounted into the slot's container; init and, until it has connected, the socket on which it is awaited
 * - `claims/ID`: the instance that a slot was given to, and the spec of what it becomes. Written before the slot is given its orders, so that an agent that
 *   was killed in between can tell who is whose, and kept until the container's own record tells it
 */
import { fromBinary, toBinary } from "@bufbuild/protobuf"
import * as MachineSetup from "@fast-sandbox/containerd/MachineSetup"
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import { seccompProfile } from "@fast-sandbox/containerd/SeccompProfile"
import { type Instance, InstanceSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { AgentConfig } from "../AgentConfig.ts"
import { slotFiles } from "./Orders.ts"

/** Slots can't be parked here. */
export class NoParking extends Schema.TaggedError<NoParking>()("NoParking", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}

/** Whose a slot is, and what it becomes. */
export interface Claim {
  readonly instance: Instance
  readonly stopSignal: number
  readonly spec: OciSpec.Spec
}

/** The instance's bytes, preceded by their number, then the rest as JSON; without the filter, which is the same for all. */
const encodeClaim = ({ instance, spec, ...rest }: Claim): Uint8Array => {
  const { linux: { seccomp: _, ...linux }, ...others } = spec
  const bytes = toBinary(InstanceSchema, instance)
  const length = Buffer.alloc(lengthBytes)
  length.writeUInt32LE(bytes.length)
  return Buffer.concat([length, bytes, Buffer.from(JSON.stringify({ ...rest, spec: { ...others, linux } }))])
}

const lengthBytes = 4

const decodeClaim = (record: Buffer): Claim => {
  const end = lengthBytes + record.readUInt32LE()
  const { spec, stopSignal }: Omit<Claim, "instance"> = JSON.parse(record.subarray(end).toString())
  return {
    instance: fromBinary(InstanceSchema, record.subarray(lengthBytes, end)),
    stopSignal,
    spec: { ...spec, linux: { ...spec.linux, seccomp: seccompProfile } }
  }
}

/** For the agent's own user; a slot's container sees its own directory alone. */
const privateMode = 0o700
const recordMode = 0o600
/** A container's root may be somebody else on the node. */
const slotMode = 0o755

/** Hard links, sockets and records of a few KiB; a slot's init is shared by all. */
const sizeBytes = 64 * 1024 * 1024

/**
 * All of it happens at once, without threads in between: this is memory, and a claim waits for it.
 *
 * - `parking` says why there is none.
 * - `make` makes a slot's directory, `remove` takes it away.
 * - `claim` records whose a slot is from now on; `settle` forgets it again, also what was never there.
 * - `claims` are those on record.
 */
export class SlotFiles extends Context.Service<SlotFiles, {
  readonly parking: NoParking | undefined
  readonly make: (slotId: string) => Effect.Effect<string>
  readonly remove: (slotId: string) => Effect.Effect<void>
  readonly claim: (slotId: string, claim: Claim) => Effect.Effect<void>
  readonly settle: (slotId: string) => Effect.Effect<void>
  readonly claims: Effect.Effect<ReadonlyMap<string, Claim>>
}>()("@fast-sandbox/agent/parked/SlotFiles") {
  static readonly layer: Layer.Layer<SlotFiles, never, AgentConfig | MachineSetup.System> = Layer.effect(
    SlotFiles,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function*() {
  const { initBinary, runtimeType, stateDirectory } = yield* AgentConfig
  const context = yield* Effect.context<MachineSetup.System>()
  const root = `${stateDirectory}/parked`
  const slots = `${root}/slots`
  const claims = `${root}/claims`
  const init = `${root}/${slotFiles.init}`

  const problem = yield* Effect.gen(function*() {
    if (runtimeType !== "container") {
      // Its init could not reach a socket of the node's.
      return new NoParking({ problem: `slots can't be parked: ${runtimeType} has a kernel of its own` })
    }
    if (initBinary === undefined || !existsSync(initBinary)) {
      return new NoParking({ problem: `slots can't be parked: there is no init at ${initBinary ?? "FSB_INIT_BINARY"}` })
    }
    yield* MachineSetup.mountMemory(root, sizeBytes)
    yield* Effect.sync(() => {
      mkdirSync(claims, { recursive: true, mode: privateMode })
      // Those of an earlier life: their slots ended with it.
      rmSync(slots, { recursive: true, force: true })
      mkdirSync(slots, { mode: privateMode })
      // An init that still runs can't be written over.
      rmSync(init, { force: true })
      copyFileSync(initBinary, init)
      chmodSync(init, slotMode)
    })
    return undefined
  }).pipe(
    Effect.catch((error) => Effect.succeed(new NoParking({ problem: `slots can't be parked: ${error.message}` })))
  )
  if (problem !== undefined) {
    yield* Effect.logInfo(problem.message)
  }

  // Whoever is claimed without its own record knowing it is found by the next life.
  yield* Effect.addFinalizer(() =>
    readClaims().length > 0 ? Effect.void : Effect.provideContext(MachineSetup.unmountBelow(root), context)
  )

  const readClaims = (): ReadonlyArray<string> => existsSync(claims) ? readdirSync(claims) : []

  const readClaim = (slotId: string): ReadonlyArray<readonly [string, Claim]> => {
    try {
      return [[slotId, decodeClaim(readFileSync(`${claims}/${slotId}`))]]
    } catch {
      // its agent was killed while it wrote it
      rmSync(`${claims}/${slotId}`, { force: true })
      return []
    }
  }

  return SlotFiles.of({
    parking: problem,
    make: (slotId) =>
      Effect.sync(() => {
        const directory = `${slots}/${slotId}`
        mkdirSync(directory, { mode: slotMode })
        linkSync(init, `${directory}/${slotFiles.init}`)
        return directory
      }),
    remove: (slotId) => Effect.sync(() => rmSync(`${slots}/${slotId}`, { recursive: true, force: true })),
    claim: (slotId, claim) =>
      // One that an agent did not finish can't be read, and its slot was given no orders.
      Effect.sync(() => writeFileSync(`${claims}/${slotId}`, encodeClaim(claim), { mode: recordMode })),
    settle: (slotId) => Effect.sync(() => rmSync(`${claims}/${slotId}`, { force: true })),
    claims: Effect.sync(() => new Map(readClaims().flatMap(readClaim)))
  })
})
