/**
 * What sandboxes and the programs around them could leave on a machine. A test counts before and after, and asserts that
 * nothing came to stay.
 */
import type { System } from "@fast-sandbox/containerd/MachineSetup"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as Proc from "@fast-sandbox/containerd/Proc"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { basename } from "node:path"

/** What exists, by kind. */
export interface MachineCensus {
  /** Command lines of containerd, shims, runtimes, loggers and our own programs. */
  readonly processes: ReadonlyArray<string>
  readonly mounts: ReadonlyArray<string>
  readonly networkNamespaces: ReadonlyArray<string>
  /** Network interfaces, and tables of rules. */
  readonly network: ReadonlyArray<string>
  readonly cgroups: ReadonlyArray<string>
  /** State of OCI runtimes and shims, which all containerds of a machine share. */
  readonly runtimeState: ReadonlyArray<string>
}

/** Told by the name of the program or of the script that it runs, not by paths, which may hold any word. */
const isOurs = ({ args }: Proc.ProcessInfo): boolean =>
  /^(containerd|containerd-shim.*|crun|runc|fsb-.*)$/.test(basename(args[0] ?? "")) ||
  args.some((arg) => /\/(agent\.cjs|fsb-ctl\.cjs)$/.test(arg))

/** Agents number their networks, use no number twice, and keep some ahead: how many there are is what counts. */
const unnumbered = (name: string): string => name.replace(/(fsb-?[0-9a-f]{8}-?)[0-9a-z]+$/, "$1n")

const cgroupRoot = "/sys/fs/cgroup"

const below = (files: FileSystem.FileSystem, directory: string) =>
  files.readDirectory(directory, { recursive: true }).pipe(
    // A folder that goes while it is being read is one that does not stay.
    Effect.orElseSucceed((): ReadonlyArray<string> => [])
  )

/** Counts now. */
export const take: Effect.Effect<MachineCensus, never, System> = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const processes = yield* Proc.processes
  const mounts = yield* Proc.mounts
  const cgroups = yield* below(files, cgroupRoot)
  return {
    processes: processes.filter(isOurs).map(({ args }) => args.join(" ").trim()).toSorted(),
    mounts: mounts.map(({ path }) => unnumbered(path)).toSorted(),
    networkNamespaces: (yield* below(files, "/run/netns")).map(unnumbered),
    network: [
      // Not what is below them: links lead from there through all devices.
      ...(yield* Effect.orElseSucceed(files.readDirectory("/sys/class/net"), (): ReadonlyArray<string> => [])).map(
        unnumbered
      ),
      ...(yield* NetworkNamespaces.tables).map(({ name }) => name)
    ],
    // Only folders have this file, and each has it.
    cgroups: cgroups.filter((path) => path.endsWith("/cgroup.procs")).toSorted(),
    runtimeState: (yield* below(files, "/run/containerd")).filter((path) => /^(runc|s)\//.test(path)).toSorted()
  }
})

/** What `after` has and `before` had not, by kind; empty lists where nothing stayed. */
export const added = (before: MachineCensus, after: MachineCensus): MachineCensus => {
  const more = (kind: keyof MachineCensus) => {
    const known = new Map<string, number>()
    for (const entry of before[kind]) {
      known.set(entry, (known.get(entry) ?? 0) + 1)
    }
    return after[kind].filter((entry) => {
      const count = known.get(entry) ?? 0
      known.set(entry, count - 1)
      return count <= 0
    })
  }
  return {
    processes: more("processes"),
    mounts: more("mounts"),
    networkNamespaces: more("networkNamespaces"),
    network: more("network"),
    cgroups: more("cgroups"),
    runtimeState: more("runtimeState")
  }
}

/** A census without anything. */
export const empty: MachineCensus = {
  processes: [],
  mounts: [],
  networkNamespaces: [],
  network: [],
  cgroups: [],
  runtimeState: []
}
