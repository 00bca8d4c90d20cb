/**
 * Takes a container away with everything that containerd keeps for it, in the one order that leaves nothing behind
 * wherever it is cut short: task, snapshot, whatever else is named after it (log, cgroup: the caller's), record. The
 * record goes last, because a task without one can neither be found by its labels nor be killed. Every step may be
 * repeated; what is gone counts as done.
 */
import { containerLabels } from "@fast-sandbox/core/Names"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { type ContainerdError, ignoreAlreadyExists, ignoreNotFound, isNotFound } from "./ContainerdError.ts"
import { type Container, Containers } from "./Containers.ts"
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

/** containerd may carry out a call half-way when it is cancelled; an interruption lands between two of them. */
const whole = Effect.uninterruptible

/** Killed programs end in milliseconds, unless the kernel waits for a device. */
const endsWithin = "10 seconds"

/** Whom a signal does not reach has ended: runtimes say NOT_FOUND or FAILED_PRECONDITION. */
export const unheard = <A>(self: Effect.Effect<A, ContainerdError>): Effect.Effect<void, ContainerdError> =>
  self.pipe(
    Effect.catchIf((error) => error.isNotFound || error.isFailedPrecondition, () => Effect.void),
    Effect.asVoid
  )

const statusOf = Effect.fnUntraced(function*(containerId: string) {
  return yield* (yield* Tasks).get({ containerId }).pipe(
    Effect.map(({ status }) => status),
    Effect.catchIf(isNotFound, () => Effect.succeed(undefined))
  )
})

/** Kills every process of a container; succeeds also when there is none left. */
export const kill = Effect.fn("ContainerRemoval.kill")(function*(
  containerId: string
): Effect.fn.Return<void, ContainerdError, Tasks> {
  const tasks = yield* Tasks
  yield* whole(
    unheard(tasks.killAll(containerId, signalKill)).pipe(
      // An OCI runtime without --all; the end of the first process is the end of its pid namespace anyway.
      Effect.catchIf((error) => !error.isUnavailable, () => unheard(tasks.kill({ containerId }, signalKill)))
    )
  )
})

const deleteTask = (containerId: string) =>
  Effect.flatMap(Tasks, (tasks) => whole(tasks.delete({ containerId }).pipe(ignoreNotFound, Effect.asVoid)))

const killTask = Effect.fnUntraced(function*(containerId: string) {
  const tasks = yield* Tasks
  const status = yield* statusOf(containerId)
  if (status === "paused" || status === "pausing") {
    // A frozen process does not hear SIGKILL on cgroup v1.
    yield* whole(unheard(tasks.resume(containerId)))
  }
  if (status !== undefined && status !== "stopped") {
    yield* kill(containerId)
    yield* tasks.wait({ containerId }).pipe(
      ignoreNotFound,
      Effect.timeoutOrElse({ duration: endsWithin, orElse: () => Effect.fail(new StillRunning({ containerId })) })
    )
  }
})

// Deleted first, because the program has mostly ended, and one that has not makes containerd refuse. Also a task that is
// not there: where a delete was cut off, its shim still runs, and only another delete ends it.
const endTask = (containerId: string) =>
  deleteTask(containerId).pipe(
    Effect.catchIf(
      (error) => !error.isUnavailable,
      () => Effect.andThen(killTask(containerId), deleteTask(containerId))
    )
  )

/** What of a container's record says where its snapshot is; empty where it has none. */
export type Place = Pick<Container, "id" | "snapshotter" | "snapshotKey">

/** {@link reclaim} for who knows what the record says. */
export const reclaimAt = Effect.fn("ContainerRemoval.reclaimAt")(function*(
  { id, snapshotKey, snapshotter }: Place
): Effect.fn.Return<void, ContainerdError | StillRunning, Tasks | Snapshots> {
  yield* endTask(id)
  if (snapshotKey !== "" && snapshotter !== "") {
    const snapshots = yield* Snapshots
    yield* whole(snapshots.remove(snapshotKey, { snapshotter }).pipe(ignoreNotFound))
  }
})

/** Removes the task and the snapshot of a container. Nothing happens when it has no record. */
export const reclaim = Effect.fn("ContainerRemoval.reclaim")(function*(
  containerId: string
): Effect.fn.Return<void, ContainerdError | StillRunning, Containers | Tasks | Snapshots> {
  const record = yield* (yield* Containers).get(containerId).pipe(
    Effect.catchIf(isNotFound, () => Effect.succeed(undefined))
  )
  if (record !== undefined) {
    yield* reclaimAt(record)
  }
})

/** Removes the record of a container that was reclaimed, and whose other traces are gone: nothing finds them after it. */
export const forget = Effect.fn("ContainerRemoval.forget")(function*(
  containerId: string
): Effect.fn.Return<void, ContainerdError, Containers> {
  yield* whole((yield* Containers).delete(containerId).pipe(ignoreNotFound))
})

/** Enough for containerd to take the record; nothing is ever started from it. */
export const emptySpec = (cgroupsPath: string): OciSpec.Spec => ({
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
  linux: { namespaces: [], cgroupsPath, resources: {}, maskedPaths: [], readonlyPaths: [] }
})

/**
 * Gives a task, or the shim of one, a record again, so that it can be reclaimed: containerd answers NOT_FOUND to every
 * order about a task that has none. A crash before it is forgotten again leaves the record, which its label tells from
 * all others.
 */
export const adopt = Effect.fn("ContainerRemoval.adopt")(function*(
  containerId: string,
  cgroupsPath: string
): Effect.fn.Return<void, ContainerdError, Containers> {
  const containers = yield* Containers
  yield* whole(
    containers.create({
      id: containerId,
      labels: { [containerLabels.managed]: "true", [repairLabel]: "true" },
      runtime: ShimRuntime.make({ binary: "" }),
      spec: emptySpec(cgroupsPath)
    }).pipe(ignoreAlreadyExists)
  )
})
