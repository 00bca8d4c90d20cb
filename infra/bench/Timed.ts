/**
 * How long an effect takes, by the monotonic clock, beside what it gives.
 */
import * as Effect from "effect/Effect"
import { performance } from "node:perf_hooks"

/** The value of an effect and the milliseconds from its start to its end. */
export interface Timed<A> {
  readonly value: A
  readonly millis: number
}

/** Runs an effect and looks at the clock before and after; one that fails has no duration. */
export const timed = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<Timed<A>, E, R> =>
  Effect.suspend(() => {
    const startedAt = performance.now()
    return Effect.map(self, (value) => ({ value, millis: performance.now() - startedAt }))
  })
