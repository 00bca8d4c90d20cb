/**
 * A containerd for one test file: its own directory, socket and namespace, with everything gone afterwards; and a census
 * of what exists, so that a test can prove that nothing was left behind.
 */
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Leases } from "@fast-sandbox/containerd/Leases"
import * as MachineSetup from "@fast-sandbox/containerd/MachineSetup"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import { randomUUID } from "node:crypto"

/** The containerd of this test: its process and its paths. */
export class PrivateContainerd extends Context.Service<PrivateContainerd, {
  readonly daemon: ContainerdDaemon.Daemon
  readonly namespace: string
  /** Scratch space beside containerd's own directory; goes with it. */
  readonly directory: string
  /** Below this path all cgroups of the test belong: `<cgroupsPath>/<id>`. */
  readonly cgroupsPath: string
}>()("@fast-sandbox/testkit/PrivateContainerd") {}

/** How it is run. `namespace` is unique unless given, because runtimes keep their state by namespace for the machine. */
export interface Options {
  readonly namespace?: string | undefined
  readonly pullsImages?: boolean | undefined
}

/** A private containerd and all services over it. Wants root. What can't be set up is a defect of the machine. */
export const layer = (
  options?: Options
): Layer.Layer<PrivateContainerd | Containerd.Containerd, never, MachineSetup.System> =>
  Layer.unwrap(Effect.gen(function*() {
    const fileSystem = yield* FileSystem.FileSystem
    const token = yield* Effect.sync(() => randomUUID().slice(0, 8))
    const namespace = options?.namespace ?? `test-${token}`
    const directory = yield* fileSystem.makeTempDirectoryScoped({ prefix: "fsb-" })
    // runc enters a sandbox's root file system as the sandbox's root, who is nobody here.
    yield* fileSystem.chmod(directory, 0o711)
    const cgroupsPath = `/fsb-test-${token}`
    // Runs after the daemon's own release, when nothing is in them any more.
    yield* Effect.addFinalizer(() => MachineSetup.removeCgroups(cgroupsPath))
    const daemon = yield* ContainerdDaemon.scoped({
      directory: `${directory}/containerd`,
      pullsImages: options?.pullsImages
    })
    return Layer.merge(
      Layer.succeed(PrivateContainerd, { daemon, namespace, directory, cgroupsPath }),
      Containerd.layer({ socket: daemon.socket, namespace })
    )
  })).pipe(Layer.orDie)

/** What exists, by kind; each list is sorted, so that two censuses can be compared. */
export interface Census {
  readonly containers: ReadonlyArray<string>
  readonly tasks: ReadonlyArray<string>
  /** Active snapshots; the committed ones are layers of images. */
  readonly snapshots: ReadonlyArray<string>
  readonly leases: ReadonlyArray<string>
  /** Processes whose command line names the socket: shims. */
  readonly shims: ReadonlyArray<string>
  /** Mounts at and below the test's directory, without the runtimes' binds. */
  readonly mounts: ReadonlyArray<string>
  readonly cgroups: ReadonlyArray<string>
  /** State of OCI runtimes in the namespace. */
  readonly runtimeState: ReadonlyArray<string>
  readonly networkNamespaces: ReadonlyArray<string>
  /** Files of the test's own, outside of containerd's directory. */
  readonly files: ReadonlyArray<string>
}

const cgroupRoot = "/sys/fs/cgroup"

const sorted = (names: ReadonlyArray<string>): ReadonlyArray<string> => names.toSorted()

/** Counts everything that belongs to this test's containerd. */
export const census: Effect.Effect<
  Census,
  ContainerdError,
  PrivateContainerd | Containers | Tasks | Snapshots | Leases | FileSystem.FileSystem
> = Effect.gen(function*() {
  const { cgroupsPath, daemon, directory, namespace } = yield* PrivateContainerd
  const fileSystem = yield* FileSystem.FileSystem
  const entries = (path: string, options?: { readonly recursive: true }) =>
    Effect.orElseSucceed(fileSystem.readDirectory(path, options), (): ReadonlyArray<string> => [])
  const controllers = yield* entries(cgroupRoot)
  const cgroups = yield* Effect.forEach(
    ["", ...controllers],
    (controller) =>
      Effect.map(entries(`${cgroupRoot}/${controller}${cgroupsPath}`), (names) =>
        // Files are the cgroup's own interface; directories are cgroups.
        names.filter((name) => !name.includes(".") && !interfaceFiles.has(name)).map((name) => `${controller}/${name}`))
  )
  return {
    containers: sorted((yield* (yield* Containers).list()).map(({ id }) => id)),
    tasks: sorted((yield* (yield* Tasks).list).map(({ containerId }) => containerId)),
    snapshots: sorted(
      (yield* (yield* Snapshots).list()).filter(({ kind }) => kind !== "committed").map(({ name }) => name)
    ),
    leases: sorted((yield* (yield* Leases).list).map(({ id }) => id)),
    shims: sorted((yield* Proc.shims(daemon.socket)).map(({ args }) => args.join(" "))),
    mounts: sorted(
      (yield* Proc.mounts)
        .map(({ path }) => path)
        .filter((path) => path.startsWith(`${directory}/`) && !path.startsWith(`${daemon.runtimeDirectory}/`))
    ),
    cgroups: sorted(cgroups.flat()),
    runtimeState: sorted(yield* entries(`/run/containerd/runc/${namespace}`)),
    networkNamespaces: sorted(yield* entries("/run/netns")),
    files: sorted((yield* entries(directory)).filter((name) => `${directory}/${name}` !== daemon.directory))
  }
})

/** Files of a cgroup v1 directory without a dot in their names. */
const interfaceFiles: ReadonlySet<string> = new Set(["tasks", "notify_on_release"])
