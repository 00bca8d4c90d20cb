/** What the kernel says about mounts and processes, read from /proc. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"

/** A mount of this process's mount namespace. Options are those of the mount and of its file system together. */
export interface MountPoint {
  readonly path: string
  readonly type: string
  readonly options: ReadonlySet<string>
}

// mountinfo writes white space and backslashes in paths as octal numbers.
const unescape = (path: string): string =>
  path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** All mounts, in the order in which they were made. */
export const mounts: Effect.Effect<ReadonlyArray<MountPoint>, never, FileSystem.FileSystem> = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const text = yield* Effect.orElseSucceed(fileSystem.readFileString("/proc/self/mountinfo"), () => "")
  return text.split("\n").filter((line) => line !== "").map((line) => {
    const [own = "", system = ""] = line.split(" - ")
    const [, , , , path = "", options = ""] = own.split(" ")
    const [type = "", , systemOptions = ""] = system.split(" ")
    return {
      path: unescape(path),
      type,
      options: new Set([...options.split(","), ...systemOptions.split(",")])
    }
  })
})

/** A live process. */
export interface ProcessInfo {
  readonly pid: number
  readonly args: ReadonlyArray<string>
}

/** The command line of a process; empty when there is none. */
export const argsOf = (pid: number | string): Effect.Effect<ReadonlyArray<string>, never, FileSystem.FileSystem> =>
  FileSystem.FileSystem.use((fileSystem) => fileSystem.readFileString(`/proc/${pid}/cmdline`)).pipe(
    Effect.map((text) => text === "" ? [] : text.split("\0")),
    Effect.orElseSucceed(() => [])
  )

/** All processes but kernel threads. */
export const processes: Effect.Effect<ReadonlyArray<ProcessInfo>, never, FileSystem.FileSystem> = Effect.gen(
  function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const names = yield* Effect.orElseSucceed(fileSystem.readDirectory("/proc"), () => [])
    const found: Array<ProcessInfo> = []
    for (const name of names) {
      if (/^\d+$/.test(name)) {
        const args = yield* argsOf(name)
        if (args.length > 0) {
          found.push({ pid: Number(name), args })
        }
      }
    }
    return found
  }
)

/** The shims that serve the containerd at a socket. */
export const shims = (socket: string): Effect.Effect<ReadonlyArray<ProcessInfo>, never, FileSystem.FileSystem> =>
  Effect.map(
    processes,
    (all) => all.filter(({ args }) => args[0]?.includes("containerd-shim") === true && args.includes(socket))
  )
