import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { AgentConfig, config } from "@fast-sandbox/agent/AgentConfig"
import { Endings } from "@fast-sandbox/agent/Endings"
import { Instances } from "@fast-sandbox/agent/Instances"
import { SlotFiles } from "@fast-sandbox/agent/parked/SlotFiles"
import { LeftBehind, SandboxContainer } from "@fast-sandbox/agent/SandboxContainer"
import { Slots } from "@fast-sandbox/agent/Slots"
import { WatchHub } from "@fast-sandbox/agent/WatchHub"
import { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { InstanceSchema, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { ConfigProvider, Deferred, Effect, Fiber, Layer, Ref } from "effect"
import { TestClock } from "effect/testing"
import * as Profile from "./Profile.ts"

const { EXITED, RUNNING, STOPPING } = InstanceState

const notFound = new ContainerdError({ operation: "Containers.update", code: "NOT_FOUND", details: "" })

const unavailable = new ContainerdError({ operation: "Tasks.kill", code: "UNAVAILABLE", details: "restarting" })

interface World {
  readonly signals: Array<number>
  /** How many signals containerd refuses. */
  readonly refusals: Ref.Ref<number>
  /** What `reclaim` can't remove, if anything. */
  readonly left: Ref.Ref<LeftBehind | undefined>
}

/** A containerd that does as it is told. */
const layerOf = ({ left, refusals, signals }: World) => {
  const settings = Layer.effect(
    AgentConfig,
    config.parse(ConfigProvider.fromEnv({ env: { POD_NAME: "a", POD_UID: "u", POD_NAMESPACE: "n", FSB_SLOTS: "1" } }))
  ).pipe(Layer.orDie)
  const sandboxes = Layer.mock(SandboxContainer)({
    signal: (_, signal) =>
      Effect.flatMap(
        Ref.getAndUpdate(refusals, (n) => n - 1),
        (n) => n > 0 ? Effect.fail(unavailable) : Effect.sync(() => signals.push(signal))
      ),
    kill: () => Effect.sync(() => signals.push(9)),
    oomKills: () => Effect.succeed(0),
    reclaim: () => Effect.flatMap(Ref.get(left), (error) => error === undefined ? Effect.void : Effect.fail(error)),
    observe: () => Effect.succeed({ status: "running", exitCode: 0, exitedAtMillis: 0 })
  })
  return Endings.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(Instances.layer, Slots.layer, sandboxes)),
    Layer.provide(Layer.mock(SlotFiles)({ parking: undefined, settle: () => Effect.void })),
    Layer.provide(Layer.mock(Containers)({ update: () => Effect.fail(notFound) })),
    Layer.provideMerge(WatchHub.layer),
    Layer.provide(Profile.layer()),
    Layer.provide(settings)
  )
}

/** A running instance with a grace period of 10 s, and what ends it. */
const running = Effect.gen(function*() {
  const instances = yield* Instances
  const endings = yield* Endings
  const slots = yield* Slots
  yield* slots.restore("i", [])
  const entry = instances.add(
    create(InstanceSchema, { instanceId: "i", state: RUNNING, spec: { terminationGracePeriodSeconds: 10 } })
  )
  yield* endings.follow(entry)
  const exit = (exitCode: number) => Deferred.succeed(entry.exit, { exitCode, atMillis: 1 })
  return { entry, exit, endings, used: Effect.map(slots.capacity, ({ slotsUsed }) => slotsUsed) }
})

const withWorld = <A, E>(
  test: (world: World) => Effect.Effect<A, E, Endings | Instances | Slots>
) =>
  Effect.gen(function*() {
    const world = {
      signals: [],
      refusals: yield* Ref.make(0),
      left: yield* Ref.make<LeftBehind | undefined>(undefined)
    }
    yield* test(world).pipe(Effect.provide(layerOf(world), { local: true }))
  })

describe("Endings", () => {
  it.effect("asks first, kills after the grace period, and answers when the slot is back", () =>
    withWorld(({ signals }) =>
      Effect.gen(function*() {
        const { endings, entry, exit, used } = yield* running
        const halt = yield* endings.halt(entry, undefined).pipe(Effect.forkChild({ startImmediately: true }))
        yield* TestClock.adjust("9 seconds")
        assert.deepStrictEqual(signals, [15])
        assert.strictEqual(entry.instance.state, STOPPING)
        yield* TestClock.adjust("1 seconds")
        assert.deepStrictEqual(signals, [15, 9])
        assert.strictEqual(yield* used, 1)
        yield* exit(137)
        yield* Fiber.join(halt)
        assert.strictEqual(yield* used, 0)
        assert.deepStrictEqual([entry.instance.state, entry.instance.reason], [EXITED, "Stopped"])
      })
    ))

  it.effect("lets the shortest grace period win, and signals once", () =>
    withWorld(({ signals }) =>
      Effect.gen(function*() {
        const { endings, entry, exit } = yield* running
        const patient = yield* endings.halt(entry, 3600).pipe(Effect.forkChild({ startImmediately: true }))
        yield* TestClock.adjust("1 seconds")
        const hasty = yield* endings.halt(entry, 1).pipe(Effect.forkChild({ startImmediately: true }))
        yield* TestClock.adjust("1 seconds")
        assert.deepStrictEqual(signals, [15, 9])
        yield* exit(137)
        yield* Fiber.join(hasty)
        yield* Fiber.join(patient)
      })
    ))

  it.effect("keeps the slot as long as something is left, says what, and goes on trying", () =>
    withWorld(({ left }) =>
      Effect.gen(function*() {
        const { endings, entry, exit, used } = yield* running
        yield* Ref.set(left, new LeftBehind({ containerId: "i", what: "task", problem: "busy" }))
        const halt = yield* endings.halt(entry, 0).pipe(Effect.flip, Effect.forkChild({ startImmediately: true }))
        yield* exit(137)
        const error = yield* Fiber.join(halt)
        assert.strictEqual(error._tag, "Unavailable")
        assert.include(error.message, "task of container")
        assert.deepStrictEqual([entry.instance.state, yield* used], [STOPPING, 1])
        assert.include(entry.instance.message, "busy")
        yield* Ref.set(left, undefined)
        yield* TestClock.adjust("10 seconds")
        yield* endings.halt(entry, 0)
        assert.deepStrictEqual([entry.instance.state, yield* used], [EXITED, 0])
      })
    ))

  it.effect("signals again when containerd did not take the signal", () =>
    withWorld(({ refusals, signals }) =>
      Effect.gen(function*() {
        const { endings, entry, exit } = yield* running
        yield* Ref.set(refusals, 2)
        const halt = yield* endings.halt(entry, undefined).pipe(Effect.forkChild({ startImmediately: true }))
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(signals, [15])
        yield* exit(0)
        yield* Fiber.join(halt)
      })
    ))

  it.effect("follows a program that ends by itself", () =>
    withWorld(({ signals }) =>
      Effect.gen(function*() {
        const { entry, exit, used } = yield* running
        yield* exit(3)
        yield* Deferred.await(entry.ended)
        const { exitCode, reason, state } = entry.instance
        assert.deepStrictEqual([state, reason, exitCode, yield* used], [EXITED, "Error", 3, 0])
        assert.deepStrictEqual(signals, [])
      })
    ))
})
