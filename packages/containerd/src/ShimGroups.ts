/**
 * Shims that are shared. A shim per sandbox costs 6 ms and 13 MB each; a few long-lived ones, each held up by an anchor
 * task that does nothing, serve all sandboxes of an agent. A dead shim takes its sandboxes with it, hence several.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as PlatformError from "effect/PlatformError"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import { type ContainerdError, ignoreNotFound, isNotFound } from "./ContainerdError.ts"
import { Containers } from "./Containers.ts"
import { type ContainerdEvent, Events } from "./Events.ts"
import * as GvisorWrapper from "./internal/gvisorWrapper.ts"
import * as ShimWrapper from "./internal/shimWrapper.ts"
import type * as OciSpec from "./OciSpec.ts"
import * as RuntimeProfile from "./RuntimeProfile.ts"
import * as ShimRuntime from "./ShimRuntime.ts"
import { Tasks } from "./Tasks.ts"

/** One group. `isUp` is false while its anchor is being set up again; creates then start an ordinary shim. */
export interface ShimGroup {
  readonly index: number
  readonly anchorId: string
  readonly shimPid: number | undefined
  readonly isUp: boolean
}

/** Label of anchors' containers: they are no sandboxes. Its value is the group's index. */
export const anchorLabel = "fast-sandbox.io/shim-anchor"

/** What groups are made of. */
export interface ShimGroupsOptions {
  /**
   * Absolute; for the wrapper scripts and the anchors' root file system. containerd must see it under the same path, and
   * may execute what lies in it. Sandboxes need it as long as they live.
   */
  readonly directory: string
  /** Begins the anchors' names; unique to the agent, the same after its restart. */
  readonly name: string
  /** How many; 0 turns grouping off. A shim serialises its creates, and takes its sandboxes with it when it dies. */
  readonly count: number
  /** Labels of the anchors' containers, by which a collector knows whose they are. */
  readonly labels?: Readonly<Record<string, string>> | undefined
  readonly cgroupsPath: string
}

/**
 * - `next` is the shim to use for the next container, round robin over the groups that are up; the stock shim when none
 *   is or grouping is off. Never waits.
 * - `groups` tells their state.
 * - `remove` ends the anchors. Sandboxes keep running, each shim ends with its last one.
 *
 * Anchors stay when the layer's scope closes, because sandboxes outlive their agent; the next layer of the same name
 * finds them again.
 */
export class ShimGroups extends Context.Service<ShimGroups, {
  readonly next: Effect.Effect<ShimRuntime.ShimRuntime>
  readonly groups: Effect.Effect<ReadonlyArray<ShimGroup>>
  readonly remove: Effect.Effect<void, ContainerdError>
}>()("@fast-sandbox/containerd/ShimGroups") {
  /** Every container gets a shim of its own. */
  static readonly layerStock: Layer.Layer<ShimGroups, never, RuntimeProfile.RuntimeProfile> = Layer.effect(
    ShimGroups,
    Effect.gen(function*() {
      const runtime = RuntimeProfile.stockRuntime(yield* RuntimeProfile.RuntimeProfile)
      return ShimGroups.of({ next: Effect.succeed(runtime), groups: Effect.succeed([]), remove: Effect.void })
    })
  )

  /** Every container gets a shim and a kernel of gVisor's of its own. `directory` as in {@link ShimGroupsOptions}. */
  static readonly layerGvisor = (
    directory: string
  ): Layer.Layer<
    ShimGroups,
    PlatformError.PlatformError,
    RuntimeProfile.RuntimeProfile | FileSystem.FileSystem
  > =>
    Layer.effect(
      ShimGroups,
      Effect.gen(function*() {
        const { runtime: { path } } = yield* RuntimeProfile.RuntimeProfile
        const binary = `${directory}/runsc`
        yield* install(directory, binary, GvisorWrapper.script(path))
        const runtime = ShimRuntime.make({ binary })
        return ShimGroups.of({ next: Effect.succeed(runtime), groups: Effect.succeed([]), remove: Effect.void })
      })
    )

  /** Sets the groups up in the background; until one is up, `next` is the stock shim. */
  static readonly layer = (
    options: ShimGroupsOptions
  ): Layer.Layer<
    ShimGroups,
    PlatformError.PlatformError,
    Containers | Tasks | Events | RuntimeProfile.RuntimeProfile | FileSystem.FileSystem
  > => Layer.effect(ShimGroups, make(options))
}

