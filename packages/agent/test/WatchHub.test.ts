import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { type Identity, subscriberCapacity, type WatchEvent, WatchHub } from "@fast-sandbox/agent/WatchHub"
import { CapacitySchema, InstanceSchema, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { Deferred, Effect, Fiber, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"

const identity: Identity = { agentUid: "u" }

const instance = (instanceId: string, state: InstanceState = InstanceState.RUNNING) =>
  create(InstanceSchema, { instanceId, state })

const changed = (hub: WatchHub["Service"], instanceId: string, state?: InstanceState) =>
  hub.publishUnsafe({ case: "instanceChanged", value: instance(instanceId, state) })

const follow = Effect.fnUntraced(function*(hub: WatchHub["Service"]) {
  const events = yield* Queue.unbounded<WatchEvent>()
  const fiber = yield* hub.watch(identity).pipe(
    Stream.runForEach((event) => Queue.offer(events, event)),
    Effect.forkChild({ startImmediately: true })
  )
  return { events, fiber }
})

const ids = (event: WatchEvent) =>
  event.case === "state" ? (event.value.instances ?? []).map(({ instanceId }) => instanceId) : []

describe("WatchHub", () => {
  it.effect("begins with the whole state, then tells every change in order", () =>
    Effect.gen(function*() {
      const hub = yield* WatchHub
      hub.publishUnsafe({ case: "capacityChanged", value: create(CapacitySchema, { slots: 3 }) })
      changed(hub, "a")
      changed(hub, "b")
      hub.publishUnsafe({ case: "instanceRemoved", value: { instanceId: "a" } })
      const { events } = yield* follow(hub)
      const first = yield* Queue.take(events)
      assert.deepStrictEqual(ids(first), ["b"])
      assert.strictEqual(first.case === "state" ? first.value.capacity?.slots : 0, 3)
      changed(hub, "c", InstanceState.CREATING)
      yield* TestClock.adjust("5 millis")
      changed(hub, "c", InstanceState.RUNNING)
      yield* TestClock.adjust("5 millis")
      hub.publishUnsafe({ case: "instanceRemoved", value: { instanceId: "c" } })
      yield* TestClock.adjust("5 millis")
      const told = yield* Queue.takeN(events, 3)
      assert.deepStrictEqual(told.map((event) => event.case), ["instanceChanged", "instanceChanged", "instanceRemoved"])
    }).pipe(Effect.provide(WatchHub.layer, { local: true })))

  it.effect("tells changes that follow each other closely together, of one thing the last", () =>
    Effect.gen(function*() {
      const hub = yield* WatchHub
      const { events } = yield* follow(hub)
      yield* Queue.take(events)
      changed(hub, "a", InstanceState.CREATING)
      hub.publishUnsafe({ case: "capacityChanged", value: create(CapacitySchema, { slots: 3 }) })
      yield* TestClock.adjust("4 millis")
      assert.strictEqual(yield* Queue.size(events), 0)
      changed(hub, "b", InstanceState.RUNNING)
      changed(hub, "a", InstanceState.RUNNING)
      yield* TestClock.adjust("1 millis")
      const told = yield* Queue.takeAll(events)
      assert.deepStrictEqual(
        told.map((event) =>
          event.case === "instanceChanged" ? [event.value.instanceId, event.value.state] : event.case
        ),
        ["capacityChanged", ["b", InstanceState.RUNNING], ["a", InstanceState.RUNNING]]
      )
    }).pipe(Effect.provide(WatchHub.layer, { local: true })))

  it.effect("tells what is left before it ends", () =>
    Effect.gen(function*() {
      const hub = yield* WatchHub
      const { events, fiber } = yield* follow(hub)
      yield* Queue.take(events)
      changed(hub, "a")
      yield* TestClock.adjust("1 millis")
      changed(hub, "b")
      yield* hub.end
      yield* TestClock.adjust("5 millis")
      yield* Fiber.join(fiber)
      assert.strictEqual(yield* Queue.size(events), 2)
    }).pipe(Effect.provide(WatchHub.layer, { local: true })))

  it.effect("sends a heartbeat when nothing else was sent", () =>
    Effect.gen(function*() {
      const hub = yield* WatchHub
      const { events } = yield* follow(hub)
      yield* Queue.take(events)
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* Queue.size(events), 0)
      yield* TestClock.adjust("1 seconds")
      assert.strictEqual((yield* Queue.take(events)).case, "heartbeat")
    }).pipe(Effect.provide(WatchHub.layer, { local: true })))

  it.effect("gives up a watcher that falls behind, and no other", () =>
    Effect.gen(function*() {
      const hub = yield* WatchHub
      const { events } = yield* follow(hub)
      yield* Queue.take(events)
      const wakes = yield* Deferred.make<void>()
      const slow = yield* hub.watch(identity).pipe(
        Stream.mapEffect(() => Deferred.await(wakes)),
        Stream.runDrain,
        Effect.flip,
        Effect.forkChild({ startImmediately: true })
      )
      for (let n = 0; n < subscriberCapacity + 2; n++) {
        changed(hub, `a${n}`)
        // The one that reads is given the chance to.
        if (n % 100 === 0) yield* TestClock.adjust("5 millis")
      }
      yield* Deferred.succeed(wakes, undefined)
      yield* TestClock.adjust("5 millis")
      assert.strictEqual((yield* Fiber.join(slow))._tag, "ResourceExhausted")
      assert.isAbove(yield* Queue.size(events), subscriberCapacity)
    }).pipe(Effect.provide(WatchHub.layer, { local: true })))

  it.effect("ends its watchers when the agent goes", () =>
    Effect.gen(function*() {
      const hub = yield* WatchHub
      const { fiber } = yield* follow(hub)
      yield* hub.end
      yield* Fiber.join(fiber)
      assert.lengthOf(yield* Stream.runCollect(hub.watch(identity)), 1)
    }).pipe(Effect.provide(WatchHub.layer, { local: true })))
})
