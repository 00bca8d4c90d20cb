/**
 * Sandboxes whose root is nobody on the host. A sandbox gets a user namespace that maps its ids to a range of its agent's,
 * and sees the layers of its image through mounts that shift their owners by the same range (`fsb-idmap`), made once for
 * each layer: 2 ms, and nothing at a start. Works with every containerd, because only the mounts that are handed to it
 * differ.
 *
 * One range for all sandboxes of an agent protects the host from them; from one another they are protected by the other
 * namespaces.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as PlatformError from "effect/PlatformError"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import { createHash } from "node:crypto"
import { chownSync, statSync } from "node:fs"
import { type CommandError, run } from "./internal/command.ts"
import { Leases } from "./Leases.ts"
import * as MachineSetup from "./MachineSetup.ts"
import type { IdRange } from "./OciSpec.ts"
import { kernelVersion } from "./RuntimeProfile.ts"
import { type Mount, Snapshots } from "./Snapshots.ts"

/** A root file system could not be shown with other owners. */
export class RootfsNotMapped extends Schema.TaggedError<RootfsNotMapped>()("RootfsNotMapped", {
  problem: Schema.String
}) {
  override get message(): string {
    return `the files of the image could not be given to the sandbox's users: ${this.problem}`
  }
}

/** Where and for whom. */
export interface UserNamespacesOptions {
  /**
   * Absolute; for the mounts. containerd must see them under the same path. It is emptied at the beginning and at the
   * end: running sandboxes need nothing in it.
   */
  readonly directory: string
  /** Absolute path of `fsb-idmap`. */
  readonly binary: string
  readonly range: IdRange
  readonly snapshotter: string
}

/**
 * - `range` is what goes into the spec of a container; absent where sandboxes share the host's users.
 * - `reason` says why it is so, for people.
 * - `rootfs` gives the mounts of a writable snapshot to the sandbox's users. To be called once, before the task is made.
 */
export class UserNamespaces extends Context.Service<UserNamespaces, {
  readonly range: IdRange | undefined
  readonly reason: string
  readonly rootfs: (mounts: ReadonlyArray<Mount>) => Effect.Effect<ReadonlyArray<Mount>, RootfsNotMapped>
}>()("@fast-sandbox/containerd/UserNamespaces") {
  /** Sandboxes share the host's users, for a reason that people are told. */
  static readonly layerOff = (reason: string): Layer.Layer<UserNamespaces> => Layer.succeed(UserNamespaces, off(reason))

  /** Tries it when the layer is built; where this machine can't do it, it is the same as {@link layerOff}. */
  static readonly layer = (
    options: UserNamespacesOptions
  ): Layer.Layer<UserNamespaces, never, Leases | Snapshots | MachineSetup.System> =>
    Layer.effect(UserNamespaces, make(options))
}

/** Whether every user may go through `path`, an absolute one, to what is below it. */
export const isOpen = Effect.fn("UserNamespaces.isOpen")(function*(
  path: string
): Effect.fn.Return<boolean, never, FileSystem.FileSystem> {
  const fileSystem = yield* FileSystem.FileSystem
  const ancestors = path.split("/").map((_, count, names) => names.slice(0, count + 1).join("/") || "/")
  return yield* Effect.forEach(ancestors, (ancestor) => fileSystem.stat(ancestor)).pipe(
    Effect.map((stats) => stats.every(({ mode }) => (mode & othersMayEnter) !== 0)),
    Effect.orElseSucceed(() => false)
  )
})

/** The execute bit of others. */
const othersMayEnter = 0o001

/** Ids of a range: what Kubernetes gives to a Pod, and enough for every user of a distribution. */
const rangeSize = 65_536

/** Above what useradd, podman, docker and systemd hand out (see systemd's UIDS-GIDS), below 2^31. */
const firstRange = 0x7000_0000

/** Ranges until where systemd has its next use of ids. */
const rangeCount = 4000

/** The range of an agent. Two agents of a node seldom share one, and it does no harm when they do. */
export const rangeOf = (agentUid: string): IdRange => ({
  hostId: firstRange + createHash("sha256").update(agentUid).digest().readUInt32BE() % rangeCount * rangeSize,
  size: rangeSize
})

/** The first Linux whose overlay takes idmapped mounts as layers. */
const overlaySince = [5, 19] as const

/** Layers that are kept mounted. More than a node's images have; the oldest goes first. */
const maxLayers = 2048

/** The trial takes milliseconds. */
const trialExpiry = "1 minute"

const off = (reason: string): UserNamespaces["Service"] =>
  UserNamespaces.of({ range: undefined, reason, rootfs: Effect.succeed })

const optionOf = (mount: Mount, name: string): string | undefined =>
  mount.options.find((option) => option.startsWith(`${name}=`))?.slice(name.length + 1)

