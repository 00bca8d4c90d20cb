/**
 * What an agent's instance amounts to before its resource has a status: the same status that the SandboxController
 * would write, because the same decision function says it.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Decision from "@fast-sandbox/core/Decision"
import type { Sandbox, SandboxStatus } from "@fast-sandbox/core/Sandbox"
import type { Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Option from "effect/Option"
import type { AgentView } from "../agents/Agents.ts"
import { observe } from "../sandbox/Observation.ts"

/**
 * The status of a sandbox that has none yet; absent when the instance does not tell enough. What to do about a failure
 * is left to the controller that keeps count of it.
 */
export const of = (sandbox: Sandbox, agent: AgentView, instance: Instance, now: number): SandboxStatus | undefined => {
  const observed: Decision.ObservedInstance = { ...observe(agent, instance), reachable: true, bound: true }
  const action = Decision.decide({
    sandbox: { ...sandbox, spec: { ...sandbox.spec, failurePolicy: "Manual" } },
    instances: [observed],
    presence: () => Decision.AgentPresence.Synced(),
    provenGone: new Set(),
    unanswered: [],
    unheardSinceMillis: undefined,
    refusals: new Map(),
    recoveryDelaysMillis: [],
    now
  })
  return Decision.Action.$is("ReportStatus")(action) ? action.status : undefined
}

/** The sandbox with a status that says at least where its instance is. */
export const show = (
  sandbox: Sandbox,
  agent: Option.Option<AgentView>,
  now: number
): Sandbox => {
  if (sandbox.status?.phase !== undefined) {
    return sandbox
  }
  const assignment = Option.getOrUndefined(Assignment.ofCreator(sandbox))
  const view = Option.getOrUndefined(agent)
  const instance = assignment === undefined ? undefined : view?.instances.get(assignment.instanceId)
  if (view !== undefined && instance !== undefined) {
    const status = of(sandbox, view, instance, now)
    return status === undefined ? sandbox : { ...sandbox, status }
  }
  return assignment === undefined
    ? { ...sandbox, status: { ...sandbox.status, phase: "Pending" } }
    : { ...sandbox, status: Decision.placed(sandbox, sandbox.status ?? {}, assignment, now) }
}
