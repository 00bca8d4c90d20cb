/**
 * Running containers and the processes in them. A task is made (`create`: namespaces, cgroup and root file system stand,
 * the program waits), started, and must be deleted after it has exited: containerd keeps its exit status until then.
 */
import { fromBinary } from "@bufbuild/protobuf"
import { MetricsSchema as Cgroup1 } from "@fast-sandbox/grpc/gen/containerd/cgroup1_metrics_pb"
import { MetricsSchema as Cgroup2 } from "@fast-sandbox/grpc/gen/containerd/cgroup2_metrics_pb"
import { type Process as RawProcess, Status } from "@fast-sandbox/grpc/gen/containerd/task_types_pb"
import type { DeleteResponse } from "@fast-sandbox/grpc/gen/containerd/tasks_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Any, fromJson, processTypeUrl, resourcesTypeUrl } from "./Any.ts"
import { ContainerdClient, named } from "./ContainerdClient.ts"
import type { ContainerdError } from "./ContainerdError.ts"
import { toMillis } from "./internal/time.ts"
import type * as OciSpec from "./OciSpec.ts"
import type { ShimRuntime } from "./ShimRuntime.ts"
import { type Mount, toRawMount } from "./Snapshots.ts"

/**
 * Where a process reads and writes. Each is empty (nowhere), the absolute path of an existing file or FIFO, or a URI that
 * the shim knows (`file://`, `binary://`). With plain files stdout and stderr are kept apart. The runc v2 shim wants
 * stderr whenever stdout is given; with `terminal` all output comes on stdout and stderr must be empty.
 */
export interface Stdio {
  readonly stdin?: string | undefined
  readonly stdout?: string | undefined
  readonly stderr?: string | undefined
  readonly terminal?: boolean | undefined
}

/** A process of a container: its init when `execId` is absent. */
export interface ProcessRef {
  readonly containerId: string
  readonly execId?: string | undefined
}

/** `created`: waits for `start`; `stopped`: exited, its status is known until it is deleted. */
export type ProcessStatus = "unknown" | "created" | "running" | "stopped" | "paused" | "pausing"

/** What containerd knows about a process. `exitCode` and `exitedAtMillis` count only when stopped. */
export interface Process {
  readonly containerId: string
  readonly execId: string
  readonly pid: number
  readonly status: ProcessStatus
  readonly stdio: Required<Stdio>
  readonly exitCode: number
  readonly exitedAtMillis: number
}

/** How a process ended. `exitCode` is 128 + n for a process that signal n ended. */
export interface Exit {
  readonly exitCode: number
  readonly exitedAtMillis: number
}

/** The signal in an exit code, as shells count. A program that returns such a code by itself looks the same. */
export const signalOf = (exitCode: number): number | undefined =>
  exitCode > 128 && exitCode < 128 + 65 ? exitCode - 128 : undefined

/** What a container uses. Absent where the runtime's shim does not tell (gVisor). A limit of 0 is none. */
export interface Usage {
  readonly cpuNanos: number
  readonly memoryBytes: number
  readonly memoryLimitBytes: number
  readonly pids: number
  readonly pidsLimit: number
  readonly oomKills: number
}

/**
 * The tasks of one containerd namespace.
 *
 * - `create` makes the task from the container's record; `rootfs` are the mounts of its snapshot. Returns the pid.
 * - `exec` adds a process to a running container; `start` it with its `execId`, `delete` it when it has ended.
 * - `kill` signals one process, `killAll` every process of the container.
 * - `wait` returns when the process has ended (at once when it has already); the process may be deleted meanwhile.
 * - `delete` of a running process is refused (FAILED_PRECONDITION; UNKNOWN by containerd 1.6). Output is complete only
 *   when it returns: the shim may still be copying after `wait`.
 * - `closeStdin` closes the shim's own end of a FIFO; the process reads its end once every other writer is gone too.
 * - `list` asks every shim: 0.1 ms each; for exits listen to `Events` instead.
 */
