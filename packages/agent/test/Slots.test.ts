import { assert, describe, it } from "@effect/vitest"
import { AgentConfig, config } from "@fast-sandbox/agent/AgentConfig"
import { Slots } from "@fast-sandbox/agent/Slots"
import { WatchHub } from "@fast-sandbox/agent/WatchHub"
import type { Profile as RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { ConfigProvider, Effect, Exit, Layer, Schema } from "effect"
import * as Profile from "./Profile.ts"

const layerOf = (slots: number, profile: Partial<RuntimeProfile> = {}) =>
  Slots.layer.pipe(
    Layer.provide(WatchHub.layer),
    Layer.provide(Profile.layer(profile)),
    Layer.provide(Layer.effect(
      AgentConfig,
      config.parse(ConfigProvider.fromEnv({
        env: { POD_NAME: "a", POD_UID: "u", POD_NAMESPACE: "n", FSB_SLOTS: String(slots) }
      }))
    )),
    Layer.orDie
  )

/** A random history: admit with ports, or release, of a few instances. */
const Step = Schema.Struct({
  id: Schema.Literals(["a", "b", "c", "d", "e", "f"]),
  admit: Schema.Boolean,
  ports: Schema.Array(Schema.Literals([1, 2, 3, 4])).check(Schema.isMaxLength(3))
})

describe("Slots", () => {
  it.effect("are none where nothing can be run, and the refusal says why", () =>
    Effect.gen(function*() {
      const slots = yield* Slots
      assert.strictEqual((yield* slots.capacity).slots, 0)
      const error = yield* Effect.flip(slots.admit("i", []))
      assert.deepInclude(error, { _tag: "FailedPrecondition", reason: "RuntimeMissing" })
      assert.include(error.message, "runsc is not installed")
    }).pipe(Effect.provide(layerOf(3, {
      runtime: { name: "runsc", path: "", version: "", problem: "runsc is not installed" }
    }))))

  it.effect("100 creates at once on 3 slots are exactly 3", () =>
    Effect.gen(function*() {
      const slots = yield* Slots
      const results = yield* Effect.forEach(
        Array.from({ length: 100 }, (_, n) => `i-${n}`),
        (id) => Effect.exit(slots.admit(id, [])),
        { concurrency: "unbounded" }
      )
      assert.lengthOf(results.filter(Exit.isSuccess), 3)
      assert.strictEqual((yield* slots.capacity).slotsUsed, 3)
    }).pipe(Effect.provide(layerOf(3))))

  it.effect("gives back what is released, with its ports", () =>
    Effect.gen(function*() {
      const slots = yield* Slots
      yield* slots.admit("a", [80])
      assert.strictEqual((yield* Effect.flip(slots.admit("b", [80])))._tag, "ResourceExhausted")
      yield* slots.release("a")
      yield* slots.admit("b", [80])
      const { portsUsed, slotsUsed } = yield* slots.capacity
      assert.deepStrictEqual([slotsUsed, portsUsed], [1, [80]])
    }).pipe(Effect.provide(layerOf(2))))

  it.effect("admits nothing when it drains, and takes up what runs beyond its slots", () =>
    Effect.gen(function*() {
      const slots = yield* Slots
      yield* slots.restore("a", [1])
      yield* slots.restore("b", [2])
      assert.strictEqual((yield* slots.capacity).slotsUsed, 2)
      assert.strictEqual((yield* Effect.flip(slots.admit("c", [])))._tag, "ResourceExhausted")
      yield* slots.release("a")
      yield* slots.release("a")
      yield* slots.release("b")
      yield* slots.drain
      assert.strictEqual((yield* Effect.flip(slots.admit("c", [])))._tag, "Unavailable")
      assert.isTrue((yield* slots.capacity).draining)
    }).pipe(Effect.provide(layerOf(1))))

  it.effect.prop(
    "never exceeds its slots nor doubles a port, whatever happens",
    [Schema.Array(Step)],
    ([steps]) =>
      Effect.gen(function*() {
        const slots = yield* Slots
        const model = new Map<string, ReadonlyArray<number>>()
        for (const { admit, id, ports } of steps) {
          if (!admit) {
            yield* slots.release(id)
            model.delete(id)
            continue
          }
          const taken = new Set([...model.values()].flat())
          const fits = model.size < 3 && !model.has(id) && new Set(ports).size === ports.length &&
            !ports.some((port) => taken.has(port))
          assert.strictEqual(Exit.isSuccess(yield* Effect.exit(slots.admit(id, ports))), fits)
          if (fits) {
            model.set(id, ports)
          }
          const { portsUsed, slotsUsed } = yield* slots.capacity
          assert.strictEqual(slotsUsed, model.size)
          assert.deepStrictEqual(portsUsed, [...model.values()].flat().toSorted((a, b) => a - b))
        }
      }).pipe(Effect.provide(layerOf(3), { local: true }))
  )
})
