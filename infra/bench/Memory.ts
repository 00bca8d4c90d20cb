/**
 * What the machine's memory is used for: by processes, each page in the share that is theirs (PSS), and by the kernel on
 * their behalf. What resident sizes add up to says nothing, because programs share most of their pages.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"

/** Of the kernel's memory what grows with processes, namespaces, mounts and cgroups: proc_meminfo(5). */
const kernelFields = ["Slab", "KernelStack", "PageTables", "Percpu"] as const

/** In MiB. */
export interface Usage {
  /** PSS by the name of the program, without the process that measures. */
  readonly programs: ReadonlyMap<string, number>
  readonly kernel: number
  /** The kernel's own estimate of what could still be given out. */
  readonly available: number
}

const kibi = 1024

/** The KiB that a file of /proc tells under a name; undefined where it does not. */
export const kibibytesOf = (text: string, name: string): number | undefined => {
  const [, digits] = new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text) ?? []
  return digits === undefined ? undefined : Number(digits)
}

const mebibytesOf = (text: string, name: string): number => (kibibytesOf(text, name) ?? 0) / kibi

/** A process that has ended meanwhile uses nothing. */
const processUsage = Effect.fnUntraced(function*(pid: string) {
  const files = yield* FileSystem.FileSystem
  const name = yield* files.readFileString(`/proc/${pid}/comm`)
  const rollup = yield* files.readFileString(`/proc/${pid}/smaps_rollup`)
  return [{ name: name.trim(), mebibytes: mebibytesOf(rollup, "Pss") }]
}, Effect.orElseSucceed((): ReadonlyArray<{ readonly name: string; readonly mebibytes: number }> => []))

/** Of the whole machine, now. */
export const read = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const pids = (yield* files.readDirectory("/proc")).filter((name) =>
    /^\d+$/.test(name) && name !== String(process.pid)
  )
  const programs = new Map<string, number>()
  for (const { mebibytes, name } of (yield* Effect.forEach(pids, processUsage)).flat()) {
    programs.set(name, (programs.get(name) ?? 0) + mebibytes)
  }
  const meminfo = yield* files.readFileString("/proc/meminfo")
  return {
    programs,
    kernel: kernelFields.reduce((sum, name) => sum + mebibytesOf(meminfo, name), 0),
    available: mebibytesOf(meminfo, "MemAvailable")
  } satisfies Usage
})

/** What was used more afterwards. */
export const growth = (before: Usage, after: Usage): Usage => ({
  programs: new Map(
    [...new Set([...before.programs.keys(), ...after.programs.keys()])].map((name) =>
      [name, (after.programs.get(name) ?? 0) - (before.programs.get(name) ?? 0)] as const
    )
  ),
  kernel: after.kernel - before.kernel,
  available: after.available - before.available
})
