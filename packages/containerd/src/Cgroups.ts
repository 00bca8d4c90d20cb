/**
 * The cgroups of sandboxes as the kernel shows them, on the unified hierarchy, the old one, and the two side by side (a
 * cgroup then has a directory in every controller's tree).
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { rmdirSync } from "node:fs"

const root = "/sys/fs/cgroup"

const entries = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  return yield* Effect.orElseSucceed(fileSystem.readDirectory(path), (): ReadonlyArray<string> => [])
})

const isDirectory = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  return yield* fileSystem.stat(path).pipe(
    Effect.map(({ type }) => type === "Directory"),
    Effect.orElseSucceed(() => false)
  )
})

const directoriesBelow = Effect.fnUntraced(function*(path: string) {
  const names = yield* entries(path)
  return yield* Effect.filter(names.map((name) => `${path}/${name}`), isDirectory)
})

const trees = Effect.gen(function*() {
  const names = yield* entries(root)
  return names.includes("cgroup.controllers") ? [root] : yield* directoriesBelow(root)
})

/** The names of the cgroups right below `parent` (`/fast-sandbox`), in any of the trees. */
export const children = Effect.fn("Cgroups.children")(function*(
  parent: string
): Effect.fn.Return<ReadonlyArray<string>, never, FileSystem.FileSystem> {
  const found = yield* Effect.forEach(yield* trees, (tree) => directoriesBelow(`${tree}${parent}`))
  return [...new Set(found.flat().map((path) => path.slice(path.lastIndexOf("/") + 1)))].toSorted()
})

const processesOf = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const text = yield* Effect.orElseSucceed(fileSystem.readFileString(`${path}/cgroup.procs`), () => "")
  return text.split("\n").filter((pid) => pid !== "").map(Number)
})

const isBusy = (path: string): Effect.Effect<boolean, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    if ((yield* processesOf(path)).length > 0) {
      return true
    }
    for (const below of yield* directoriesBelow(path)) {
      if (yield* isBusy(below)) {
        return true
      }
    }
    return false
  })

/** Whether any process runs in a cgroup (`/fast-sandbox/ID`) or below it. */
export const isPopulated = Effect.fn("Cgroups.isPopulated")(function*(
  path: string
): Effect.fn.Return<boolean, never, FileSystem.FileSystem> {
  for (const tree of yield* trees) {
    if (yield* isBusy(`${tree}${path}`)) {
      return true
    }
  }
  return false
})

// The kernel writes 0 for a process outside of our pid namespace, and a signal to 0 would hit ourselves.
const kill = (pid: number): Effect.Effect<void> =>
  pid > 0
    // Fails only when the process ended between the list and the signal, which is what is wanted.
    ? Effect.ignore(Effect.try(() => process.kill(pid, "SIGKILL")))
    : Effect.void

// Refused while a process is in it; whoever asked looks again.
const removeDirectory = (path: string): Effect.Effect<void> => Effect.ignore(Effect.try(() => rmdirSync(path)))

const removeTree = (
  path: string,
  before: (path: string) => Effect.Effect<void, never, FileSystem.FileSystem>
): Effect.Effect<void, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    yield* Effect.forEach(yield* directoriesBelow(path), (below) => removeTree(below, before), { discard: true })
    yield* before(path)
    yield* removeDirectory(path)
  })

const removeWith = Effect.fnUntraced(function*(
  path: string,
  before: (path: string) => Effect.Effect<void, never, FileSystem.FileSystem>
) {
  const directories = (yield* trees).map((tree) => `${tree}${path}`)
  yield* Effect.forEach(directories, (directory) => removeTree(directory, before), { discard: true })
  return (yield* Effect.filter(directories, isDirectory)).length === 0
})

/**
 * Kills whatever is left in a cgroup (`/fast-sandbox/ID`) and in those below it, and removes them. Answers whether
 * nothing is left; a process needs a moment to die, so the next call finds less.
 */
export const remove = Effect.fn("Cgroups.remove")((
  path: string
): Effect.Effect<boolean, never, FileSystem.FileSystem> =>
  removeWith(
    path,
    (directory) =>
      Effect.flatMap(processesOf(directory), (processes) => Effect.forEach(processes, kill, { discard: true }))
  )
)

/** Removes a cgroup and those below it as far as no process is in them. Answers whether nothing is left. */
export const removeEmpty = Effect.fn("Cgroups.removeEmpty")((
  path: string
): Effect.Effect<boolean, never, FileSystem.FileSystem> => removeWith(path, () => Effect.void))
