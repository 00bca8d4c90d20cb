/**
 * Makes a machine fast for sandboxes, and puts it back. Only for machines that are ours to set up: one that runs the
 * embedded stack, or a test's. A cluster's node is prepared by whoever runs the cluster.
 *
 * What is shared by all users of a machine (cgroup mounts) is undone by the last one; each user leaves a mark while it
 * needs them.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import { createHash } from "node:crypto"
import { type CommandError, run } from "./internal/command.ts"
import * as Proc from "./Proc.ts"

/** What the functions here need of the system. */
export type System = FileSystem.FileSystem | ChildProcessSpawner.ChildProcessSpawner

const cgroupRoot = "/sys/fs/cgroup"
const unifiedRoot = `${cgroupRoot}/unified`

/** Marks of those who need the shared mounts, and what was changed for them. Gone after a reboot, as the mounts are. */
const marksDirectory = "/run/fast-sandbox/machine"
const ownersDirectory = `${marksDirectory}/owners`
const changesDirectory = `${marksDirectory}/changes`

const markOf = (owner: string): string =>
  `${ownersDirectory}/${createHash("sha256").update(owner).digest("hex").slice(0, 16)}`

const favordynmods = "favordynmods"

/** The unified hierarchy's mount point, alone or beside the old one. */
const unifiedMount = Effect.map(
  Proc.mounts,
  (mounts) => mounts.find(({ path, type }) => type === "cgroup2" && (path === cgroupRoot || path === unifiedRoot))
)

/**
 * Controllers that lack a v1 mount beside a v2 hierarchy: those that are left on v2, which crun refuses, and those on a
 * v1 hierarchy that was unmounted with cgroups in it, for which containerd's shim finds no usage of any container.
 */
const unmountedControllers = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const read = (path: string) => Effect.orElseSucceed(fileSystem.readFileString(path), () => "")
  const onV2 = yield* read(`${unifiedRoot}/cgroup.controllers`)
  const mounted = (yield* Proc.mounts).filter(({ type }) => type === "cgroup")
  // hierarchy:controllers:path; a named hierarchy has no controllers and v2 has none here.
  const onV1 = mounted.length === 0 ? [] : (yield* read("/proc/self/cgroup"))
    .split("\n")
    .map((line) => line.split(":")[1] ?? "")
    .filter((names) => names !== "" && !names.startsWith("name="))
    .filter((names) => !mounted.some(({ options }) => names.split(",").every((name) => options.has(name))))
  return [...onV2.split(/\s+/).filter((name) => name !== ""), ...onV1]
})

/** Whether the kernel has overlayfs by now. */
export const hasOverlay: Effect.Effect<boolean, never, FileSystem.FileSystem> = FileSystem.FileSystem.use((
  fileSystem
) =>
  fileSystem.readFileString("/proc/filesystems").pipe(
    Effect.orElseSucceed(() => ""),
    Effect.map((known) => /\boverlay$/m.test(known))
  )
)

/**
 * Has the kernel load overlayfs, as containerd's own unit does before it starts. A kernel that cannot is told by whoever
 * mounts one.
 */
export const loadOverlay: Effect.Effect<void, never, System> = Effect.gen(function*() {
  if (yield* hasOverlay) return
  yield* run("modprobe", "overlay").pipe(
    Effect.catch((error) => Effect.logWarning("overlayfs could not be loaded", error.message))
  )
})

/**
 * Prepares the cgroups of the machine on behalf of `owner` (a directory's path, for example): controllers of a hybrid
 * hierarchy without a v1 mount get one; and where the kernel knows it, moving a process into a cgroup stops waiting for
 * a grace period (6 to 15 ms at every start). The second stays with the kernel until a reboot.
 */
export const prepareCgroups = Effect.fn("MachineSetup.prepareCgroups")(function*(
  owner: string
): Effect.fn.Return<void, CommandError | PlatformError.PlatformError, System> {
  const fileSystem = yield* FileSystem.FileSystem
  yield* fileSystem.makeDirectory(ownersDirectory, { recursive: true })
  yield* fileSystem.makeDirectory(changesDirectory, { recursive: true })
  yield* fileSystem.writeFileString(markOf(owner), owner)
  for (const controller of yield* unmountedControllers) {
    const directory = `${cgroupRoot}/${controller}`
    yield* fileSystem.makeDirectory(directory, { recursive: true })
    yield* fileSystem.writeFileString(`${changesDirectory}/${controller}`, directory)
    yield* run("mount", "-t", "cgroup", "-o", controller, "cgroup", directory)
  }
  const unified = yield* unifiedMount
  if (unified !== undefined && !unified.options.has(favordynmods)) {
    // Linux before 6.0 does not know the option; sandboxes then start slower.
    yield* run("mount", "-o", `remount,${favordynmods}`, unified.path).pipe(
      Effect.andThen(fileSystem.writeFileString(`${changesDirectory}/${favordynmods}`, unified.path)),
      Effect.catchTag("CommandError", (error) => Effect.logInfo("favordynmods is not available", error.message))
    )
  }
})