const make = Effect.fnUntraced(function*(options: UserNamespacesOptions) {
  const { directory, range } = options
  const fileSystem = yield* FileSystem.FileSystem
  const leases = yield* Leases
  const snapshots = yield* Snapshots
  const system = yield* Effect.context<FileSystem.FileSystem | ChildProcessSpawner.ChildProcessSpawner>()
  const one = yield* Semaphore.make(1)
  // Where each layer is mounted, oldest first.
  const mounted = new Map<string, string>()
  let count = 0

  // A mount that something unmapped it is made of keeps what it needs, so those of running sandboxes don't mind.
  const clear = MachineSetup.unmountBelow(directory).pipe(
    Effect.andThen(fileSystem.remove(directory, { recursive: true, force: true })),
    Effect.provideContext(system)
  )

  const dropOldest = Effect.fnUntraced(function*() {
    const oldest = mounted.entries().next().value
    if (oldest !== undefined) {
      const [layer, target] = oldest
      mounted.delete(layer)
      yield* run("umount", "-l", target)
      yield* fileSystem.remove(target, { recursive: true })
    }
  })

  const mountLayers = Effect.fnUntraced(function*(layers: ReadonlyArray<string>) {
    const missing = layers.filter((layer) => !mounted.has(layer))
    if (missing.length === 0) {
      return
    }
    const pairs = missing.map((layer) => [layer, `${directory}/${count++}`] as const)
    yield* Effect.forEach(pairs, ([, target]) => fileSystem.makeDirectory(target, { recursive: true }))
    yield* run(options.binary, String(range.hostId), String(range.size), ...pairs.flat())
    for (const [layer, target] of pairs) {
      mounted.set(layer, target)
    }
    while (mounted.size > maxLayers) {
      yield* dropOldest()
    }
  })

  /** The folder belongs to the user inside that it belonged to outside. At once, without threads in between: a start waits for it. */
  const give = (path: string) =>
    Effect.try({
      try: () => {
        const { gid, uid } = statSync(path)
        const inside = (id: number) => range.hostId + (id < range.size ? id : 0)
        chownSync(path, inside(uid), inside(gid))
      },
      catch: (cause) => new RootfsNotMapped({ problem: String(cause) })
    })

  const map = Effect.fnUntraced(function*(
    mount: Mount
  ): Effect.fn.Return<Mount, CommandError | PlatformError.PlatformError | RootfsNotMapped, MachineSetup.System> {
    if (mount.type !== "overlay") {
      yield* give(mount.source)
      return mount
    }
    const layers = optionOf(mount, "lowerdir")?.split(":") ?? []
    const own = [optionOf(mount, "upperdir"), optionOf(mount, "workdir")].filter((path) => path !== undefined)
    yield* Effect.forEach(own, give, { discard: true })
    if (layers.some((layer) => !mounted.has(layer))) {
      yield* one.withPermits(1)(mountLayers(layers))
    }
    const lower = `lowerdir=${layers.map((layer) => mounted.get(layer)).join(":")}`
    return {
      ...mount,
      options: mount.options.map((option) => option.startsWith("lowerdir=") ? lower : option)
    }
  })

  const rootfs = Effect.fn("UserNamespaces.rootfs")((mounts: ReadonlyArray<Mount>) =>
    Effect.forEach(mounts, map).pipe(
      Effect.mapError((error) =>
        error._tag === "RootfsNotMapped" ? error : new RootfsNotMapped({ problem: error.message })
      ),
      Effect.provideContext(system)
    )
  )

  /** Does with an empty snapshot what is done with a layer, and looks at the outcome. */
  const trial = Effect.gen(function*() {
    const { id } = yield* leases.scoped("fast-sandbox-userns", trialExpiry)
    const key = `userns-${id}`
    const mounts = yield* Effect.acquireRelease(
      snapshots.prepare(key, "", { leaseId: id, snapshotter: options.snapshotter }),
      () => Effect.ignore(snapshots.remove(key, { leaseId: id, snapshotter: options.snapshotter }), { log: "Warn" })
    )
    const source = mounts[0]?.source ?? ""
    yield* mountLayers([source])
    const { uid } = yield* fileSystem.stat(mounted.get(source) ?? source)
    yield* dropOldest()
    return uid._tag === "Some" && uid.value === range.hostId
  }).pipe(Effect.scoped)

  yield* clear.pipe(Effect.ignore({ log: "Warn" }))
  yield* Effect.addFinalizer(() => Effect.ignore(clear, { log: "Warn" }))
  const [major, minor] = kernelVersion()
  const problem = major < overlaySince[0] || (major === overlaySince[0] && minor < overlaySince[1])
    ? `needs Linux ${overlaySince.join(".")}`
    : yield* trial.pipe(
      Effect.map((isMapped) => isMapped ? undefined : "the layers' owners were not shifted"),
      Effect.catch((error) => Effect.succeed(error.message))
    )
  return problem === undefined
    ? UserNamespaces.of({
      range,
      reason: `root in a sandbox is user ${range.hostId} of the node`,
      rootfs
    })
    : off(problem)
})
