/**
 * States that a stack reaches by itself, in its own time.
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

/** Asked for every 100 ms, for at most 30 s; failed assertions count as "not yet". */
export const eventually = <A, E, R>(check: Effect.Effect<A, E, R>) =>
  check.pipe(
    Effect.catchDefect((defect) => Effect.fail(defect)),
    Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 300 })))
  )
