/**
 * The cgroup of a sandbox, read where the kernel shows it: whether the kernel killed for want of memory, and whether
 * the last process is gone. Works on the unified hierarchy, the old one, and the two side by side.
 */
import * as Effect from "effect/Effect"
import { existsSync, readdirSync, readFileSync, rmdirSync } from "node:fs"

const root = "/sys/fs/cgroup"

const isUnified = (): boolean => existsSync(`${root}/cgroup.controllers`)

/** On the old hierarchy each controller has a tree of its own, and a cgroup a directory in each. */
const directoriesOf = (cgroupPath: string): ReadonlyArray<string> => {
  const trees = isUnified() ? [root] : readdirSync(root).map((name) => `${root}/${name}`)
  return trees.map((tree) => `${tree}${cgroupPath}`).filter((directory) => existsSync(directory))
}

/** Reads a file of the kernel's that may vanish at any moment; empty when it is not there. */
const read = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/** How often the kernel killed a process of the cgroup for want of memory; 0 when the cgroup is gone. */
export const oomKills = (cgroupPath: string): Effect.Effect<number> =>
  Effect.sync(() => {
    const text = isUnified()
      ? read(`${root}${cgroupPath}/memory.events`)
      : read(`${root}/memory${cgroupPath}/memory.oom_control`)
    return Number(/^oom_kill (\d+)$/m.exec(text)?.[1] ?? 0)
  })

const signalKill = "SIGKILL"

const kill = (pid: number): void => {
  try {
    process.kill(pid, signalKill)
  } catch {
    // It ended between the list and the signal, which is what is wanted.
  }
}

const removeEmpty = (directory: string): void => {
  try {
    rmdirSync(directory)
  } catch {
    // A process in it has not ended yet; whoever asked looks again.
  }
}

/**
 * Whether nothing is left of a cgroup. What the runtime left behind is killed and removed on the way, so
 * that the next look finds less.
 */
export const isGone = (cgroupPath: string): Effect.Effect<boolean> =>
  Effect.sync(() => {
    const left = directoriesOf(cgroupPath)
    for (const directory of left) {
      for (const pid of read(`${directory}/cgroup.procs`).split("\n").filter((line) => line !== "")) {
        kill(Number(pid))
      }
      removeEmpty(directory)
    }
    return left.every((directory) => !existsSync(directory))
  })
