/**
 * What this machine offers for fast starts, found out once: which OCI runtimes, which cgroup hierarchy, and which of the
 * optimisations are on. Everything here is optional; whatever is missing has a fallback and a reason that people read in
 * `fsb-ctl doctor` and in the agent's health.
 */
import type { RuntimeType } from "@fast-sandbox/core/SandboxPool"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"
import type { ContainerdError } from "./ContainerdError.ts"
import { HostRoot } from "./HostRoot.ts"
import { run } from "./internal/command.ts"
import { Introspection } from "./Introspection.ts"
import type { System } from "./MachineSetup.ts"
import * as Proc from "./Proc.ts"
import * as ShimRuntime from "./ShimRuntime.ts"
import { defaultSnapshotter } from "./Snapshots.ts"

/** A runtime that was looked for. `problem` says why it can't be used on this machine; without a path it is not there. */
export const OciRuntime = Schema.Struct({
  name: Schema.Literals(["crun", "runc", "runsc", "kata"]),
  path: Schema.String,
  version: Schema.String,
  problem: Schema.optionalKey(Schema.String)
})
export type OciRuntime = typeof OciRuntime.Type

/** An optimisation: whether it is on, and what was found. */
export const Optimisation = Schema.Struct({
  name: Schema.Literals(["crun", "favordynmods", "readOnlyRuntime", "groupedShim", "volatileOverlay"]),
  isOn: Schema.Boolean,
  reason: Schema.String
})
export type Optimisation = typeof Optimisation.Type

/** The cgroup hierarchy: one unified, the old one, or the old one beside an empty unified one. */
export const CgroupMode = Schema.Literals(["v2", "v1", "hybrid"])
export type CgroupMode = typeof CgroupMode.Type

/**
 * What was found. `runtime` is the one that sandboxes should use; where it has a problem, none can be started and the
 * rest of the profile serves only to say so.
 */
export const Profile = Schema.Struct({
  containerdVersion: Schema.String,
  cgroupMode: CgroupMode,
  snapshotter: Schema.String,
  runtime: OciRuntime,
  runtimes: Schema.Array(OciRuntime),
  optimisations: Schema.Array(Optimisation)
})
export type Profile = typeof Profile.Type

/** The profile of this machine and its containerd. */
export class RuntimeProfile extends Context.Service<RuntimeProfile, Profile>()(
  "@fast-sandbox/containerd/RuntimeProfile"
) {
  /** Looks once, when the layer is built. */
  static readonly layer = (
    options?: DetectOptions
  ): Layer.Layer<RuntimeProfile, ContainerdError, Introspection | System> =>
    Layer.effect(RuntimeProfile, detect(options))
}

/** What to look for, and where. */
export interface DetectOptions {
  /** `container` when absent. */
  readonly type?: RuntimeType | undefined
  /** A directory with runtimes that is looked at before the usual ones (`Daemon.runtimeDirectory`). */
  readonly runtimeDirectory?: string | undefined
  /** The one runtime to use, by absolute path, as containerd sees it. Its base name must begin as those of its type do. */
  readonly binary?: string | undefined
}

/** The stock shim with the profile's runtime; kata's is a runtime by itself. */
export const stockRuntime = ({ runtime }: Profile): ShimRuntime.ShimRuntime =>
  runtime.name === "kata" ? ShimRuntime.kata : ShimRuntime.make({ binary: runtime.path })

/** Whether an optimisation is on. */
export const isOn = (profile: Profile, name: Optimisation["name"]): boolean =>
  profile.optimisations.some((optimisation) => optimisation.name === name && optimisation.isOn)

/** Whether a runtime is of that version or a later one. */
export const isAtLeast = (
  { version }: OciRuntime,
  [wantedMajor, wantedMinor]: readonly [major: number, minor: number]
): boolean => {
  const [major = 0, minor = 0] = version.split(/[^\d]+/).map(Number)
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)
}

/** Where runtimes are installed. */
export const binaryDirectories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]

/** A program that runs sandboxes. */
interface Candidate {
  readonly name: OciRuntime["name"]
  readonly file: string
}

/** The faster one first: crun saves 11 to 14 ms per create. */
const candidatesOf: Readonly<Record<RuntimeType, readonly [Candidate, ...ReadonlyArray<Candidate>]>> = {
  container: [{ name: "crun", file: "crun" }, { name: "runc", file: "runc" }],
  gvisor: [{ name: "runsc", file: "runsc" }],
  kata: [{ name: "kata", file: "containerd-shim-kata-v2" }]
}

const cgroupRoot = "/sys/fs/cgroup"

const cgroups = Effect.gen(function*() {
  const fileSystem = yield* FileSystem.FileSystem
  const controllersOf = (directory: string) =>
    Effect.orElseSucceed(fileSystem.readFileString(`${directory}/cgroup.controllers`), () => undefined)
  if ((yield* controllersOf(cgroupRoot)) !== undefined) {
    return { mode: "v2", leftOnV2: [] } as const
  }
  const unified = yield* controllersOf(`${cgroupRoot}/unified`)
  return unified === undefined
    ? { mode: "v1", leftOnV2: [] } as const
    : { mode: "hybrid", leftOnV2: unified.split(/\s+/).filter((name) => name !== "") } as const
})

