/**
 * A sandbox as the Fast-Path API tells it: what the user asked for, where it runs, and what became of it.
 */
import type { Phase, Startup } from "@fast-sandbox/core/Sandbox"
import type * as DateTime from "effect/DateTime"

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