/**
 * Empty cgroups below `directory`, innermost first. A runtime removes the cgroup of a container, not its parents; and one
 * that still holds a process stays.
 */
const removeEmpty = (directory: string, ...depth: ReadonlyArray<string>) =>
  run("find", directory, ...depth, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+")

/**
 * A hierarchy with cgroups in it outlives its last mount and keeps its controller, so they go first; all of them were
 * made since we mounted it.
 */
const unmountHierarchy = (path: string) =>
  Effect.ignore(removeEmpty(path, "-mindepth", "1"), { log: "Debug" }).pipe(Effect.andThen(run("umount", path)))

/** Takes `owner`'s mark away and, when nobody else needs them, undoes the changes. Safe to repeat. */
export const releaseCgroups = Effect.fn("MachineSetup.releaseCgroups")(function*(
  owner: string
): Effect.fn.Return<void, PlatformError.PlatformError, System> {
  const fileSystem = yield* FileSystem.FileSystem
  yield* fileSystem.remove(markOf(owner), { force: true })
  const owners = yield* Effect.orElseSucceed(fileSystem.readDirectory(ownersDirectory), () => [])
  const alive = yield* Effect.filter(owners, (mark) =>
    fileSystem.readFileString(`${ownersDirectory}/${mark}`).pipe(
      // An owner whose directory is gone was killed without undoing anything.
      Effect.flatMap((path) => fileSystem.exists(path)),
      Effect.orElseSucceed(() => false)
    ))
  if (alive.length > 0) {
    return
  }
  const changes = yield* Effect.orElseSucceed(fileSystem.readDirectory(changesDirectory), () => [])
  for (const change of changes) {
    const path = yield* fileSystem.readFileString(`${changesDirectory}/${change}`)
    yield* (change === favordynmods
      ? run("mount", "-o", "remount,nofavordynmods", path)
      : Effect.andThen(unmountHierarchy(path), fileSystem.remove(path, { recursive: true }))).pipe(
        Effect.ignore({ log: "Debug" })
      )
  }
  yield* fileSystem.remove(marksDirectory, { recursive: true, force: true })
})

/**
 * Removes the cgroup `cgroupsPath` (`/fast-sandbox`) and those below it from every hierarchy. One that still holds a
 * process stays.
 */
export const removeCgroups = Effect.fn("MachineSetup.removeCgroups")(function*(
  cgroupsPath: string
): Effect.fn.Return<void, never, System> {
  const fileSystem = yield* FileSystem.FileSystem
  const controllers = yield* Effect.orElseSucceed(fileSystem.readDirectory(cgroupRoot), () => [])
  for (const hierarchy of ["", ...controllers.map((name) => `/${name}`)]) {
    const directory = `${cgroupRoot}${hierarchy}${cgroupsPath}`
    if (yield* Effect.orElseSucceed(fileSystem.exists(directory), () => false)) {
      yield* Effect.ignore(removeEmpty(directory), { log: "Warn" })
    }
  }
})

/**
 * Binds an OCI runtime's binary read-only to `target`. A runtime that can't be written to need not copy itself at every
 * start (1 to 2 ms, four times in a sandbox's life), which protects it from being overwritten by a container.
 */
export const bindReadOnly = Effect.fn("MachineSetup.bindReadOnly")(function*(
  binary: string,
  target: string
): Effect.fn.Return<void, CommandError | PlatformError.PlatformError, System> {
  const fileSystem = yield* FileSystem.FileSystem
  if ((yield* Proc.mounts).some(({ path }) => path === target)) {
    return
  }
  yield* fileSystem.writeFileString(target, "")
  yield* run("mount", "--bind", binary, target)
  yield* run("mount", "-o", "remount,ro,bind", target)
})

/** Makes `directory` a file system in memory, for its owner only; programs in it may be executed. Safe to repeat. */
export const mountMemory = Effect.fn("MachineSetup.mountMemory")(function*(
  directory: string,
  sizeBytes: number
): Effect.fn.Return<void, CommandError | PlatformError.PlatformError, System> {
  const fileSystem = yield* FileSystem.FileSystem
  if ((yield* Proc.mounts).some(({ path, type }) => path === directory && type === "tmpfs")) {
    return
  }
  yield* fileSystem.makeDirectory(directory, { recursive: true })
  yield* run("mount", "-t", "tmpfs", "-o", `mode=700,nosuid,nodev,size=${sizeBytes}`, "tmpfs", directory)
})

/** Unmounts everything at and below `directory`, innermost first. Safe to repeat. */
export const unmountBelow = Effect.fn("MachineSetup.unmountBelow")(function*(
  directory: string
): Effect.fn.Return<void, never, System> {
  const below = (yield* Proc.mounts).filter(({ path }) => path === directory || path.startsWith(`${directory}/`))
  yield* Effect.forEach(
    below.toReversed(),
    ({ path }) => run("umount", "-l", path).pipe(Effect.ignore({ log: "Warn" })),
    { discard: true }
  )
})
