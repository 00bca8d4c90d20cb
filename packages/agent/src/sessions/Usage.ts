/**
 * What running sandboxes use, and the processes in them: read from the kernel's files about their cgroups and processes.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import * as CgroupUsage from "@fast-sandbox/containerd/CgroupUsage"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type {
  ProcessesRequest,
  ProcessSchema,
  StatsRequest,
  StatsResponseSchema
} from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import { AgentConfig } from "../AgentConfig.ts"
import { type Target, Targets, whileRunning } from "./Target.ts"

/** What is used at a moment. */
export type Stats = MessageInitShape<typeof StatsResponseSchema>

/** A process of a sandbox. */
export type Process = MessageInitShape<typeof ProcessSchema>

/** Reading more often would cost more than it tells. */
const minIntervalMillis = 100

/** Of /proc's times, on every architecture that we run on. */
const ticksPerSecond = 100
const nanosPerTick = 1_000_000_000 / ticksPerSecond
const millisPerTick = 1000 / ticksPerSecond

const bytesPerKibibyte = 1024

/**
 * - `stats` gives what is used now and after every interval, until the sandbox ends.
 * - `processes` are those that the sandbox's limits count.
 */
export class Usage extends Context.Service<Usage, {
  readonly stats: (request: StatsRequest) => Stream.Stream<Stats, BoundaryError>
  readonly processes: (request: ProcessesRequest) => Effect.Effect<ReadonlyArray<Process>, BoundaryError>
}>()("@fast-sandbox/agent/sessions/Usage") {
  static readonly layer: Layer.Layer<Usage, never, AgentConfig | Targets> = Layer.effect(
    Usage,
    Effect.gen(function*() {
      const { cgroupParent } = yield* AgentConfig
      const targets = yield* Targets
      const cgroupOf = ({ containerId }: Target): string => `${cgroupParent}/${containerId}`

      const look = Effect.fnUntraced(function*(target: Target) {
        const used = yield* CgroupUsage.read(cgroupOf(target))
        return toStats(used, yield* Clock.currentTimeMillis)
      })

      const stats = Effect.fn("Usage.stats")(function*({ intervalMillis, sandbox }: StatsRequest) {
        const target = yield* targets.find(sandbox)
        return intervalMillis === 0
          ? Stream.fromEffect(look(target))
          : Stream.tick(Math.max(minIntervalMillis, intervalMillis)).pipe(
            Stream.mapEffect(() => look(target)),
            whileRunning(target)
          )
      })

      return Usage.of({
        stats: (request) => Stream.unwrap(stats(request)),
        processes: Effect.fn("Usage.processes")(function*({ sandbox }) {
          const target = yield* targets.find(sandbox)
          const pids = yield* Cgroups.processes(cgroupOf(target))
          const now = yield* Clock.currentTimeMillis
          return pids.flatMap((pid) => {
            const process = read(pid, now)
            return process === undefined ? [] : [process]
          })
        })
      })
    })
  )
}

const whole = (value: number): bigint => BigInt(Math.round(value))

const toStats = (used: CgroupUsage.CgroupUsage, nowMillis: number): Stats => ({
  time: timestampFromMs(nowMillis),
  cpuNanos: whole(used.cpuNanos),
  cpuLimitMillis: whole(used.cpuLimitMillis),
  memoryBytes: whole(used.memoryBytes),
  memoryLimitBytes: whole(used.memoryLimitBytes),
  pids: whole(used.pids),
  pidsLimit: whole(used.pidsLimit),
  ...(used.readBytes === undefined ? {} : { readBytes: whole(used.readBytes) }),
  ...(used.writtenBytes === undefined ? {} : { writtenBytes: whole(used.writtenBytes) })
})

/** The last number of a line of /proc/PID/status: of the innermost namespace. */
const innermost = (status: string, name: string): number =>
  Number(new RegExp(`^${name}:.*?(\\d+)$`, "m").exec(status)?.[1] ?? 0)

const first = (status: string, name: string): number =>
  Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(status)?.[1] ?? 0)

/** A user of the node as the sandbox's user namespace has it; what has no place there is nobody, as the kernel says it. */
const insideUser = (user: number, map: string): number => {
  for (const line of map.trim().split("\n")) {
    const [inside = 0, outside = 0, size = 0] = line.trim().split(/\s+/).map(Number)
    if (user >= outside && user < outside + size) return inside + user - outside
  }
  return nobody
}

const nobody = 65_534

/** A process that ends while it is read is none. */
const read = (pid: number, nowMillis: number): Process | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const status = readFileSync(`/proc/${pid}/status`, "utf8")
    const uptimeMillis = Number.parseFloat(readFileSync("/proc/uptime", "utf8")) * 1000
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").slice(0, -1)
    // the name in parentheses may hold anything, also parentheses and spaces
    const [state = "?", parent = "0", ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    const [user, system, started] = [fields[9], fields[10], fields[17]].map(Number)
    const parentPid = Number(parent)
    return {
      pid: innermost(status, "NSpid"),
      parentPid: parentPid === 0 ? 0 : insideParent(parentPid, status),
      userId: insideUser(first(status, "Uid"), readFileSync(`/proc/${pid}/uid_map`, "utf8")),
      state,
      cpuNanos: whole(((user ?? 0) + (system ?? 0)) * nanosPerTick),
      memoryBytes: BigInt(first(status, "VmRSS") * bytesPerKibibyte),
      startedAt: timestampFromMs(nowMillis - uptimeMillis + (started ?? 0) * millisPerTick),
      command: words.length > 0 ? words : [`[${stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"))}]`]
    }
  } catch {
    return undefined
  }
}

const depth = (status: string): number => (/^NSpid:(.*)$/m.exec(status)?.[1] ?? "").trim().split(/\s+/).length

/** The parent's id inside; 0 where the parent is none of the sandbox's own. */
const insideParent = (parentPid: number, childStatus: string): number => {
  const status = readFileSync(`/proc/${parentPid}/status`, "utf8")
  return depth(status) === depth(childStatus) ? innermost(status, "NSpid") : 0
}
