/**
 * When a program has nothing more urgent to do: work in the background must not make a request slower.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** Requests come in bursts: what follows another this closely finds the machine to itself. */
const quietMillis = 20

const nanosPerMilli = 1e6

/** Not the time of day: whoever sets that back must not make background work wait. */
const nowMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / nanosPerMilli

/**
 * - `during` runs a request.
 * - `quiet` is done when none runs and none has ended just now.
 */
export class Traffic extends Context.Service<Traffic, {
  readonly during: <A, E, R>(request: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  readonly quiet: Effect.Effect<void>
}>()("@fast-sandbox/core/Traffic") {
  static readonly layer: Layer.Layer<Traffic> = Layer.sync(Traffic, () => {
    let running = 0
    let lastEnd = -Infinity
    let idle = Deferred.makeUnsafe<void>()

    const end = Clock.clockWith((clock) => {
      running--
      lastEnd = nowMillis(clock)
      if (running === 0) {
        Deferred.doneUnsafe(idle, Effect.void)
        idle = Deferred.makeUnsafe()
      }
      return Effect.void
    })

    const quiet: Effect.Effect<void> = Clock.clockWith((clock) => {
      if (running > 0) {
        return Effect.andThen(Deferred.await(idle), quiet)
      }
      const left = lastEnd + quietMillis - nowMillis(clock)
      // whole ones, as timers have them: what is left of one would be waited for again and again
      return left > 0 ? Effect.andThen(Effect.sleep(Math.ceil(left)), quiet) : Effect.void
    })

    return Traffic.of({
      during: (request) =>
        Effect.uninterruptibleMask((restore) => {
          running++
          return Effect.ensuring(restore(request), end)
        }),
      quiet
    })
  })
}