export class Tasks extends Context.Service<Tasks, {
  readonly create: (task: {
    readonly containerId: string
    readonly rootfs: ReadonlyArray<Mount>
    readonly runtime: ShimRuntime
    readonly stdio?: Stdio | undefined
  }) => Effect.Effect<number, ContainerdError>
  readonly start: (process: ProcessRef) => Effect.Effect<number, ContainerdError>
  readonly exec: (exec: {
    readonly containerId: string
    readonly execId: string
    readonly process: OciSpec.Process
    readonly stdio?: Stdio | undefined
  }) => Effect.Effect<void, ContainerdError>
  readonly kill: (process: ProcessRef, signal: number) => Effect.Effect<void, ContainerdError>
  readonly killAll: (containerId: string, signal: number) => Effect.Effect<void, ContainerdError>
  readonly wait: (process: ProcessRef) => Effect.Effect<Exit, ContainerdError>
  readonly delete: (process: ProcessRef) => Effect.Effect<Exit, ContainerdError>
  readonly get: (process: ProcessRef) => Effect.Effect<Process, ContainerdError>
  readonly list: Effect.Effect<ReadonlyArray<Process>, ContainerdError>
  readonly pids: (containerId: string) => Effect.Effect<ReadonlyArray<number>, ContainerdError>
  readonly pause: (containerId: string) => Effect.Effect<void, ContainerdError>
  readonly resume: (containerId: string) => Effect.Effect<void, ContainerdError>
  readonly update: (
    containerId: string,
    resources: OciSpec.LinuxResources
  ) => Effect.Effect<void, ContainerdError>
  readonly usage: (containerId: string) => Effect.Effect<Usage | undefined, ContainerdError>
  readonly resizePty: (
    process: ProcessRef,
    size: { readonly columns: number; readonly rows: number }
  ) => Effect.Effect<void, ContainerdError>
  readonly closeStdin: (process: ProcessRef) => Effect.Effect<void, ContainerdError>
}>()("@fast-sandbox/containerd/Tasks") {
  static readonly layer: Layer.Layer<Tasks, never, ContainerdClient> = Layer.effect(
    Tasks,
    Effect.gen(function*() {
      const { options, raw: { tasks } } = yield* ContainerdClient

      return Tasks.of({
        create: Effect.fn("Tasks.create")((task) =>
          tasks.create({
            containerId: task.containerId,
            rootfs: task.rootfs.map(toRawMount),
            ...(task.runtime.options === undefined ? {} : { options: task.runtime.options }),
            ...toStdio(task.stdio)
          }, options.call).pipe(Effect.map(({ pid }) => pid), named("Tasks.create"))
        ),
        start: Effect.fn("Tasks.start")((process) =>
          tasks.start(toRef(process), options.call).pipe(Effect.map(({ pid }) => pid), named("Tasks.start"))
        ),
        exec: Effect.fn("Tasks.exec")((exec) =>
          tasks.exec({
            containerId: exec.containerId,
            execId: exec.execId,
            spec: fromJson(exec.process, processTypeUrl),
            ...toStdio(exec.stdio)
          }, options.call).pipe(Effect.asVoid, named("Tasks.exec"))
        ),
        kill: Effect.fn("Tasks.kill")((process, signal) =>
          tasks.kill({ ...toRef(process), signal, all: false }, options.call).pipe(Effect.asVoid, named("Tasks.kill"))
        ),
        killAll: Effect.fn("Tasks.killAll")((containerId, signal) =>
          tasks.kill({ containerId, signal, all: true }, options.call).pipe(Effect.asVoid, named("Tasks.killAll"))
        ),
        wait: Effect.fn("Tasks.wait")((process) =>
          tasks.wait(toRef(process), options.unbounded).pipe(
            Effect.map(({ exitStatus, exitedAt }) => ({ exitCode: exitStatus, exitedAtMillis: toMillis(exitedAt) })),
            named("Tasks.wait")
          )
        ),
        delete: Effect.fn("Tasks.delete")(({ containerId, execId }) =>
          (execId === undefined
            ? tasks.delete({ containerId }, options.call)
            : tasks.deleteProcess({ containerId, execId }, options.call)).pipe(
              Effect.map(fromDeleted),
              named("Tasks.delete")
            )
        ),
        get: Effect.fn("Tasks.get")((process) =>
          tasks.get(toRef(process), options.call).pipe(
            Effect.map((answer) => fromRaw(process.containerId, answer.process)),
            named("Tasks.get")
          )
        ),
        list: tasks.list({}, options.call).pipe(
          Effect.map((answer) => answer.tasks.map((task) => fromRaw(task.id, task))),
          named("Tasks.list"),
          Effect.withSpan("Tasks.list")
        ),
        pids: Effect.fn("Tasks.pids")((containerId) =>
          tasks.listPids({ containerId }, options.call).pipe(
            Effect.map(({ processes }) => processes.map(({ pid }) => pid)),
            named("Tasks.pids")
          )
        ),
        pause: Effect.fn("Tasks.pause")((containerId) =>
          tasks.pause({ containerId }, options.call).pipe(Effect.asVoid, named("Tasks.pause"))
        ),
        resume: Effect.fn("Tasks.resume")((containerId) =>
          tasks.resume({ containerId }, options.call).pipe(Effect.asVoid, named("Tasks.resume"))
        ),
        update: Effect.fn("Tasks.update")((containerId, resources) =>
          tasks.update({ containerId, resources: fromJson(resources, resourcesTypeUrl) }, options.call).pipe(
            Effect.asVoid,
            named("Tasks.update")
          )
        ),
        usage: Effect.fn("Tasks.usage")((containerId) =>
          tasks.metrics({ filters: [`id==${containerId}`] }, options.call).pipe(
            Effect.map(({ metrics }) => toUsage(metrics.find(({ id }) => id === containerId)?.data)),
            named("Tasks.usage")
          )
        ),
        resizePty: Effect.fn("Tasks.resizePty")((process, { columns, rows }) =>
          tasks.resizePty({ ...toRef(process), width: columns, height: rows }, options.call).pipe(
            Effect.asVoid,
            named("Tasks.resizePty")
          )
        ),
        closeStdin: Effect.fn("Tasks.closeStdin")((process) =>
          tasks.closeIO({ ...toRef(process), stdin: true }, options.call).pipe(
            Effect.asVoid,
            named("Tasks.closeStdin")
          )
        )
      })
    })
  )
}

