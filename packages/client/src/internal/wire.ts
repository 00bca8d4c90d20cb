/**
 * The words of this library as messages of the Fast-Path protocol, and back.
 */
import * as Names from "@fast-sandbox/core/Names"
import { type ConsistencyMode, type FailurePolicy, Phase, Startup } from "@fast-sandbox/core/Sandbox"
import * as Wire from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type {
  Created,
  CreateOptions,
  ImageInfo,
  ImageProgress,
  LogsOptions,
  UpdateOptions,
  WatchEvent
} from "../Calls.ts"
import type { LogLine } from "../LogLine.ts"
import type { SandboxInfo } from "../SandboxInfo.ts"
import * as Time from "./time.ts"

/** In a request's namespace: all of them. */
export const ALL_NAMESPACES = "*"

const MILLIS_PER_SECOND = 1000

const consistencyModes: Readonly<Record<ConsistencyMode, Wire.ConsistencyMode>> = {
  fast: Wire.ConsistencyMode.FAST,
  strong: Wire.ConsistencyMode.STRONG
}

const failurePolicies: Readonly<Record<FailurePolicy, Wire.FailurePolicy>> = {
  Manual: Wire.FailurePolicy.MANUAL,
  AutoRecreate: Wire.FailurePolicy.AUTO_RECREATE
}

/** Unix seconds, rounded up so that nothing expires before its time. */
const epochSeconds = (time: DateTime.DateTime.Input): bigint =>
  BigInt(Math.ceil(DateTime.toEpochMillis(DateTime.makeUnsafe(time)) / MILLIS_PER_SECOND))

const isPhase = Schema.is(Phase)
const decodeStartup = Schema.decodeUnknownOption(Startup)

const startupInfo = (startup: Wire.Startup | undefined): Startup | undefined =>
  startup === undefined
    ? undefined
    : Option.getOrUndefined(decodeStartup({
      tier: startup.tier,
      steps: startup.steps.map(({ millis, name }) => ({ name, millis }))
    }))

/** A sandbox, from the wire. */
export const sandboxInfo = (info: Wire.SandboxInfo): SandboxInfo => ({
  name: info.sandboxName,
  namespace: info.namespace,
  instanceId: info.sandboxId,
  phase: isPhase(info.phase) ? info.phase : "Unknown",
  image: info.image,
  pool: info.poolRef,
  agentPod: info.agentPod,
  nodeName: info.nodeName,
  endpoints: info.endpoints,
  labels: info.labels,
  createdAt: DateTime.makeUnsafe(Number(info.createdAt) * MILLIS_PER_SECOND),
  startedAt: info.startedAt === undefined ? undefined : Time.toDateTime(info.startedAt),
  finishedAt: info.finishedAt === undefined ? undefined : Time.toDateTime(info.finishedAt),
  exitCode: info.exitCode,
  signal: info.signal === 0 ? undefined : info.signal,
  reason: info.reason,
  message: info.message,
  restarts: info.restarts,
  startup: startupInfo(info.startup),
  resource: new TextDecoder().decode(info.resource)
})

const epoch: Time.TimestampInit = { seconds: 0n, nanos: 0 }

/** A line, from the wire. */
export const logLine = (line: Wire.LogLine): LogLine => ({
  time: Time.toText(line.time ?? epoch),
  stream: line.stream === Wire.LogStream.STDERR ? "stderr" : "stdout",
  bytes: line.text,
  partial: line.partial
})

/** A create, to the wire. */
export const createRequest = (options: CreateOptions, namespace: string, requestId: string) => ({
  image: options.image,
  poolRef: options.pool ?? Names.defaultPool,
  name: options.name ?? "",
  namespace,
  command: [...options.command ?? []],
  args: [...options.args ?? []],
  envs: { ...options.envs },
  workingDir: options.workingDir ?? "",
  tty: options.tty ?? false,
  stdin: options.stdin ?? false,
  exposedPorts: [...options.exposedPorts ?? []],
  consistencyMode: consistencyModes[options.consistencyMode ?? "fast"],
  failurePolicy: failurePolicies[options.failurePolicy ?? "Manual"],
  recoveryTimeoutSeconds: options.recoveryTimeoutSeconds ?? 0,
  expireTimeSeconds: options.expireTime === undefined ? 0n : epochSeconds(options.expireTime),
  ttlSeconds: BigInt(options.ttlSeconds ?? 0),
  terminationGracePeriodSeconds: options.terminationGracePeriodSeconds === undefined
    ? undefined
    : BigInt(options.terminationGracePeriodSeconds),
  resources: options.resources === undefined ? undefined : {
    cpu: options.resources.cpu ?? "",
    memory: options.resources.memory ?? "",
    pids: BigInt(options.resources.pids ?? 0),
    shm: options.resources.shm ?? "",
    ephemeralStorage: options.resources.ephemeralStorage ?? ""
  },
  labels: { ...options.labels },
  securityContext: options.securityContext,
  requestId
})

