/**
 * The cgroups of sandboxes as the kernel shows them, on the unified hierarchy, the old one, and the two side by side (a
 * cgroup then has a directory in every controller's tree).
 *
 * Everything is read and removed synchronously: these files are the kernel's memory, no disk is waited for, and a pool of
 * threads in between would cost more than the work.
 */
import * as Effect from "effect/Effect"
import { type Dirent, existsSync, readdirSync, readFileSync, rmdirSync } from "node:fs"

const root = "/sys/fs/cgroup"

// Any of these files and directories may vanish at any moment, which is what `otherwise` stands for.
const tolerant = <A, B>(read: () => A, otherwise: B): A | B => {
  try {
    return read()
  } catch {
    return otherwise
  }
}

const directoriesBelow = (path: string): ReadonlyArray<string> =>
  tolerant((): ReadonlyArray<Dirent> => readdirSync(path, { withFileTypes: true }), [])
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => `${path}/${name}`)

const isUnified = (): boolean => existsSync(`${root}/cgroup.controllers`)

const trees = (): ReadonlyArray<string> => isUnified() ? [root] : directoriesBelow(root)

/** Where a cgroup is, in every tree that has it. */
const directoriesOf = (path: string): ReadonlyArray<string> =>
  trees().map((tree) => `${tree}${path}`).filter((directory) => existsSync(directory))

/** The names of the cgroups right below `parent` (`/fast-sandbox`), in any of the trees. */
export const children = (parent: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.sync(() => {
    const found = directoriesOf(parent).flatMap(directoriesBelow)
    return [...new Set(found.map((path) => path.slice(path.lastIndexOf("/") + 1)))].toSorted()
  })

const processesOf = (directory: string): ReadonlyArray<number> =>
  tolerant(() => readFileSync(`${directory}/cgroup.procs`, "utf8"), "").split("\n").filter((pid) => pid !== "").map(
    Number
  )

const isBusy = (directory: string): boolean =>
  processesOf(directory).length > 0 || directoriesBelow(directory).some(isBusy)

/** Whether any process runs in a cgroup (`/fast-sandbox/ID`) or below it. */
export const isPopulated = (path: string): Effect.Effect<boolean> => Effect.sync(() => directoriesOf(path).some(isBusy))

const allProcesses = (directory: string): ReadonlyArray<number> => [
  ...processesOf(directory),
  ...directoriesBelow(directory).flatMap(allProcesses)
]

/** The ids of the processes in a cgroup (`/fast-sandbox/ID`) and in those below it, as this process sees them. */
export const processes = (path: string): Effect.Effect<ReadonlyArray<number>> =>
  Effect.sync(() => [...new Set(directoriesOf(path).flatMap(allProcesses))].toSorted((a, b) => a - b))

/** How often the kernel killed a process of the cgroup for want of memory; 0 when the cgroup is gone. */
export const oomKills = (path: string): Effect.Effect<number> =>
  Effect.sync(() => {
    const file = isUnified() ? `${root}${path}/memory.events` : `${root}/memory${path}/memory.oom_control`
    return Number(/^oom_kill (\d+)$/m.exec(tolerant(() => readFileSync(file, "utf8"), ""))?.[1] ?? 0)
  })

const killAll = (directory: string): void => {
  for (const pid of processesOf(directory)) {
    // The kernel writes 0 for a process outside of our pid namespace, and a signal to 0 would hit ourselves.
    if (pid > 0) {
      // Fails only when the process ended between the list and the signal, which is what is wanted.
      tolerant(() => process.kill(pid, "SIGKILL"), false)
    }
  }
}

const removeTree = (directory: string, before: (directory: string) => void): void => {
  for (const below of directoriesBelow(directory)) {
    removeTree(below, before)
  }
  before(directory)
  // Refused while a process is in it; whoever asked looks again.
  tolerant(() => rmdirSync(directory), undefined)
}

const removeWith = (path: string, before: (directory: string) => void): Effect.Effect<boolean> =>
  Effect.sync(() => {
    const directories = directoriesOf(path)
    for (const directory of directories) {
      removeTree(directory, before)
    }
    return !directories.some((directory) => existsSync(directory))
  })

/**
 * Kills whatever is left in a cgroup (`/fast-sandbox/ID`) and in those below it, and removes them. Answers whether
 * nothing is left; a process needs a moment to die, so the next call finds less.
 */
export const remove = (path: string): Effect.Effect<boolean> => removeWith(path, killAll)

/** Removes a cgroup and those below it as far as no process is in them. Answers whether nothing is left. */
export const removeEmpty = (path: string): Effect.Effect<boolean> => removeWith(path, () => undefined)