const inspect = Effect.fnUntraced(function*(
  name: OciRuntime["name"],
  path: string,
  leftOnV2: ReadonlyArray<string>
): Effect.fn.Return<OciRuntime | undefined, never, System> {
  const fileSystem = yield* FileSystem.FileSystem
  const root = yield* HostRoot
  if (!(yield* Effect.orElseSucceed(fileSystem.exists(`${root}${path}`), () => false))) {
    return undefined
  }
  // A runtime of the node has its libraries there too.
  const output = yield* Effect.result(
    root === "" ? run(path, "--version") : run("nsenter", `--root=${root}`, path, "--version")
  )
  if (output._tag === "Failure") {
    return { name, path, version: "", problem: output.failure.message }
  }
  const version = /version (\S+)/.exec(output.success)?.[1] ?? ""
  return name === "crun" && leftOnV2.length > 0
    ? {
      name,
      path,
      version,
      problem: `crun refuses a hybrid cgroup hierarchy with controllers on v2: ${leftOnV2.join(", ")}; mount them on v1`
    }
    : { name, path, version }
})

/** What to use: the first that can be used, else the first that is there, else what should be there. */
const choose = (
  candidates: readonly [Candidate, ...ReadonlyArray<Candidate>],
  found: ReadonlyArray<OciRuntime>
): OciRuntime => {
  const [{ name }] = candidates
  const files = candidates.map(({ file }) => file).join(" nor ")
  return found.find(({ problem }) => problem === undefined) ?? found[0] ?? {
    name,
    path: "",
    version: "",
    problem: candidates.length > 1 ? `neither ${files} is installed` : `${files} is not installed`
  }
}

/** `undefined` when the version is not one that is known to work, with what was measured and tested. */
const shimProblem = (major: number, minor: number): string | undefined =>
  (major === 1 && minor >= 6) || major === 2 ? undefined : "the grouped shim is known to work with containerd 1.6 to 2"

/** The first Linux whose overlay knows `volatile`. */
const volatileSince = [5, 10] as const

/**
 * The running Linux: its version and patch level. Node's own `os.release()` would be the one of the machine that made the
 * start-up snapshot.
 */
export const kernelVersion = (): readonly [number, number] => {
  const [, major = "0", minor = "0"] = /^(\d+)\.(\d+)/.exec(readFileSync("/proc/sys/kernel/osrelease", "utf8")) ?? []
  return [Number(major), Number(minor)]
}

/** See {@link RuntimeProfile.layer}. */
export const detect = Effect.fn("RuntimeProfile.detect")(function*(
  options?: DetectOptions
): Effect.fn.Return<Profile, ContainerdError, Introspection | System> {
  const introspection = yield* Introspection
  const { major, minor, version } = yield* introspection.version
  const snapshotters = yield* introspection.snapshotters
  const { leftOnV2, mode } = yield* cgroups
  const mounts = yield* Proc.mounts

  const type = options?.type ?? "container"
  const binary = options?.binary
  const directories = [
    ...(options?.runtimeDirectory === undefined ? [] : [options.runtimeDirectory]),
    ...binaryDirectories
  ]
  const runtimes: Array<OciRuntime> = []
  for (const { file, name } of candidatesOf[type]) {
    const paths = binary === undefined
      ? directories.map((directory) => `${directory}/${file}`)
      : binary.split("/").at(-1)?.startsWith(file) === true
      ? [binary]
      : []
    for (const path of paths) {
      const runtime = yield* inspect(name, path, leftOnV2)
      if (runtime !== undefined) {
        runtimes.push(runtime)
        break
      }
    }
  }
  const runtime = choose(candidatesOf[type], runtimes)
  const snapshotter = snapshotters.includes(defaultSnapshotter) ? defaultSnapshotter : snapshotters[0] ?? ""
  const crun = runtimes.find(({ name }) => name === "crun")
  const isFavored = mounts.some(({ options, type }) => type === "cgroup2" && options.has("favordynmods"))
  const isReadOnly = mounts.some(({ options, path }) => path === runtime.path && options.has("ro"))
  const groupedShim = type === "container"
    ? shimProblem(major, minor)
    : `sandboxes of ${type} have a shim each`
  const [kernelMajor, kernelMinor] = kernelVersion()
  const hasVolatile = kernelMajor > volatileSince[0] ||
    (kernelMajor === volatileSince[0] && kernelMinor >= volatileSince[1])
  return {
    containerdVersion: version,
    cgroupMode: mode,
    snapshotter,
    runtime,
    runtimes,
    optimisations: [
      {
        name: "crun",
        isOn: runtime.name === "crun",
        reason: runtime.name === "crun" ? `crun ${runtime.version}` : crun?.problem ?? "crun is not installed"
      },
      {
        name: "favordynmods",
        isOn: isFavored,
        reason: isFavored
          ? "the cgroup hierarchy is mounted with favordynmods"
          : "mount the cgroup2 hierarchy with favordynmods (Linux 6.0): without it each start waits 6 to 15 ms"
      },
      {
        name: "readOnlyRuntime",
        isOn: isReadOnly,
        reason: isReadOnly
          ? `${runtime.path} is bound read-only`
          : `${runtime.path} can be written to and copies itself`
      },
      {
        name: "groupedShim",
        isOn: groupedShim === undefined,
        reason: groupedShim ?? `containerd ${version}`
      },
      {
        name: "volatileOverlay",
        isOn: snapshotter === defaultSnapshotter && hasVolatile,
        reason: snapshotter !== defaultSnapshotter
          ? `the snapshotter is ${snapshotter}`
          : hasVolatile
          ? `Linux ${kernelMajor}.${kernelMinor}`
          : "needs Linux 5.10"
      }
    ]
  }
})