const toStdio = (stdio: Stdio | undefined) => ({
  stdin: stdio?.stdin ?? "",
  stdout: stdio?.stdout ?? "",
  stderr: stdio?.stderr ?? "",
  terminal: stdio?.terminal ?? false
})

const toRef = ({ containerId, execId }: ProcessRef) => ({ containerId, execId: execId ?? "" })

const statuses: ReadonlyMap<number, ProcessStatus> = new Map([
  [Status.CREATED, "created"],
  [Status.RUNNING, "running"],
  [Status.STOPPED, "stopped"],
  [Status.PAUSED, "paused"],
  [Status.PAUSING, "pausing"]
])

// containerd 1.6 leaves the answer's container_id empty and puts the container's id into `id` for an init.
const fromRaw = (containerId: string, raw: RawProcess | undefined): Process => ({
  containerId,
  execId: raw === undefined || raw.id === containerId ? "" : raw.id,
  pid: raw?.pid ?? 0,
  status: statuses.get(raw?.status ?? Status.UNKNOWN) ?? "unknown",
  stdio: toStdio(raw),
  exitCode: raw?.exitStatus ?? 0,
  exitedAtMillis: toMillis(raw?.exitedAt)
})

const fromDeleted = ({ exitStatus, exitedAt }: DeleteResponse): Exit => ({
  exitCode: exitStatus,
  exitedAtMillis: toMillis(exitedAt)
})

const nanosPerMicro = 1000

// cgroup v1 says "no limit" with the largest multiple of a page that fits 63 bits, v2 with all ones.
const unlimited = 2 ** 62
const limit = (value: bigint | undefined): number => {
  const number = Number(value ?? 0n)
  return number >= unlimited ? 0 : number
}

// As Kubernetes counts: without the page cache that the kernel would drop first.
const workingSet = (usage: bigint | undefined, inactiveFile: bigint | undefined): number =>
  Math.max(0, Number((usage ?? 0n) - (inactiveFile ?? 0n)))

const toUsage = (data: Any | undefined): Usage | undefined => {
  if (data?.typeUrl.endsWith("io.containerd.cgroups.v1.Metrics") === true) {
    const { cpu, memory, memoryOomControl, pids } = fromBinary(Cgroup1, data.value)
    return {
      cpuNanos: Number(cpu?.usage?.total ?? 0n),
      memoryBytes: workingSet(memory?.usage?.usage, memory?.totalInactiveFile),
      memoryLimitBytes: limit(memory?.usage?.limit),
      pids: Number(pids?.current ?? 0n),
      pidsLimit: limit(pids?.limit),
      oomKills: Number(memoryOomControl?.oomKill ?? 0n)
    }
  }
  if (data?.typeUrl.endsWith("io.containerd.cgroups.v2.Metrics") === true) {
    const { cpu, memory, memoryEvents, pids } = fromBinary(Cgroup2, data.value)
    return {
      cpuNanos: Number(cpu?.usageUsec ?? 0n) * nanosPerMicro,
      memoryBytes: workingSet(memory?.usage, memory?.inactiveFile),
      memoryLimitBytes: limit(memory?.usageLimit),
      pids: Number(pids?.current ?? 0n),
      pidsLimit: limit(pids?.limit),
      oomKills: Number(memoryEvents?.oomKill ?? 0n)
    }
  }
  return undefined
}
