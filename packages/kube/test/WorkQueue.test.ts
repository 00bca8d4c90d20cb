import { assert, describe, it } from "@effect/vitest"
import * as Backoff from "@fast-sandbox/kube/Backoff"
import * as WorkQueue from "@fast-sandbox/kube/WorkQueue"
import { Clock, Deferred, Effect, Fiber, Metric } from "effect"
import { TestClock } from "effect/testing"

/** Records when work on a key began. */
const recorder = () => {
  const log: Array<string> = []
  return {
    log,
    note: (key: string) => Effect.map(Clock.currentTimeMillis, (now) => void log.push(`${key}@${now}`))
  }
}

const settle = TestClock.adjust(0)

describe("WorkQueue", () => {
  it.effect("works on a burst of one key once, and on keys in their order", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "burst" })
      const { log, note } = recorder()
      for (let at = 0; at < 100; at++) {
        yield* queue.add("a")
        yield* queue.add("b")
      }
      assert.deepStrictEqual(yield* queue.size, { ready: 2, active: 0, delayed: 0 })
      yield* Effect.forkChild(queue.run({ workers: 1 }, note))
      yield* settle
      assert.deepStrictEqual(log, ["a@0", "b@0"])
      assert.deepStrictEqual(yield* queue.size, { ready: 0, active: 0, delayed: 0 })
    }))

  it.effect("never works on a key twice at once, and once more if it was added meanwhile", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "once" })
      const { log, note } = recorder()
      let active = 0
      yield* Effect.forkChild(queue.run({ workers: 8 }, (key) =>
        Effect.gen(function*() {
          assert.strictEqual(++active, 1)
          yield* note(key)
          yield* Effect.sleep("10 millis")
          active--
        })))
      yield* queue.add("a")
      yield* TestClock.adjust("5 millis")
      yield* queue.add("a")
      yield* queue.add("a")
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(log, ["a@0", "a@10"])
    }))

  it.effect("runs as many workers as it may", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "workers" })
      const { log, note } = recorder()
      for (const key of ["a", "b", "c", "d", "e"]) {
        yield* queue.add(key)
      }
      yield* Effect.forkChild(
        queue.run({ workers: 2 }, (key) => Effect.andThen(note(key), Effect.sleep("10 millis")))
      )
      yield* TestClock.adjust("30 millis")
      assert.deepStrictEqual(log, ["a@0", "b@0", "c@10", "d@10", "e@20"])
    }))

  it.effect("delays to the millisecond; the earliest wins, and now is earlier than any", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "delay" })
      const { log, note } = recorder()
      yield* Effect.forkChild(queue.run({ workers: 1 }, note))
      yield* queue.addAfter("a", "100 millis")
      yield* queue.addAfter("a", "50 millis")
      yield* queue.addAfter("a", "70 millis")
      yield* queue.addAfter("b", "30 millis")
      yield* TestClock.adjust("29 millis")
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(log, ["b@30"])
      yield* TestClock.adjust("20 millis")
      assert.deepStrictEqual(log, ["b@30", "a@50"])
      yield* queue.addAfter("c", "100 millis")
      yield* queue.add("c")
      yield* TestClock.adjust("200 millis")
      assert.deepStrictEqual(log, ["b@30", "a@50", "c@50"])
    }))

  it.effect("backs off per key, exponentially, capped, and begins anew after a success", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({
        name: "backoff",
        backoff: Backoff.exponential({ name: "test", base: "10 millis", cap: "50 millis" })
      })
      const { log, note } = recorder()
      let fails = 5
      yield* Effect.forkChild(queue.run({ workers: 1 }, (key) =>
        Effect.andThen(
          note(key),
          key === "bad" && fails-- > 0 ? Effect.fail("no") : Effect.void
        )))
      yield* queue.add("bad")
      yield* queue.add("good")
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(log, ["bad@0", "good@0", "bad@10", "bad@30", "bad@70", "bad@120", "bad@170"])
      log.length = 0
      fails = 1
      yield* queue.add("bad")
      yield* TestClock.adjust("1 seconds")
      assert.deepStrictEqual(log, ["bad@1000", "bad@1010"])
    }))

  it.effect("tries at once what changed during a failure or a backoff", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({
        name: "changed",
        backoff: Backoff.exponential({ name: "test", base: "1 seconds", cap: "1 seconds" })
      })
      const { log, note } = recorder()
      yield* Effect.forkChild(
        queue.run({ workers: 1 }, (key) =>
          note(key).pipe(Effect.andThen(Effect.sleep("10 millis")), Effect.andThen(Effect.fail("no"))))
      )
      yield* queue.add("a")
      yield* TestClock.adjust("5 millis")
      yield* queue.add("a")
      yield* TestClock.adjust("95 millis")
      yield* queue.add("a")
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(log, ["a@0", "a@10", "a@100"])
    }))

  it.effect("requeues on request, without counting it as a failure", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "again" })
      const { log, note } = recorder()
      yield* Effect.forkChild(
        queue.run({ workers: 1 }, (key) => Effect.as(note(key), { requeueAfter: "7 millis" } as const))
      )
      yield* queue.add("a")
      yield* TestClock.adjust("21 millis")
      assert.deepStrictEqual(log, ["a@0", "a@7", "a@14", "a@21"])
    }))

  it.effect("outlives defects", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "defect" })
      const { log, note } = recorder()
      let first = true
      yield* Effect.forkChild(queue.run({ workers: 1 }, (key) =>
        Effect.andThen(
          note(key),
          Effect.sync(() => {
            if (first) {
              first = false
              throw new Error("bug")
            }
          })
        )))
      yield* queue.add("a")
      yield* TestClock.adjust("5 millis")
      assert.deepStrictEqual(log, ["a@0", "a@5"])
    }))

  it.effect("drains: finishes what is ready, forgets what is delayed, takes no more", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "drain" })
      const { log, note } = recorder()
      yield* queue.add("a")
      yield* queue.add("b")
      yield* queue.addAfter("later", "1 seconds")
      const running = yield* Effect.forkChild(
        queue.run({ workers: 1 }, (key) => Effect.andThen(note(key), Effect.sleep("10 millis")))
      )
      yield* settle
      const draining = yield* Effect.forkChild(queue.drain)
      yield* settle
      yield* queue.add("c")
      yield* TestClock.adjust("19 millis")
      assert.isUndefined(draining.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(draining)
      yield* Fiber.join(running)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(log, ["a@0", "b@10"])
    }))

  it.effect("drains at once when there is nothing to do", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "idle" })
      yield* queue.addAfter("later", "1 seconds")
      yield* queue.drain
    }))

  it.effect("keeps the keys of interrupted work", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "interrupt" })
      const { log, note } = recorder()
      const began = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        queue.run({ workers: 1 }, () => Effect.andThen(Deferred.succeed(began, undefined), Effect.never))
      )
      yield* queue.add("a")
      yield* Deferred.await(began)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* queue.size, { ready: 1, active: 0, delayed: 0 })
      yield* Effect.forkChild(queue.run({ workers: 1 }, note))
      yield* settle
      assert.deepStrictEqual(log, ["a@0"])
    }))

  it.effect("measures depth, waits and retries", () =>
    Effect.gen(function*() {
      const queue = yield* WorkQueue.make({ name: "measured" })
      yield* queue.add("a")
      const read = Effect.map(Metric.snapshot, (metrics) =>
        Object.fromEntries(
          metrics.filter((metric) => metric.attributes?.queue === "measured").map((metric) => [metric.id, metric.state])
        ))
      assert.deepInclude((yield* read).fsb_workqueue_depth, { value: 1 })
      let fail = true
      yield* Effect.forkChild(queue.run({ workers: 1 }, () => {
        const failing = fail
        fail = false
        return failing ? Effect.fail("no") : Effect.void
      }))
      yield* TestClock.adjust("1 seconds")
      const after = yield* read
      assert.deepInclude(after.fsb_workqueue_depth, { value: 0 })
      assert.deepInclude(after.fsb_workqueue_wait_seconds, { count: 2 })
      assert.deepInclude(after.fsb_workqueue_retries_total, { count: 1 })
    }))
})
