/** Time that passes for fibers that wait for each other as well as for the clock. */
import { Duration, Effect } from "effect"
import { TestClock } from "effect/testing"

/** Steps that a stretch of time is cut into, so that what one timer sets off can set the next one. */
const slices = 20

/** Turns of the event loop after each step: more than the longest chain of fibers that wake each other. */
const turns = 25

const turn = Effect.callback<void>((resume) => {
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})

/** Lets everything happen that is ready to, then lets the time pass on the test's clock, then again. */
export const pass = (duration: Duration.Input): Effect.Effect<void> => {
  const step = Duration.millis(Duration.toMillis(Duration.fromInputUnsafe(duration)) / slices)
  return TestClock.adjust(step).pipe(
    Effect.andThen(Effect.repeat(turn, { times: turns })),
    Effect.repeat({ times: slices - 1 }),
    Effect.asVoid
  )
}
