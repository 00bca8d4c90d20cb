/**
 * The cgroups of sandboxes as the kernel shows them, on the unified hierarchy, the old one, and the two side by side (a
 * cgroup then has a directory in every controller's tree).
 *
 * Everything is read and removed synchronously: these files are the kernel's memory, no disk is waited for, and a pool of
 * threads in between would cost more than the work.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type Dirent, existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import type * as OciSpec from "./OciSpec.ts"

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

/** The old hierarchies' limit of memory and swap together; kernels may be built or started without it. */
const swapFile = "memory.memsw.limit_in_bytes"

/** Whether this kernel can limit the swap of a cgroup. The root of a unified hierarchy has no limits, its children have. */
export const limitsSwap: Effect.Effect<boolean> = Effect.sync(() =>
  isUnified()
    ? directoriesBelow(root).some((directory) => existsSync(`${directory}/memory.swap.max`))
    : existsSync(`${root}/memory/${swapFile}`)
)

/** The kernel did not take a limit: it is below what is used already, or the cgroup is gone. */
export class LimitRefused extends Schema.TaggedError<LimitRefused>()("LimitRefused", {
  file: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.file}: ${this.problem}`
  }
}

/** The limit of memory and swap together must not be below that of memory, at no time: so it goes, and comes back. */
const legacyMemory = (
  { limit, swap }: NonNullable<OciSpec.LinuxResources["memory"]>
): ReadonlyArray<readonly [string, string, number]> => [
  ...(swap === undefined ? [] : [["memory", swapFile, -1] as const]),
  ["memory", "memory.limit_in_bytes", limit],
  ...(swap === undefined ? [] : [["memory", swapFile, swap] as const])
]

/** Which file of which controller says what, on the old hierarchies. */
const legacyLimits = (
  { cpu, memory, pids }: OciSpec.LinuxResources
): ReadonlyArray<readonly [string, string, number]> => [
  ...(memory === undefined ? [] : legacyMemory(memory)),
  ...(cpu?.period === undefined ? [] : [["cpu", "cpu.cfs_period_us", cpu.period] as const]),
  ...(cpu?.quota === undefined ? [] : [["cpu", "cpu.cfs_quota_us", cpu.quota] as const]),
  ...(cpu?.shares === undefined ? [] : [["cpu", "cpu.shares", cpu.shares] as const]),
  ...(pids === undefined ? [] : [["pids", "pids.max", pids.limit] as const])
]

/** Shares 2 to 262144 as weights 1 to 10000, as OCI runtimes convert them. */
const weightOf = (shares: number): number => 1 + Math.floor((shares - 2) * 9999 / 262_142)

const unifiedLimits = ({ cpu, memory, pids }: OciSpec.LinuxResources): ReadonlyArray<readonly [string, string]> => [
  ...(memory === undefined ? [] : [["memory.max", String(memory.limit)] as const]),
  ...(memory?.swap === undefined ? [] : [["memory.swap.max", String(memory.swap - memory.limit)] as const]),
  ...(cpu?.quota === undefined ? [] : [["cpu.max", `${cpu.quota} ${cpu.period ?? 100_000}`] as const]),
  ...(cpu?.shares === undefined ? [] : [["cpu.weight", String(weightOf(cpu.shares))] as const]),
  ...(pids === undefined ? [] : [["pids.max", String(pids.limit)] as const])
]

const write = (file: string, value: string): Effect.Effect<void, LimitRefused> =>
  Effect.try({
    try: () => writeFileSync(file, value),
    catch: (cause) => new LimitRefused({ file, problem: cause instanceof Error ? cause.message : String(cause) })
  })

/**
 * Sets limits of a cgroup (`/fast-sandbox/ID`) as an OCI runtime would, without the milliseconds of asking one: CPU,
 * memory and pids; devices are not limits.
 */
export const limit = (path: string, resources: OciSpec.LinuxResources): Effect.Effect<void, LimitRefused> =>
  Effect.forEach(
    isUnified()
      ? unifiedLimits(resources).map(([file, value]) => [`${root}${path}/${file}`, value] as const)
      : legacyLimits(resources).map(([tree, file, value]) =>
        [`${root}/${tree}${path}/${file}`, String(value)] as const
      ),
    ([file, value]) => write(file, value),
    { discard: true }
  )

/** `/a/b/c` lies in `/a/b`, `/a` and the root, which is named by nothing. */
const ancestorsOf = (path: string): ReadonlyArray<string> =>
  path.split("/").slice(0, -1).map((_, at, names) => names.slice(0, at + 1).join("/"))

/**
 * Makes a cgroup (`/fast-sandbox/podUID`) where it is not there, in every controller that its limits are of, and sets them;
 * others stay as they are.
 */
export const make = (path: string, resources: OciSpec.LinuxResources): Effect.Effect<void, LimitRefused> =>
  Effect.gen(function*() {
    const controllers = (["cpu", "memory", "pids"] as const).filter((name) => resources[name] !== undefined)
    const directories = isUnified() ? [`${root}${path}`] : controllers.map((name) => `${root}/${name}${path}`)
    for (const directory of directories) {
      // What is wrong with it is told when its limits are written.
      yield* Effect.sync(() => tolerant(() => mkdirSync(directory, { recursive: true }), undefined))
    }
    if (isUnified()) {
      // A cgroup has a controller's files when its parent says so.
      const handedDown = controllers.map((name) => `+${name}`).join(" ")
      yield* Effect.forEach(ancestorsOf(path), (above) => write(`${root}${above}/cgroup.subtree_control`, handedDown))
    }
    yield* limit(path, resources)
  })

/**
 * Sets the weight of everything in a cgroup together against its siblings when processors are short, on the old scale:
 * 1024 is what a single process or another cgroup has. It is made where it is not there.
 */
export const weigh = (path: string, shares: number): Effect.Effect<void, LimitRefused> =>
  make(path, { cpu: { shares } })

const integerIn = (file: string): number => Number.parseInt(tolerant(() => readFileSync(file, "utf8"), ""), 10)

const coresOf = (path: string): number => {
  const [quota, period] = isUnified()
    ? tolerant(() => readFileSync(`${root}${path}/cpu.max`, "utf8"), "").split(" ").map(Number)
    : [integerIn(`${root}/cpu${path}/cpu.cfs_quota_us`), integerIn(`${root}/cpu${path}/cpu.cfs_period_us`)]
  // -1, "max" or no such file: nobody limits it here.
  return quota !== undefined && period !== undefined && quota > 0 && period > 0 ? quota / period : Infinity
}

/**
 * The cores that a cgroup and those above it leave to one below them; `Infinity` without a limit. The old hierarchies
 * refuse a child that is promised more.
 */
export const cores = (path: string): Effect.Effect<number> =>
  Effect.sync(() => Math.min(...[...ancestorsOf(path), path].map(coresOf)))

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
