/**
 * What a cgroup uses and may use, read from the kernel's files on the unified hierarchy, the old one, and the two side
 * by side. Like `Cgroups`, everything is read synchronously: the files are the kernel's memory.
 */
import * as Effect from "effect/Effect"
import { existsSync, readFileSync } from "node:fs"

/** What is used since the cgroup was made, or now. A limit of 0 is none; absent is what the kernel does not count. */
export interface CgroupUsage {
  readonly cpuNanos: number
  /** Thousandths of a core. */
  readonly cpuLimitMillis: number
  /** Without file content that was not used lately, which the kernel takes back at once. */
  readonly memoryBytes: number
  readonly memoryLimitBytes: number
  readonly pids: number
  readonly pidsLimit: number
  readonly readBytes: number | undefined
  readonly writtenBytes: number | undefined
}

const root = "/sys/fs/cgroup"

const nanosPerMicro = 1000
const millisPerCore = 1000

/** A limit of the old hierarchy beyond this many bytes means that there is none. */
const noLimitBytes = 2 ** 60

// A cgroup may vanish at any moment; what it used is then nothing.
const text = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

const count = (path: string): number => {
  const value = Number.parseInt(text(path), 10)
  return Number.isFinite(value) && value < noLimitBytes ? value : 0
}

/** The number behind a word at the beginning of a line. */
const field = (content: string, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, "m").exec(content)?.[1] ?? 0)

/** Bytes over all devices; undefined where no line tells any. */
const sum = (content: string, pattern: RegExp): number | undefined => {
  const found = [...content.matchAll(pattern)]
  return found.length === 0 ? undefined : found.reduce((total, [, bytes]) => total + Number(bytes), 0)
}

const portion = (quota: number, period: number): number =>
  quota > 0 && period > 0 ? Math.round(quota / period * millisPerCore) : 0

const unified = (directory: string): CgroupUsage => {
  const [quota = "", period = ""] = text(`${directory}/cpu.max`).trim().split(" ")
  const io = text(`${directory}/io.stat`)
  return {
    cpuNanos: field(text(`${directory}/cpu.stat`), "usage_usec") * nanosPerMicro,
    cpuLimitMillis: portion(Number(quota) || 0, Number(period)),
    memoryBytes: Math.max(
      0,
      count(`${directory}/memory.current`) - field(text(`${directory}/memory.stat`), "inactive_file")
    ),
    memoryLimitBytes: count(`${directory}/memory.max`),
    pids: count(`${directory}/pids.current`),
    pidsLimit: count(`${directory}/pids.max`),
    readBytes: sum(io, /\brbytes=(\d+)/g),
    writtenBytes: sum(io, /\bwbytes=(\d+)/g)
  }
}

const old = (path: string): CgroupUsage => {
  const at = (controller: string) => `${root}/${controller}${path}`
  const io = text(`${at("blkio")}/blkio.throttle.io_service_bytes_recursive`)
  return {
    cpuNanos: count(`${at("cpuacct")}/cpuacct.usage`),
    cpuLimitMillis: portion(count(`${at("cpu")}/cpu.cfs_quota_us`), count(`${at("cpu")}/cpu.cfs_period_us`)),
    memoryBytes: Math.max(
      0,
      count(`${at("memory")}/memory.usage_in_bytes`) -
        field(text(`${at("memory")}/memory.stat`), "total_inactive_file")
    ),
    memoryLimitBytes: count(`${at("memory")}/memory.limit_in_bytes`),
    pids: count(`${at("pids")}/pids.current`),
    pidsLimit: count(`${at("pids")}/pids.max`),
    readBytes: sum(io, /^\d+:\d+ Read (\d+)$/gm),
    writtenBytes: sum(io, /^\d+:\d+ Write (\d+)$/gm)
  }
}

/** What the cgroup at `path` (`/fast-sandbox/ID`) uses; all 0 when it is gone. */
export const read = (path: string): Effect.Effect<CgroupUsage> =>
  Effect.sync(() => existsSync(`${root}/cgroup.controllers`) ? unified(`${root}${path}`) : old(path))
