/**
 * The life of an instance on its agent, and how its end is told.
 */
import { signalOf } from "@fast-sandbox/containerd/Tasks"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"

const { CREATING, EXITED, RUNNING, STOPPING, UNSPECIFIED } = InstanceState

/**
 * From each state to those that may follow it. An instance may also be forgotten: from CREATING when its start failed,
 * from STOPPING and EXITED when it was deleted.
 */
const transitions: ReadonlyMap<InstanceState, ReadonlySet<InstanceState>> = new Map([
  [UNSPECIFIED, new Set<InstanceState>()],
  [CREATING, new Set<InstanceState>([RUNNING, STOPPING])],
  [RUNNING, new Set<InstanceState>([STOPPING, EXITED])],
  [STOPPING, new Set<InstanceState>([EXITED])],
  [EXITED, new Set<InstanceState>()]
])

/** Whether an instance may go from one state to the other; staying is always legal. */
export const isLegal = (from: InstanceState, to: InstanceState): boolean =>
  from === to || transitions.get(from)?.has(to) === true

/** What is known about an end. `exitCode` is absent when nobody saw it (the node went down). */
export interface Ending {
  readonly exitCode: number | undefined
  readonly wasStopped: boolean
  readonly oomKills: number
  /** It was killed because it had written more than it may. */
  readonly isOverDisk: boolean
}

/** How an end is told. */
export interface Outcome {
  readonly reason: "Completed" | "DiskExceeded" | "Error" | "OOMKilled" | "Stopped"
  readonly message: string
  readonly exitCode: number | undefined
  /** 0: none. */
  readonly signal: number
}

/**
 * The reason of an end. Running out of memory counts only when the program did not survive it; it goes before a stop,
 * because it is what the user must hear about.
 */
export const outcome = ({ exitCode, isOverDisk, oomKills, wasStopped }: Ending): Outcome => {
  if (exitCode === undefined) {
    return {
      reason: wasStopped ? "Stopped" : "Error",
      message: "its end was not seen: the node or its containerd went down while it ran",
      exitCode,
      signal: 0
    }
  }
  const signal = signalOf(exitCode) ?? 0
  if (oomKills > 0 && exitCode !== 0) {
    return { reason: "OOMKilled", message: "it used more memory than its limit allows", exitCode, signal }
  }
  if (isOverDisk) {
    return { reason: "DiskExceeded", message: "it wrote more to its root file system than it may", exitCode, signal }
  }
  if (wasStopped) {
    return { reason: "Stopped", message: "", exitCode, signal }
  }
  return { reason: exitCode === 0 ? "Completed" : "Error", message: "", exitCode, signal }
}
