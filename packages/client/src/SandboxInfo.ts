/**
 * A sandbox as the Fast-Path API tells it: what the user asked for, where it runs, and what became of it.
 */
import { Phase, Startup } from "@fast-sandbox/core/Sandbox"
import type * as Wire from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Time from "./internal/time.ts"

/** A sandbox at one moment. What is not known (yet) is absent. */
export interface SandboxInfo {
  readonly name: string
  readonly namespace: string
  /** Which start of the sandbox this is: new for every start. */
  readonly instanceId: string
  /** Unknown when the server is newer than this client. */
  readonly phase: Phase | "Unknown"
  readonly image: string
  readonly pool: string
  readonly agentPod: string
  readonly nodeName: string
  /** `host:port` of every exposed port. */
  readonly endpoints: ReadonlyArray<string>
  readonly labels: Readonly<Record<string, string>>
  readonly createdAt: DateTime.Utc
  readonly startedAt?: DateTime.Utc | undefined
  readonly finishedAt?: DateTime.Utc | undefined
  /** How the program ended by itself. */
  readonly exitCode?: number | undefined
  /** The signal that ended the program. */
  readonly signal?: number | undefined
  /** Completed, Error, OOMKilled, AgentLost ... */
  readonly reason: string
  /** The reason, for a person. */
  readonly message: string
  /** Starts after the first one. */
  readonly restarts: number
  readonly startup?: Startup | undefined
  /** The whole Sandbox resource as JSON text, as the Kubernetes API shows it; empty from servers that do not send it. */
  readonly resource: string
}

const MILLIS_PER_SECOND = 1000

const isPhase = Schema.is(Phase)
const decodeStartup = Schema.decodeUnknownOption(Startup)

/** How a sandbox was started, from the wire. */
export const startupFromWire = (startup: Wire.Startup | undefined): Startup | undefined =>
  startup === undefined
    ? undefined
    : Option.getOrUndefined(decodeStartup({
      tier: startup.tier,
      steps: startup.steps.map(({ millis, name }) => ({ name, millis }))
    }))

/** A sandbox, from the wire. */
export const fromWire = (info: Wire.SandboxInfo): SandboxInfo => ({
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
  startup: startupFromWire(info.startup),
  resource: new TextDecoder().decode(info.resource)
})
