/**
 * The program `fsb-rootfs`, which gives a container that runs another root file system (see `native/rootfs.c`): without a
 * process, a namespace or a cgroup being made, it takes a millisecond.
 */
import type { Mount } from "@fast-sandbox/containerd/Snapshots"
import { UserNamespaces } from "@fast-sandbox/containerd/UserNamespaces"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { existsSync } from "node:fs"
import { dirname } from "node:path"
import { AgentConfig } from "../AgentConfig.ts"
import * as ResidentProgram from "../ResidentProgram.ts"

const exchangeOperation = 1

/** The steps of the program in the order of its `enum step`. */
const steps = [
  "reading the request",
  "finding the slot",
  "mounting the root file system",
  "entering the slot",
  "attaching the root file system",
  "carrying mounts over",
  "exchanging the roots"
] as const

/** What was done when it failed. */
export type Step = typeof steps[number]

/** The root of a slot could not be exchanged; the slot is of no use any more. `code` is the name of an errno. */
export class RootNotExchanged extends Schema.TaggedError<RootNotExchanged>()("RootNotExchanged", {
  step: Schema.Literals(steps),
  code: Schema.String
}) {
  override get message(): string {
    return `${this.step}: ${this.code}`
  }
}

/** A container whose root is exchanged. */
export interface Slot {
  readonly id: string
  /** Of its first process, as the agent sees it. */
  readonly pid: number
}

/**
 * - `isThere` says whether there is the program.
 * - `exchange` gives a slot the root that `mounts` describe: one overlay, as snapshots of an image have it. What is mounted
 *   in the slot stays where it is, and the slot's processes are in the new root when it is done.
 */
export class RootExchange extends Context.Service<RootExchange, {
  readonly isThere: boolean
  readonly exchange: (slot: Slot, mounts: ReadonlyArray<Mount>) => Effect.Effect<void, RootNotExchanged>
}>()("@fast-sandbox/agent/parked/RootExchange") {
  static readonly layer: Layer.Layer<RootExchange, never, AgentConfig | UserNamespaces> = Layer.effect(
    RootExchange,
    Effect.suspend(() => make)
  )
}

/** It lies beside init. */
const binaryName = "fsb-rootfs"

const headerBytes = 12

/** The kernel takes no longer value of an option; fsopen(2) is not bounded by a page, but each of its strings is. */
const maxOptionLength = 255

/** The longest directory that all paths are in, and their rest: short enough for many layers. */
const relative = (paths: ReadonlyArray<string>): readonly [directory: string, ReadonlyArray<string>] => {
  const [first = ""] = paths
  let directory = dirname(first)
  while (directory !== "/" && !paths.every((path) => path.startsWith(`${directory}/`))) {
    directory = dirname(directory)
  }
  const skipped = directory === "/" ? 1 : directory.length + 1
  return [directory, paths.map((path) => path.slice(skipped))]
}

const layersOption = "lowerdir="

/**
 * The program's view of a root: strings, the first of which is the directory that layers are relative to. `undefined` when
 * it is something else than an overlay, or has more layers than fit.
 */
export const describe = (mounts: ReadonlyArray<Mount>): ReadonlyArray<string> | undefined => {
  const [mount, ...others] = mounts
  const layers = mount?.options.find((option) => option.startsWith(layersOption))
  if (mount?.type !== "overlay" || others.length > 0 || layers === undefined) {
    return undefined
  }
  const [directory, names] = relative(layers.slice(layersOption.length).split(":"))
  const options = mount.options.map((option) => option === layers ? `${layersOption}${names.join(":")}` : option)
  return options.every((option) => option.slice(option.indexOf("=") + 1).length <= maxOptionLength)
    ? [directory, `source=${mount.source}`, ...options]
    : undefined
}

/** The process by which an agent in a Pod sees its node's files. */
const processOfRoot = /^\/proc\/(\d+)\/root$/

const encode = (
  { node, owner, pid }: { readonly pid: number; readonly owner: number; readonly node: number },
  strings: ReadonlyArray<string>
): Buffer => {
  const header = Buffer.alloc(headerBytes)
  header.writeUInt32LE(pid, 0)
  header.writeUInt32LE(owner, 4)
  header.writeUInt32LE(node, 8)
  return Buffer.concat([header, Buffer.from(strings.map((text) => `${text}\0`).join(""))])
}

const make = Effect.gen(function*() {
  const { hostRoot, initBinary } = yield* AgentConfig
  const { range } = yield* UserNamespaces
  const binary = initBinary === undefined ? undefined : `${dirname(initBinary)}/${binaryName}`
  if (binary === undefined || !existsSync(binary)) {
    return RootExchange.of({
      isThere: false,
      exchange: () => Effect.fail(new RootNotExchanged({ step: steps[0], code: "ENOENT" }))
    })
  }
  const ask = yield* ResidentProgram.make(binary)
  const owner = range?.hostId ?? 0
  const node = hostRoot === "" ? 0 : Number(processOfRoot.exec(hostRoot)?.[1] ?? 1)
  return RootExchange.of({
    isThere: true,
    exchange: Effect.fn("RootExchange.exchange")(({ id, pid }, mounts) =>
      Effect.suspend(() => {
        const strings = describe(mounts)
        return strings === undefined
          ? Effect.fail(new RootNotExchanged({ step: "mounting the root file system", code: "E2BIG" }))
          : ask({ operation: exchangeOperation, name: id, body: encode({ pid, owner, node }, strings) }).pipe(
            Effect.mapError(({ code, value }) => new RootNotExchanged({ step: steps[value] ?? steps[0], code })),
            Effect.asVoid
          )
      })
    )
  })
})
