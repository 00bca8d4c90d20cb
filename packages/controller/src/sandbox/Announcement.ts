/**
 * What Kubernetes Events tell of a sandbox: every change of its phase, and every new reason for finding no agent. Who
 * writes a status tells of it, so that each change is told once.
 */
import type { Sandbox, SandboxStatus } from "@fast-sandbox/core/Sandbox"
import type { EventInput, EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import * as Effect from "effect/Effect"

/** What is to be told; absent when nothing is new. */
export const of = (before: SandboxStatus | undefined, after: SandboxStatus): EventInput | undefined => {
  const scheduled = after.conditions?.find(({ type }) => type === "Scheduled")
  const old = before?.conditions?.find(({ type }) => type === "Scheduled")
  if (after.phase === "Pending" && scheduled !== undefined) {
    const { message, reason } = scheduled
    return reason === old?.reason ? undefined : { type: "Warning", reason, message }
  }
  if (after.phase === undefined || after.phase === before?.phase) {
    return undefined
  }
  const message = after.phase === "Scheduled"
    ? scheduled?.message
    : after.message ?? after.conditions?.find(({ type }) => type === "Ready")?.message
  const isBad = after.phase === "Failed" || after.phase === "Lost"
  return {
    type: isBad ? "Warning" : "Normal",
    reason: isBad ? after.reason ?? after.phase : after.phase,
    message: message ?? after.phase
  }
}

/** Tells of a status that was written. */
export const announce = (
  recorder: EventRecorder["Service"],
  sandbox: Sandbox,
  before: SandboxStatus | undefined,
  after: SandboxStatus
): Effect.Effect<void> => {
  const event = of(before, after)
  return event === undefined ? Effect.void : recorder.record(Kinds.Sandbox, sandbox, event)
}
