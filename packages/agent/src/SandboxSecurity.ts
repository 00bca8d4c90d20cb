/**
 * What a sandbox's own wishes and its agent's defaults make of a sandbox: its limits, its user, what it may write to.
 */
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import { defaultResources } from "@fast-sandbox/containerd/OciSpec"
import { FailedPrecondition } from "@fast-sandbox/core/Errors"
import type { InstanceSpec } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Result from "effect/Result"
import { readFileSync } from "node:fs"
import type { DefaultLimits } from "./AgentConfig.ts"

const milliPerCore = 1000

/** A limit of the request, else the agent's; 0 in a request is none of its own. */
const limit = (wanted: bigint | undefined, otherwise?: number): number | undefined =>
  wanted === undefined || wanted === 0n ? otherwise : Number(wanted)

/** No sandbox is swapped out: it would slow the node's disk for all, and its memory limit would be none. */
const swapBytes = 0

/** What the agent's place on its node leaves to one sandbox. */
export interface Ceiling {
  /** Whether the kernel can limit swap. */
  readonly limitsSwap: boolean
  /** What the agent's Pod may use. */
  readonly cores: number
}

/** The limits of a cgroup and of memory file systems. */
export const resourcesOf = (
  limits: DefaultLimits,
  spec: InstanceSpec | undefined,
  { cores, limitsSwap }: Ceiling
): OciSpec.Resources => {
  const cpuMillis = limit(spec?.cpuMillis, limits.cpuMillis)
  return {
    cpu: Math.min(cpuMillis === undefined ? defaultResources.cpu : cpuMillis / milliPerCore, cores),
    memoryBytes: limit(spec?.memoryBytes, limits.memoryBytes),
    pids: limit(spec?.pids, limits.pids),
    shmBytes: limit(spec?.shmBytes),
    swapBytes: limitsSwap ? swapBytes : undefined
  }
}

/** What a sandbox may write to its root file system: enough for an installation, too little to fill a node. */
const defaultDiskBytes = 10 * 1024 ** 3

/** The most that a sandbox may write to its root file system. */
export const diskBytesOf = (limits: DefaultLimits, spec: InstanceSpec | undefined): number =>
  limit(spec?.diskBytes, limits.diskBytes) ?? defaultDiskBytes

/** The user of a program: the wanted one, else the image's. FAILED_PRECONDITION `RunsAsRoot` where that may not be root. */
export const userOf = (
  spec: InstanceSpec | undefined,
  image: OciSpec.User
): Result.Result<OciSpec.User, FailedPrecondition> => {
  const uid = spec?.runAsUser ?? image.uid
  // Another user is in no group of the image's user.
  const user = uid === image.uid
    ? { ...image, gid: spec?.runAsGroup ?? image.gid }
    : { uid, gid: spec?.runAsGroup ?? uid }
  return spec?.runAsNonRoot === true && user.uid === 0
    ? Result.fail(
      new FailedPrecondition({
        reason: "RunsAsRoot",
        problem: "the image runs as root and runAsNonRoot forbids it: set spec.securityContext.runAsUser"
      })
    )
    : Result.succeed(user)
}

/**
 * The hard limit of open files of this process. containerd's is the same where it gave it to us, as it does to Pods, or
 * where both come from one starter.
 */
export const ownOpenFiles = (): number | undefined => {
  const limits = readFileSync("/proc/self/limits", "utf8")
  const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1]
  return hard === undefined ? undefined : Number(hard)
}
