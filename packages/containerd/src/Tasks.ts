/**
 * Running containers and the processes in them. A task is made (`create`: namespaces, cgroup and root file system stand,
 * the program waits), started, and must be deleted after it has exited: containerd keeps its exit status until then.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { ContainerdError } from "./ContainerdError.ts"
import type * as OciSpec from "./OciSpec.ts"
import type { ShimRuntime } from "./ShimRuntime.ts"
import type { Mount } from "./Snapshots.ts"

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
  readonly pid: number
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
 * - `delete` of a running process is refused with FAILED_PRECONDITION.
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
}>()("@fast-sandbox/containerd/Tasks") {}
