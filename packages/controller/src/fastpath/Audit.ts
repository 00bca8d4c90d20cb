/**
 * Who changed what, from where, and how it ended: one line in the log, marked with `audit: true`, for every change that
 * a caller asked for, also one that was refused. It names things and never tells their content: no environment, no
 * command, no token. Every field is bounded.
 */
import { GrpcCaller, GrpcPeerAddress } from "@fast-sandbox/grpc/GrpcCaller"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"

/** Longest value of a field, in UTF-16 units: callers choose some of them, and a line of a log has to stay one. */
export const maxFieldLength = 256

const bounded = (text: string): string => text.length > maxFieldLength ? `${text.slice(0, maxFieldLength - 1)}…` : text

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) {
    return "ok"
  }
  const failure = Cause.findError(exit.cause)
  return Result.isSuccess(failure) && Predicate.hasProperty(failure.success, "_tag")
    ? String(failure.success._tag)
    : Cause.hasInterruptsOnly(exit.cause)
    ? "interrupted"
    : "defect"
}

const record = Effect.fnUntraced(function*(
  operation: string,
  subject: string,
  requestId: string,
  since: number,
  exit: Exit.Exit<unknown, unknown>
) {
  const { name } = yield* GrpcCaller
  const from = yield* GrpcPeerAddress
  const now = yield* Clock.currentTimeMillis
  const span = yield* Effect.option(Effect.currentParentSpan)
  yield* Effect.logInfo("audit").pipe(Effect.annotateLogs({
    audit: true,
    operation,
    subject: bounded(subject),
    caller: bounded(name),
    from,
    outcome: outcomeOf(exit),
    durationMillis: now - since,
    ...(requestId === "" ? {} : { requestId: bounded(requestId) }),
    ...(Option.isNone(span) ? {} : { traceId: span.value.traceId })
  }))
})

/**
 * Writes the line when the change has ended; whoever waits for that does not wait for the line, too. `operation` is a
 * verb; `subject` is what it was about: `namespace/name` of a sandbox, an image; `requestId` is what the caller calls its
 * request.
 */
export const mutation =
  (operation: string, subject: string, requestId = "") => <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (since) => Effect.onExit(self, (exit) => Effect.forkDetach(record(operation, subject, requestId, since, exit)))
    )

/** Writes the line when a change that goes on for a while, such as a session in a sandbox, has ended. */
export const session = (operation: string, subject: string) => <A, E, R>(self: Stream.Stream<A, E, R>) =>
  Stream.unwrap(
    Effect.map(
      Clock.currentTimeMillis,
      (since) => Stream.onExit(self, (exit) => record(operation, subject, "", since, exit))
    )
  )