/** Writes a script beside its place and renames it, because containerd may be executing the old one. */
const install = Effect.fnUntraced(function*(directory: string, path: string, script: string) {
  const fileSystem = yield* FileSystem.FileSystem
  yield* fileSystem.makeDirectory(directory, { recursive: true })
  yield* fileSystem.writeFileString(`${path}.new`, script, { mode: 0o755 })
  yield* fileSystem.rename(`${path}.new`, path)
})

const SIGKILL = 9

/** 100 ms, 200 ms ... capped at 10 s, for as long as the agent runs: sandboxes start meanwhile, only slower. */
const untilAnchored = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("10 seconds")]).pipe(
  Schedule.jittered
)

/** How runc's shim is told to serve several containers: those with the same value share one. */
const groupAnnotation = "io.containerd.runc.v2.group"

/**
 * A process that is made but never started: it holds its shim alive and costs nothing. What it would run must exist,
 * because runtimes look for it beforehand.
 */
const anchorProgram = "anchor"

const anchorSpec = (options: ShimGroupsOptions, id: string): OciSpec.Spec => ({
  ociVersion: "1.0.2",
  process: {
    terminal: false,
    user: { uid: 0, gid: 0 },
    args: [`/${anchorProgram}`],
    env: ["PATH=/"],
    cwd: "/",
    capabilities: { bounding: [], effective: [], permitted: [] },
    rlimits: [],
    noNewPrivileges: true
  },
  root: { path: "rootfs", readonly: true },
  hostname: "anchor",
  mounts: [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=64k"] }
  ],
  annotations: { [groupAnnotation]: id },
  linux: {
    namespaces: [{ type: "pid" }, { type: "ipc" }, { type: "uts" }, { type: "mount" }, { type: "network" }],
    cgroupsPath: `${options.cgroupsPath}/${id}`,
    resources: {},
    maskedPaths: [],
    readonlyPaths: []
  }
})

