/**
 * Who changed what: one line in the log for every change that a caller asked for, however it ended.
 */
import { GrpcCaller } from "@fast-sandbox/grpc/GrpcCaller"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"

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

/** Writes the line when the change has ended. `subject` is what it was about: `namespace/name` of a sandbox, an image. */
export const mutation = (operation: string, subject: string) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.onExit(self, (exit) =>
    Effect.flatMap(GrpcCaller, ({ name }) =>
      Effect.logInfo("audit").pipe(
        Effect.annotateLogs({ operation, subject, caller: name, outcome: outcomeOf(exit) })
      )))
