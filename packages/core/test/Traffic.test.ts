import { assert, describe, it } from "@effect/vitest"
import { Traffic } from "@fast-sandbox/core/Traffic"
import { Deferred, Effect, Fiber } from "effect"

/** What happened, in order; `replenish` is work that waits for quiet. */
const observed = Effect.gen(function*() {
  const traffic = yield* Traffic
  const happened: Array<string> = []
  const says = (what: string) => Effect.sync(() => happened.push(what))
  const request = (name: string, until: Deferred.Deferred<void>) =>
    traffic.during(Effect.andThen(Deferred.await(until), says(name))).pipe(
      Effect.forkChild({ startImmediately: true })
    )
  const replenish = Effect.andThen(traffic.quiet, says("replenish")).pipe(Effect.forkChild({ startImmediately: true }))
  return { happened, replenish, request, traffic }
})

const run = <A, E>(test: Effect.Effect<A, E, Traffic>) => Effect.provide(test, Traffic.layer, { local: true })

describe("Traffic", () => {
  it.live("lets background work begin when nobody asks for anything", () =>
    run(Effect.gen(function*() {
      const { happened, replenish } = yield* observed
      yield* Fiber.join(yield* replenish)
      assert.deepStrictEqual(happened, ["replenish"])
    })))

  it.live("makes it wait for all requests, also for those that come while it waits", () =>
    run(Effect.gen(function*() {
      const { happened, replenish, request } = yield* observed
      const [first, second, third] = [
        Deferred.makeUnsafe<void>(),
        Deferred.makeUnsafe<void>(),
        Deferred.makeUnsafe<void>()
      ]
      const one = yield* request("first", first)
      const two = yield* request("second", second)
      const background = yield* replenish
      yield* Deferred.succeed(first, undefined)
      yield* Fiber.join(one)
      // The last request has hardly ended when the next one comes: the pause in between is not quiet.
      yield* Deferred.succeed(second, undefined)
      yield* Fiber.join(two)
      const three = yield* request("third", third)
      yield* Deferred.succeed(third, undefined)
      yield* Fiber.join(three)
      yield* Fiber.join(background)
      assert.deepStrictEqual(happened, ["first", "second", "third", "replenish"])
    })))

  it.live("is quiet again after a request that failed or was interrupted", () =>
    run(Effect.gen(function*() {
      const { happened, replenish, request, traffic } = yield* observed
      yield* Effect.exit(traffic.during(Effect.fail("no")))
      const endless = yield* request("never", Deferred.makeUnsafe())
      const background = yield* replenish
      yield* Fiber.interrupt(endless)
      yield* Fiber.join(background)
      assert.deepStrictEqual(happened, ["replenish"])
    })))
})
