/**
 * What containerd says, turned into changes of the agent's table. At the start, everything that an earlier life of this
 * agent left is taken up; from then on exits come from one subscription to containerd's events; after every gap in them
 * the table is compared with what containerd has.
 */
import { timestampMs } from "@bufbuild/protobuf/wkt"
import { type Container, Containers } from "@fast-sandbox/containerd/Containers"
import { type ContainerdEvent, Events } from "@fast-sandbox/containerd/Events"
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import { RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { anchorLabel } from "@fast-sandbox/containerd/ShimGroups"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { type Process, Tasks } from "@fast-sandbox/containerd/Tasks"
import { type Instance, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { AgentConfig } from "./AgentConfig.ts"
import { Endings } from "./Endings.ts"
import { ImageCatalog } from "./ImageCatalog.ts"
import * as InstanceRecord from "./InstanceRecord.ts"
import { Instances, type ProgramExit } from "./Instances.ts"
import { SandboxNetwork } from "./network/SandboxNetwork.ts"
import * as Orders from "./parked/Orders.ts"
import { ParkedSlots } from "./parked/ParkedSlots.ts"
import { SlotFiles } from "./parked/SlotFiles.ts"
import { Slots } from "./Slots.ts"

/** 100 ms, 200 ms ... capped at 2 s: containerd may be restarting when we look. */
const lookPolicy = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

/** Half-made sandboxes that are unmade at the same time; each executes the OCI runtime. */
const recoverConcurrency = 8

/** Built when the agent's past is taken up. `isListening` is there to be depended on. */
export class NodeEvents extends Context.Service<NodeEvents, {
  readonly isListening: true
}>()("@fast-sandbox/agent/NodeEvents") {
  static readonly layer: Layer.Layer<
    NodeEvents,
    never,
    | AgentConfig
    | Containers
    | Endings
    | Events
    | ImageCatalog
    | Instances
    | ParkedSlots
    | RuntimeProfile
    | SandboxNetwork
    | SlotFiles
    | Slots
    | Snapshots
    | Tasks
  > = Layer.effect(NodeEvents, Effect.suspend(() => make))
}

/** Whether and how a program has ended, as containerd has it: without a task nobody saw the end. */
const exitOf = (process: Process | undefined, nowMillis: number): ProgramExit | undefined =>
  process === undefined
    ? { exitCode: undefined, atMillis: nowMillis }
    : process.status === "stopped"
    ? { exitCode: process.exitCode, atMillis: process.exitedAtMillis }
    : undefined

const recordedExit = (instance: Instance, nowMillis: number): ProgramExit => ({
  exitCode: instance.exitCode,
  atMillis: instance.finishedAt === undefined ? nowMillis : timestampMs(instance.finishedAt)
})

const wasStarted = (process: Process | undefined): boolean =>
  process !== undefined && process.status !== "created" && process.status !== "unknown"

/** Whether it is an init that was claimed and then never told what for. */
const hadNoOrders = (process: Process | undefined): boolean =>
  process?.status === "stopped" && process.exitCode === Orders.noOrdersExitCode

const make = Effect.gen(function*() {
  const settings = yield* AgentConfig
  const catalog = yield* ImageCatalog
  const containers = yield* Containers
  const endings = yield* Endings
  const events = yield* Events
  const instances = yield* Instances
  const { snapshotter } = yield* RuntimeProfile
  const network = yield* SandboxNetwork
  const slots = yield* Slots
  const slotFiles = yield* SlotFiles
  const snapshots = yield* Snapshots
  const parked = yield* ParkedSlots
  const tasks = yield* Tasks

  const processes = Effect.map(tasks.list, (list) => new Map(list.map((process) => [process.containerId, process])))

  const takeUp = Effect.fnUntraced(function*(
    containerId: string,
    { instance, stopSignal }: InstanceRecord.Recorded,
    spec: OciSpec.Spec | undefined,
    process: Process | undefined,
    hasSnapshot: boolean
  ) {
    const hasEnded = instance.state === InstanceState.EXITED
    if (hasEnded && process === undefined && !hasSnapshot) {
      const entry = instances.add(instance, containerId)
      yield* Deferred.succeed(entry.ended, undefined)
      return
    }
    const ports = instance.spec?.exposedPorts ?? []
    yield* slots.restore(instance.instanceId, ports)
    const isClaimed = spec !== undefined
    if (instance.state === InstanceState.CREATING && (!wasStarted(process) || (isClaimed && hadNoOrders(process)))) {
      // Nobody was told that it exists.
      yield* endings.unmake(instances.add(instance, containerId), true)
      return
    }
    yield* Effect.ignore(network.publish(containerId, ports), { log: "Error" })
    const now = yield* Clock.currentTimeMillis
    const isStopping = instance.state === InstanceState.STOPPING
    const entry = instances.add({
      ...instance,
      state: isStopping ? InstanceState.STOPPING : InstanceState.RUNNING,
      startedAt: instance.startedAt ?? instance.createdAt
    }, containerId)
    instances.place(entry, containerId, spec)
    entry.stopSignal = stopSignal
    entry.isStopRequested = isStopping || instance.reason === "Stopped"
    entry.oomKills = instance.reason === "OOMKilled" ? 1 : 0
    entry.isOverDisk = instance.reason === "DiskExceeded"
    const exit = hasEnded ? recordedExit(instance, now) : exitOf(process, now)
    yield* endings.follow(entry)
    yield* instances.saveLater(entry)
    if (exit !== undefined) {
      yield* Deferred.succeed(entry.exit, exit)
    } else if (isStopping) {
      yield* endings.resume(entry)
    }
  })

  const recover = Effect.fn("NodeEvents.recover")(function*() {
    const found = yield* containers.list(InstanceRecord.filterOf(settings))
    const claims = yield* slotFiles.claims
    const running = yield* processes
    const keys = new Set((yield* snapshots.list({ snapshotter })).map(({ name }) => name))
    const unknown = found.filter(({ id, labels }) =>
      labels[anchorLabel] === undefined && instances.ofContainer(id) === undefined
    )
    const isUnclaimed = (container: Container) => InstanceRecord.isSlot(container) && !claims.has(container.id)
    yield* Effect.forEach(
      unknown.filter((container) => !isUnclaimed(container)),
      (container) =>
        InstanceRecord.read(container, claims.get(container.id)).pipe(
          Effect.flatMap((record) =>
            takeUp(
              container.id,
              record,
              claims.get(container.id)?.spec,
              running.get(container.id),
              keys.has(container.snapshotKey)
            )
          ),
          // Left alone: what can't be understood must not be destroyed.
          Effect.catchTag("UnreadableInstance", (error) => Effect.logError(error.message))
        ),
      { concurrency: recoverConcurrency, discard: true }
    )
    yield* catalog.refresh
    // Nobody waits for what an earlier life had parked.
    yield* parked.begin(unknown.filter(isUnclaimed).map(({ id }) => id))
    yield* Effect.logInfo("took up what was there", { instances: instances.all().length })
  })

  const reconcile = Effect.fn("NodeEvents.reconcile")(function*() {
    const running = yield* processes
    const now = yield* Clock.currentTimeMillis
    for (const entry of instances.all()) {
      const exit = exitOf(running.get(entry.containerId), now)
      const { state } = entry.instance
      if (exit !== undefined && (state === InstanceState.RUNNING || state === InstanceState.STOPPING)) {
        yield* Deferred.succeed(entry.exit, exit)
      }
    }
    yield* catalog.changed
  })

  const ready = yield* Deferred.make<void>()

  const onEvent = (event: ContainerdEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Subscribed":
        return Effect.suspend(() => event.generation === 1 ? recover() : reconcile()).pipe(
          Effect.tapError((error) => Effect.logWarning("containerd could not be asked", error.message)),
          Effect.retry(lookPolicy),
          Effect.orDie,
          Effect.andThen(Deferred.succeed(ready, undefined)),
          Effect.asVoid
        )
      case "TaskExited": {
        const entry = event.execId === "" ? instances.ofContainer(event.containerId) : undefined
        return entry === undefined ? Effect.void : Effect.asVoid(
          Deferred.succeed(entry.exit, { exitCode: event.exitCode, atMillis: event.exitedAtMillis })
        )
      }
      case "TaskOutOfMemory":
        return Effect.sync(() => {
          const entry = instances.ofContainer(event.containerId)
          if (entry !== undefined) {
            entry.oomKills++
          }
        })
      case "ImageCreated":
      case "ImageUpdated":
      case "ImageDeleted":
        return Effect.andThen(catalog.changed, parked.imagesChanged)
      default:
        return Effect.void
    }
  }

  yield* Stream.runForEach(events.all, onEvent).pipe(Effect.forkScoped)
  yield* Deferred.await(ready)
  return NodeEvents.of({ isListening: true })
})
