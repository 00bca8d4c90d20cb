import { assert, describe, it } from "@effect/vitest"
import { reasons } from "@fast-sandbox/core/Conditions"
import * as Recovery from "@fast-sandbox/core/Recovery"
import { Duration, Effect, Fiber, Random, Ref } from "effect"
import { TestClock } from "effect/testing"

/** What the schedule would give without jitter, in milliseconds. */
const plain = (attempt: number): number => Math.min(1000 * 2 ** (attempt - 1), 300_000)

const seeded = <A, E, R>(self: Effect.Effect<A, E, R>) => Random.withSeed(self, "one seed")

describe("Recovery", () => {
  it.effect("doubles from one second to five minutes, jittered, twenty times", () =>
    Effect.gen(function*() {
      const delays = yield* Recovery.drawDelays
      assert.strictEqual(delays.length, Recovery.attempts)
      delays.forEach((delay, index) => {
        const wanted = plain(index + 1)
        assert.isTrue(delay >= wanted * 0.8 && delay <= wanted * 1.2, `attempt ${index + 1}: ${delay}`)
        assert.isTrue(delay <= Recovery.longestMillis)
      })
    }))

  it.effect("spreads sandboxes that were lost together", () =>
    Effect.gen(function*() {
      const draws = yield* Effect.forEach(Array.from({ length: 20 }), () => Recovery.drawDelays)
      assert.isTrue(new Set(draws.map((delays) => delays[0])).size > 10)
    }))

  it.effect("repeats an effect exactly when the draw says, to the millisecond", () =>
    Effect.gen(function*() {
      const delays = yield* seeded(Recovery.drawDelays)
      const runs = yield* Ref.make(0)
      const fiber = yield* seeded(
        Effect.fail("down").pipe(
          Effect.tapError(() => Ref.update(runs, (count) => count + 1)),
          Effect.retry(Recovery.schedule),
          Effect.exit
        )
      ).pipe(Effect.forkChild)
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* Ref.get(runs), 1)
      let due = 0
      let elapsed = 0
      for (const [index, delay] of delays.slice(0, 4).entries()) {
        due += delay
        const millisBefore = Math.ceil(due) - 1 - elapsed
        yield* TestClock.adjust(millisBefore)
        assert.strictEqual(yield* Ref.get(runs), index + 1)
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Ref.get(runs), index + 2)
        elapsed += millisBefore + 1
      }
      yield* Fiber.interrupt(fiber)
    }))

  it.effect("ends", () =>
    Effect.gen(function*() {
      const runs = yield* Ref.make(0)
      const fiber = yield* Effect.fail("down").pipe(
        Effect.tapError(() => Ref.update(runs, (count) => count + 1)),
        Effect.retry(Recovery.schedule),
        Effect.exit,
        Effect.forkChild
      )
      yield* TestClock.adjust(Duration.hours(3))
      yield* Fiber.join(fiber)
      assert.strictEqual(yield* Ref.get(runs), Recovery.attempts + 1)
    }))
})

it("a change of a status says what became of a recovery", () => {
  const since = "2026-01-01T00:00:00Z"
  const first = { phase: "Failed", recovery: { attempt: 1, since, nextAt: since } } as const
  const running = { phase: "Running", recovery: { attempt: 1, since } } as const
  const second = { phase: "Failed", recovery: { attempt: 2, since, nextAt: since } } as const
  const over = { phase: "Failed", reason: reasons.recoveryExhausted } as const
  assert.strictEqual(Recovery.turnOf(undefined, { phase: "Running" }), undefined)
  assert.strictEqual(Recovery.turnOf({ phase: "Running" }, first), "scheduled")
  assert.strictEqual(Recovery.turnOf(first, running), undefined)
  assert.strictEqual(Recovery.turnOf(running, second), "scheduled")
  assert.strictEqual(Recovery.turnOf(running, { phase: "Running" }), "held")
  assert.strictEqual(Recovery.turnOf(running, { phase: "Stopped" }), undefined)
  assert.strictEqual(Recovery.turnOf(second, over), "exhausted")
  assert.strictEqual(Recovery.turnOf(over, over), undefined)
})