const make = Effect.fnUntraced(function*(options: ShimGroupsOptions): Effect.fn.Return<
  ShimGroups["Service"],
  PlatformError.PlatformError,
  | Containers
  | Tasks
  | Events
  | RuntimeProfile.RuntimeProfile
  | FileSystem.FileSystem
  | Scope.Scope
> {
  const containers = yield* Containers
  const tasks = yield* Tasks
  const events = yield* Events
  const profile = yield* RuntimeProfile.RuntimeProfile
  const fileSystem = yield* FileSystem.FileSystem
  const stock = RuntimeProfile.stockRuntime(profile)
  const count = RuntimeProfile.isOn(profile, "groupedShim") ? options.count : 0
  const rootfs = `${options.directory}/anchor-rootfs`

  const prefixOf = (index: number) => `${options.name}-anchor-${index}-`
  const wrapperOf = (index: number) => `${options.directory}/shim-${index}`
  const addressOf = (index: number) => `${options.directory}/shim-${index}.address`
  const isAnchorOf = (index: number) => ({ id }: { readonly id: string }) => id.startsWith(prefixOf(index))

  const groups = yield* Ref.make<ReadonlyArray<ShimGroup>>([])
  const turn = yield* Ref.make(0)

  if (count > 0) {
    yield* fileSystem.makeDirectory(`${rootfs}/proc`, { recursive: true })
    yield* fileSystem.makeDirectory(`${rootfs}/dev`, { recursive: true })
    yield* fileSystem.writeFileString(`${rootfs}/${anchorProgram}`, "", { mode: 0o755 })
  }
  for (let index = 0; index < count; index++) {
    const script = ShimWrapper.script({ addressFile: addressOf(index), anchorPrefix: prefixOf(index) })
    yield* install(options.directory, wrapperOf(index), script)
  }

  const removeAnchor = Effect.fnUntraced(function*(id: string) {
    yield* tasks.kill({ containerId: id }, SIGKILL).pipe(ignoreNotFound)
    yield* tasks.wait({ containerId: id }).pipe(ignoreNotFound)
    yield* tasks.delete({ containerId: id }).pipe(ignoreNotFound)
    yield* containers.delete(id).pipe(ignoreNotFound)
  })

  const shimPid = (index: number) =>
    fileSystem.readFileString(addressOf(index)).pipe(
      Effect.map((text) => Number.parseInt(text, 10)),
      Effect.map((pid) => Number.isNaN(pid) ? undefined : pid),
      Effect.orElseSucceed(() => undefined)
    )

  const isHeld = (id: string) =>
    tasks.get({ containerId: id }).pipe(
      Effect.map(({ status }) => status === "created"),
      Effect.catchIf(isNotFound, () => Effect.succeed(false))
    )

  const anchors = containers.list(`labels."${anchorLabel}"`)

  const createAnchor = Effect.fnUntraced(function*(index: number) {
    const id = `${prefixOf(index)}${yield* Effect.sync(() => randomUUID().slice(0, 8))}`
    const runtime = ShimRuntime.make({ binary: profile.runtime.path, name: wrapperOf(index) })
    yield* fileSystem.remove(addressOf(index), { force: true })
    yield* containers.create({
      id,
      runtime,
      spec: anchorSpec(options, id),
      labels: { ...options.labels, [anchorLabel]: String(index) },
      snapshotter: "",
      snapshotKey: ""
    })
    yield* tasks.create({
      containerId: id,
      runtime,
      rootfs: [{ type: "bind", source: rootfs, options: ["rbind", "ro"] }]
    }).pipe(Effect.onError(() => Effect.ignore(removeAnchor(id))))
    return id
  })

  /** The anchor of a group: the one that still holds, or a new one. */
  const anchor = Effect.fn("ShimGroups.anchor")(function*(index: number) {
    const found = (yield* anchors).filter(isAnchorOf(index))
    let held: string | undefined
    for (const { id } of found) {
      if (held === undefined && (yield* isHeld(id)) && (yield* shimPid(index)) !== undefined) {
        held = id
      } else {
        yield* removeAnchor(id)
      }
    }
    const anchorId = held ?? (yield* createAnchor(index))
    const group: ShimGroup = { index, anchorId, shimPid: yield* shimPid(index), isUp: true }
    yield* Ref.update(groups, (all) => [...all.filter((other) => other.index !== index), group])
  })

  const down = (index: number) =>
    Ref.update(groups, (all) => all.map((group) => group.index === index ? { ...group, isUp: false } : group))

  // One subscription for all groups: containerd pays for each one with every event. It only says when to look.
  const looks = yield* Effect.forEach(Array.from({ length: count }), () => Queue.sliding<void>(1))
  const lookAt = Effect.fnUntraced(function*(event: ContainerdEvent) {
    if (event._tag !== "Subscribed" && event._tag !== "TaskExited") {
      return
    }
    const all = yield* Ref.get(groups)
    for (const [index, look] of looks.entries()) {
      // What happened before the subscription has no event.
      if (
        event._tag === "Subscribed" ||
        all.some((group) => group.index === index && group.anchorId === event.containerId)
      ) {
        yield* Queue.offer(look, undefined)
      }
    }
  })

  const keepAnchored = (index: number, look: Queue.Dequeue<void>) =>
    Effect.gen(function*() {
      yield* anchor(index).pipe(
        Effect.tapCause((cause) => Effect.logWarning("no shim group", { index }, Cause.pretty(cause))),
        Effect.retry(untilAnchored)
      )
      const anchorId = (yield* Ref.get(groups)).find((group) => group.index === index)?.anchorId ?? ""
      const holds = Effect.orElseSucceed(isHeld(anchorId), () => true)
      while (yield* holds) {
        yield* Queue.take(look)
      }
      yield* down(index)
      yield* Effect.logWarning("a shim has died and took its sandboxes with it", { index, anchorId })
    }).pipe(Effect.forever)

  const keepers = yield* Effect.forEach(looks, (look, index) => Effect.forkScoped(keepAnchored(index, look)))
  if (count > 0) {
    yield* Effect.forkScoped(Stream.runForEach(events.all, lookAt))
  }

  const next = Effect.gen(function*() {
    const up = (yield* Ref.get(groups)).filter((group) => group.isUp)
    const chosen = up[(yield* Ref.getAndUpdate(turn, (n) => n + 1)) % up.length]
    return chosen === undefined ? stock : ShimRuntime.make({
      binary: profile.runtime.path,
      name: wrapperOf(chosen.index),
      annotations: { [groupAnnotation]: chosen.anchorId }
    })
  })

  return ShimGroups.of({
    next,
    groups: Ref.get(groups),
    remove: Effect.gen(function*() {
      yield* Fiber.interruptAll(keepers)
      yield* Ref.set(groups, [])
      const own = (yield* anchors).filter(({ id }) => id.startsWith(`${options.name}-anchor-`))
      yield* Effect.forEach(own, ({ id }) => removeAnchor(id), { discard: true })
    })
  })
})
