/** What the integration tests do over and over: start a program, see how it ends and what it wrote, and clean up. */
import { ignoreNotFound } from "@fast-sandbox/containerd/ContainerdError"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Images } from "@fast-sandbox/containerd/Images"
import { ImageUsers } from "@fast-sandbox/containerd/ImageUser"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import * as RuntimeStreams from "@fast-sandbox/containerd/RuntimeStreams"
import { seccompProfile } from "@fast-sandbox/containerd/SeccompProfile"
import * as ShimRuntime from "@fast-sandbox/containerd/ShimRuntime"
import { Snapshots, volatile } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import type { UserNamespaces } from "@fast-sandbox/containerd/UserNamespaces"
import { PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { busyboxName } from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Schedule } from "effect"
import { execFileSync } from "node:child_process"
import { randomUUID } from "node:crypto"
import { fileURLToPath } from "node:url"

export const SIGTERM = 15
export const SIGKILL = 9

export interface Program extends OciSpec.SandboxProcess {
  readonly image?: string
  readonly runtime: ShimRuntime.ShimRuntime
  readonly resources?: OciSpec.Resources
  readonly userName?: string
  readonly readonlyRoot?: boolean
  readonly netnsPath?: string
  readonly userNamespaces?: UserNamespaces["Service"]
}

const native = fileURLToPath(new URL("../../agent/native", import.meta.url))

/** The agent's native programs, in `bin` of the test's directory. */
export const buildNative = Effect.gen(function*() {
  const { directory } = yield* PrivateContainerd
  execFileSync("make", ["-s", "-C", native, `OUT=${directory}/bin`])
})

/** A runtime as an agent uses it; wants {@link buildNative}. By itself crun would give the node's null device away. */
export const runtimeOf = Effect.fnUntraced(function*(name: "crun" | "runc") {
  const { daemon, directory } = yield* PrivateContainerd
  const { path } = yield* RuntimeStreams.guard({ name, path: `${daemon.runtimeDirectory}/${name}`, version: "" }, {
    directory: `${directory}/runtimes`,
    binary: `${directory}/bin/fsb-runtime`
  })
  return ShimRuntime.make({ binary: path })
})

/** Ends whatever is left of a container, in the order that leaves nothing; safe to repeat. */
export const remove = Effect.fnUntraced(function*(id: string) {
  const tasks = yield* Tasks
  yield* ignoreNotFound(tasks.kill({ containerId: id }, SIGKILL))
  yield* ignoreNotFound(tasks.wait({ containerId: id }))
  yield* ignoreNotFound(tasks.delete({ containerId: id }))
  yield* ignoreNotFound((yield* Snapshots).remove(id))
  yield* ignoreNotFound((yield* Containers).delete(id))
})

/** A started container and its output files, for the life of the scope. */
export const start = Effect.fnUntraced(function*(program: Program) {
  const fileSystem = yield* FileSystem.FileSystem
  const { cgroupsPath, directory } = yield* PrivateContainerd
  const tasks = yield* Tasks
  const snapshots = yield* Snapshots
  const id = yield* Effect.sync(() => `c${randomUUID().slice(0, 8)}`)
  const image = yield* (yield* Images).resolve(program.image ?? busyboxName)
  const stdout = `${directory}/${id}.out`
  const stderr = `${directory}/${id}.err`
  yield* Effect.addFinalizer(() => Effect.orDie(remove(id)))
  yield* Effect.acquireRelease(
    Effect.all([fileSystem.writeFileString(stdout, ""), fileSystem.writeFileString(stderr, "")]),
    () => Effect.orDie(Effect.all([fileSystem.remove(stdout), fileSystem.remove(stderr)]))
  )
  const user = yield* (yield* ImageUsers).resolve(image, program.userName ?? "")
  const spec = yield* Effect.fromResult(OciSpec.make({
    ...program,
    user,
    image: image.config,
    hostname: "sandbox",
    cgroupsPath: `${cgroupsPath}/${id}`,
    users: program.userNamespaces?.range,
    seccomp: seccompProfile,
    annotations: program.runtime.annotations
  }))
  yield* (yield* Containers).create({ id, image: image.name, runtime: program.runtime, spec })
  const mounts = yield* snapshots.prepare(id, image.chainId)
  const pid = yield* tasks.create({
    containerId: id,
    rootfs: volatile(program.userNamespaces === undefined ? mounts : yield* program.userNamespaces.rootfs(mounts)),
    runtime: program.runtime,
    stdio: { stdout, stderr }
  })
  yield* tasks.start({ containerId: id })
  const output = Effect.orDie(fileSystem.readFileString(stdout))
  const errors = Effect.orDie(fileSystem.readFileString(stderr))
  return { id, pid, output, errors, image }
})

/** Runs a program to its end. */
export const run = Effect.fnUntraced(function*(program: Program) {
  const sandbox = yield* start(program)
  const tasks = yield* Tasks
  yield* tasks.wait({ containerId: sandbox.id })
  // Only now all of the output is in the files.
  const { exitCode } = yield* tasks.delete({ containerId: sandbox.id })
  return { exitCode, output: yield* sandbox.output, errors: yield* sandbox.errors }
}, Effect.scoped)

/** Waits until a value is as it should be, for at most ten seconds. */
export const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  effect.pipe(
    Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: holds }),
    Effect.timeout("10 seconds")
  )
