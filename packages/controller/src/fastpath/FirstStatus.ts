/**
 * What an agent's instance amounts to before its resource has a status: the same status that the SandboxController
 * would write, because the same decision function says it.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Decision from "@fast-sandbox/core/Decision"
import type { Sandbox, SandboxStatus } from "@fast-sandbox/core/Sandbox"
import type { Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { AgentView } from "../agents/Agents.ts"
import { announce } from "../sandbox/Announcement.ts"
import { observe, startupOf } from "../sandbox/Observation.ts"

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

/**
 * The sandbox as its create answers it: where its program runs and how it was started, as its agent has just said. The
 * rest of a status is decided for those who ask for it.
 */
export const started = (
  sandbox: Sandbox,
  assignment: Assignment.Assignment,
  instance: Instance
): Sandbox => {
  const startup = startupOf(instance)
  return {
    ...sandbox,
    status: {
      phase: "Running",
      ...Decision.fieldsOf(assignment),
      endpoints: instance.endpoints,
      ...(startup === undefined ? {} : { startup })
    }
  }
}

/** With what a first status is written. */
export interface Writer {
  readonly kube: KubeClient["Service"]
  readonly recorder: EventRecorder["Service"]
}

/**
 * Writes the status of `after` and tells of it. Undefined when that could not be: whoever writes one meanwhile knows more,
 * and the first one is for speed only.
 */
export const write = (
  { kube, recorder }: Writer,
  before: Sandbox,
  after: Sandbox
): Effect.Effect<Sandbox | undefined> =>
  kube.updateStatus(Kinds.Sandbox, after).pipe(
    Effect.tap((written) => announce(recorder, written, before.status, after.status ?? {})),
    Effect.catchTag(
      "KubeError",
      (error) => Effect.as(Effect.logDebug("the first status was not written", error), undefined)
    )
  )

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
