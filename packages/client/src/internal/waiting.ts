/**
 * What a wait makes of each event of a watch. Level-triggered: the state that a new watch begins with says the same as
 * the events that were missed.
 */
import { FailedPrecondition, NotFound } from "@fast-sandbox/core/Errors"
import { type Phase, terminalPhases } from "@fast-sandbox/core/Sandbox"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { ConditionGoal, WatchEvent } from "../Calls.ts"
import type { SandboxInfo } from "../SandboxInfo.ts"

/**
 * Whether an event ends a wait, and how. `last` is the state that the same watch told before, if any.
 */
export type Decide<A> = (
  last: SandboxInfo | undefined,
  event: WatchEvent
) => Option.Option<Result.Result<A, NotFound | FailedPrecondition>>

const ended = (sandbox: SandboxInfo) => {
  const why = sandbox.message === "" ? "" : ` (${sandbox.message})`
  return new FailedPrecondition({
    reason: "Ended",
    problem: `sandbox ${sandbox.name} is ${sandbox.phase}${why} and gets no further without a reset`
  })
}

const Intentions = Schema.fromJsonString(Schema.Struct({
  spec: Schema.Struct({ resetRevision: Schema.optionalKey(Schema.String) }),
  status: Schema.optionalKey(Schema.Struct({
    acceptedResetRevision: Schema.optionalKey(Schema.String),
    recovery: Schema.optionalKey(Schema.Struct({ nextAt: Schema.optionalKey(Schema.String) }))
  }))
}))

const decodeIntentions = Schema.decodeUnknownOption(Intentions)

/** Another instance is on its way: a reset was asked for and is not carried out yet, or a recovery is planned. */
const isToBeStarted = ({ resource }: SandboxInfo): boolean =>
  Option.exists(
    decodeIntentions(resource),
    ({ spec, status }) =>
      status?.recovery?.nextAt !== undefined ||
      (spec.resetRevision !== undefined && spec.resetRevision !== status?.acceptedResetRevision)
  )

/** Waits until a sandbox has one of the phases. */
export const forPhase = (name: string, phases: ReadonlySet<Phase>): Decide<SandboxInfo> => (last, event) => {
  const gone = Option.some(Result.fail(new NotFound({ kind: "sandbox", name })))
  if (event._tag === "Synced") return last === undefined ? gone : Option.none()
  if (event._tag === "Deleted") return gone
  const { sandbox } = event
  if (sandbox.phase === "Unknown") return Option.none()
  if (phases.has(sandbox.phase)) return Option.some(Result.succeed(sandbox))
  return terminalPhases.has(sandbox.phase) && !isToBeStarted(sandbox)
    ? Option.some(Result.fail(ended(sandbox)))
    : Option.none()
}

const Conditions = Schema.fromJsonString(Schema.Struct({
  status: Schema.optionalKey(Schema.Struct({
    conditions: Schema.optionalKey(Schema.Array(Schema.Struct({ type: Schema.String, status: Schema.String })))
  }))
}))

const decodeConditions = Schema.decodeUnknownOption(Conditions)

const meets = ({ resource }: SandboxInfo, goal: ConditionGoal): boolean =>
  Option.exists(
    decodeConditions(resource),
    ({ status }) =>
      status?.conditions?.some(({ status, type }) => type === goal.type && status === goal.status) === true
  )

/** Waits until a condition of a sandbox has a status. */
export const forCondition = (name: string, goal: ConditionGoal): Decide<SandboxInfo> => (last, event) =>
  event._tag !== "Synced" && event._tag !== "Deleted" && meets(event.sandbox, goal)
    ? Option.some(Result.succeed(event.sandbox))
    : forPhase(name, new Set())(last, event)

/** Waits until a sandbox is gone. */
export const forDeletion: Decide<void> = (last, event) =>
  event._tag === "Deleted" || (event._tag === "Synced" && last === undefined)
    ? Option.some(Result.void)
    : Option.none()