/** The answer to a create. `namespace` is the one that was asked for: old servers do not tell it. */
export const created = (response: Wire.CreateResponse, namespace: string): Created => ({
  name: response.sandboxName,
  namespace: response.namespace || namespace || Names.defaultNamespace,
  instanceId: response.sandboxId,
  agentPod: response.agentPod,
  endpoints: response.endpoints,
  startup: startupInfo(response.startup)
})

/** One event of a watch, or none for a kind that only newer servers tell. */
export const watchEvent = (event: Wire.WatchEvent): ReadonlyArray<WatchEvent> => {
  if (event.type === Wire.WatchEvent_Type.SYNCED) return [{ _tag: "Synced" }]
  if (event.sandbox === undefined) return []
  const sandbox = sandboxInfo(event.sandbox)
  switch (event.type) {
    case Wire.WatchEvent_Type.ADDED:
      return [{ _tag: "Added", sandbox }]
    case Wire.WatchEvent_Type.MODIFIED:
      return [{ _tag: "Modified", sandbox }]
    case Wire.WatchEvent_Type.DELETED:
      return [{ _tag: "Deleted", sandbox }]
    default:
      return []
  }
}

/** An image, from the wire. */
export const imageInfo = (image: Wire.ImageInfo): ImageInfo => ({
  name: image.name,
  digest: image.digest,
  sizeBytes: Number(image.sizeBytes),
  nodes: image.nodes
})

/** How far a node is, from the wire. */
export const imageProgress = (progress: Wire.ImageProgress): ImageProgress => ({
  node: progress.node,
  image: progress.image,
  status: progress.status === "done" || progress.status === "unpacking" ? progress.status : "transferring",
  currentBytes: Number(progress.currentBytes),
  totalBytes: progress.totalBytes === 0n ? undefined : Number(progress.totalBytes),
  digest: progress.digest === "" ? undefined : progress.digest
})

type Change = Exclude<Wire.UpdateRequest["update"], { readonly case: undefined }>

const changes = (options: UpdateOptions): ReadonlyArray<Change> => {
  const { expireTime, failurePolicy, recoveryTimeoutSeconds } = options
  const all: Array<Change> = []
  if (expireTime !== undefined) {
    all.push({ case: "expireTimeSeconds", value: expireTime === "never" ? 0n : epochSeconds(expireTime) })
  }
  if (failurePolicy !== undefined) all.push({ case: "failurePolicy", value: failurePolicies[failurePolicy] })
  if (recoveryTimeoutSeconds !== undefined) {
    all.push({ case: "recoveryTimeoutSeconds", value: recoveryTimeoutSeconds })
  }
  return all
}

/** The messages of an update: the protocol carries one change in each; labels go with the first. */
export const updates = (options: UpdateOptions) => {
  const [first, ...rest] = changes(options)
  return [
    { labels: { ...options.labels }, ...(first === undefined ? {} : { update: first }) },
    ...rest.map((update) => ({ update }))
  ]
}

/** Which lines, to the wire. */
export const logsRequest = (options: LogsOptions | undefined) => ({
  follow: options?.follow ?? false,
  tailLines: options?.tail === undefined ? undefined : BigInt(options.tail),
  since: options?.since === undefined ? undefined : Time.fromDateTime(DateTime.makeUnsafe(options.since)),
  until: options?.until === undefined ? undefined : Time.fromDateTime(DateTime.makeUnsafe(options.until)),
  stream: options?.stream === undefined ? undefined : logStreams[options.stream]
})

const logStreams: Readonly<Record<LogLine["stream"], Wire.LogStream>> = {
  stdout: Wire.LogStream.STDOUT,
  stderr: Wire.LogStream.STDERR
}

/** The first message of an archive. */
export const loadHeader = (
  value: { readonly poolRef: string; readonly namespace: string; readonly name: string }
) => ({ part: { case: "header" as const, value } })

/** One piece of an archive. */
export const loadData = (value: Uint8Array) => ({ part: { case: "data" as const, value } })
