/**
 * Takes a container away with everything that containerd keeps for it, in the one order that leaves nothing behind
 * whenever it is cut short: task, snapshot, record. The record goes last, because a task without one can neither be
 * seen by labels nor be killed. Every step may be repeated; what is gone counts as done.
 */
import { containerLabels } from "@fast-sandbox/core/Names"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type ContainerdError, ignoreAlreadyExists, ignoreNotFound, isNotFound } from "./ContainerdError.ts"
import { Containers } from "./Containers.ts"
import type * as OciSpec from "./OciSpec.ts"
import { repairLabel } from "./OwnedContainer.ts"
import * as ShimRuntime from "./ShimRuntime.ts"
import { Snapshots } from "./Snapshots.ts"
import { Tasks } from "./Tasks.ts"

/** The program was killed and has not ended: it hangs in the kernel. Try again later. */
export class StillRunning extends Schema.TaggedError<StillRunning>()("StillRunning", {
  containerId: Schema.String
}) {
  override get message(): string {
    return `the program of container ${this.containerId} was killed and has not ended; try again later`
  }
}

const signalKill = 9

/** Killed programs end in milliseconds, unless the kernel waits for a device. */
const endsWithin = "10 seconds"

/** Whom a signal does not reach has ended: runtimes say NOT_FOUND or FAILED_PRECONDITION. */
const unheard = <A>(self: Effect.Effect<A, ContainerdError>): Effect.Effect<void, ContainerdError> =>
  self.pipe(
    Effect.catchIf((error) => error.isNotFound || error.isFailedPrecondition, () => Effect.void),
    Effect.asVoid
  )

const endTask = Effect.fnUntraced(function*(containerId: string) {
  const tasks = yield* Tasks
  const { status } = yield* tasks.get({ containerId })
  if (status === "paused" || status === "pausing") {
    // A frozen process does not hear SIGKILL on cgroup v1.
    yield* unheard(tasks.resume(containerId))
  }
  if (status !== "stopped") {
    yield* unheard(tasks.killAll(containerId, signalKill)).pipe(
      // An OCI runtime without --all; the end of the first process is the end of its pid namespace anyway.
      Effect.catchIf((error) => !error.isUnavailable, () => unheard(tasks.kill({ containerId }, signalKill)))
    )
    yield* tasks.wait({ containerId }).pipe(
      Effect.timeoutOrElse({ duration: endsWithin, orElse: () => Effect.fail(new StillRunning({ containerId })) })
    )
  }
  yield* tasks.delete({ containerId })
}, (self) => Effect.catchIf(self, isNotFound, () => Effect.void))

/** Removes a container that has a record, its task and its snapshot. Nothing happens when there is no record. */
export const remove = Effect.fn("ContainerRemoval.remove")(function*(
  containerId: string
): Effect.fn.Return<void, ContainerdError | StillRunning, Containers | Tasks | Snapshots> {
  const containers = yield* Containers
  const record = yield* containers.get(containerId).pipe(
    Effect.catchIf(isNotFound, () => Effect.succeed(undefined))
  )
  if (record !== undefined) {
    yield* endTask(containerId)
    if (record.snapshotKey !== "" && record.snapshotter !== "") {
      yield* (yield* Snapshots).remove(record.snapshotKey, { snapshotter: record.snapshotter }).pipe(ignoreNotFound)
    }
    yield* containers.delete(containerId).pipe(ignoreNotFound)
  }
})

/** Enough for containerd to take the record; nothing is ever started from it. */
const emptySpec: OciSpec.Spec = {
  ociVersion: "1.0.2",
  process: {
    terminal: false,
    user: { uid: 0, gid: 0 },
    args: ["/"],
    env: [],
    cwd: "/",
    capabilities: { bounding: [], effective: [], permitted: [] },
    rlimits: [],
    noNewPrivileges: true
  },
  root: { path: "rootfs", readonly: true },
  hostname: "",
  mounts: [],
  annotations: {},
  linux: { namespaces: [], cgroupsPath: "", resources: {}, maskedPaths: [], readonlyPaths: [] }
}

/**
 * Ends a task whose record is gone. containerd answers NOT_FOUND to every order about it, so it is given a record again
 * for as long as that takes. A crash in the middle leaves that record, which its label tells from all others.
 */
export const removeTaskWithoutRecord = Effect.fn("ContainerRemoval.removeTaskWithoutRecord")(function*(
  containerId: string
): Effect.fn.Return<void, ContainerdError | StillRunning, Containers | Tasks | Snapshots> {
  yield* (yield* Containers).create({
    id: containerId,
    labels: { [containerLabels.managed]: "true", [repairLabel]: "true" },
    runtime: ShimRuntime.make({ binary: "" }),
    spec: emptySpec
  }).pipe(ignoreAlreadyExists)
  yield* remove(containerId)
})
