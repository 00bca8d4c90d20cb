import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { InstanceState, ParkedImageSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { Effect, Exit, Option, Result, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { AgentView } from "../../src/agents/Agents.ts"
import { make, type Reservation, type ReserveRequest } from "../../src/registry/Registry.ts"
import { images, instances, type Shown, view } from "./views.ts"

const request = (name: string, fields: Partial<ReserveRequest> = {}): ReserveRequest => ({
  instanceId: `i-${name}`,
  namespace: "default",
  name,
  pool: "pool",
  image: "alpine",
  ports: [],
  ...fields
})

const filled = Effect.fnUntraced(function*(...views: ReadonlyArray<AgentView>) {
  const registry = yield* make
  yield* Effect.forEach(views, registry.upsertAgent, { discard: true })
  return registry
})

describe("Registry: which agent", () => {
  it.effect("a present image beats free slots, free slots beat age", () =>
    Effect.gen(function*() {
      const registry = yield* filled(
        view("a", { slots: 2 }),
        view("b", { slots: 9 }),
        view("c", { slots: 1, images: images("docker.io/library/alpine:latest") }),
        view("d", { slots: 9 })
      )
      const picks: Array<string> = []
      for (const name of ["1", "2", "3", "4"]) {
        picks.push((yield* registry.reserve(request(name))).agent.uid)
      }
      assert.deepStrictEqual(picks, ["c", "b", "d", "b"])
    }))

  it.effect("a parked slot of the image beats a present image, as long as one is left", () =>
    Effect.gen(function*() {
      const image = "docker.io/library/alpine:latest"
      const holding = { images: images(image), slots: 9 }
      const parked = (ready: number) => new Map([[image, create(ParkedImageSchema, { image, ready })]])
      const registry = yield* filled(
        view("a", holding),
        view("b", { ...holding, slots: 3, parked: parked(1) }),
        view("c", { ...holding, slots: 2, parked: parked(0) }),
        view("d", { slots: 9, parked: new Map([["x", create(ParkedImageSchema, { image: "x", ready: 1 })]]) })
      )
      assert.strictEqual((yield* registry.reserve(request("1"))).agent.uid, "b")
      assert.strictEqual((yield* registry.reserve(request("2", { ports: [1] }))).agent.uid, "b")
      assert.strictEqual((yield* registry.reserve(request("3", { ports: [1] }))).agent.uid, "a", "its port is taken")
      yield* registry.upsertAgent(view("b", { ...holding, slots: 3, slotsUsed: 1, parked: parked(0) }))
      assert.strictEqual((yield* registry.reserve(request("4"))).agent.uid, "a")
      yield* registry.upsertAgent(view("c", { ...holding, slots: 2, parked: parked(2) }))
      assert.strictEqual((yield* registry.reserve(request("5"))).agent.uid, "c")
    }))

  it.effect("an image is found under each of its spellings and by its digest", () =>
    Effect.gen(function*() {
      const registry = yield* filled(
        view("a", { slots: 9 }),
        view("b", { slots: 4, images: images("docker.io/library/alpine:latest") })
      )
      for (const image of ["alpine", "docker.io/library/alpine", "alpine:latest", `alpine@sha256:${"a".repeat(64)}`]) {
        assert.strictEqual((yield* registry.reserve(request(image, { image }))).agent.uid, "b", image)
      }
    }))

  it.effect("an image that is gone attracts nobody, one that came does", () =>
    Effect.gen(function*() {
      const registry = yield* filled(
        view("a", { slots: 3, images: images("docker.io/library/alpine:latest") }),
        view("b", { slots: 9 })
      )
      yield* registry.upsertAgent(view("a", { slots: 3 }))
      assert.strictEqual((yield* registry.reserve(request("1"))).agent.uid, "b")
      yield* registry.upsertAgent(view("a", { slots: 3, images: images("docker.io/library/alpine:latest") }))
      assert.strictEqual((yield* registry.reserve(request("2"))).agent.uid, "a")
    }))

  it.effect("the same port goes to two agents, then is refused by name", () =>
    Effect.gen(function*() {
      const registry = yield* filled(view("a", { slots: 5 }), view("b", { slots: 5, portsUsed: new Set([9090]) }))
      const first = yield* registry.reserve(request("1", { ports: [8080] }))
      const second = yield* registry.reserve(request("2", { ports: [8080] }))
      assert.notStrictEqual(first.agent.uid, second.agent.uid)
      const error = yield* Effect.flip(registry.reserve(request("3", { ports: [8080] })))
      assert(error._tag === "ResourceExhausted")
      assert.strictEqual(error.resource, "port 8080")
      assert.include(error.message, "pool default/pool")
      assert.isAbove(error.retryAfterMillis, 0)
      assert.strictEqual((yield* registry.reserve(request("4", { ports: [9090] }))).agent.uid, "a")
    }))

  it.effect("refusers, drained and silent agents are left out; other namespaces are not there", () =>
    Effect.gen(function*() {
      const registry = yield* filled(
        view("draining", { slots: 9, draining: true }),
        view("stale", { slots: 9, connection: "stale" }),
        view("other", { slots: 9, namespace: "elsewhere" }),
        view("refuser", { slots: 9 }),
        view("last", { slots: 1 })
      )
      const excluding = new Set(["refuser"])
      assert.strictEqual((yield* registry.reserve(request("1", { excluding }))).agent.uid, "last")
      const error = yield* Effect.flip(registry.reserve(request("2", { excluding })))
      assert.strictEqual(error._tag, "ResourceExhausted")
      const missing = yield* Effect.flip(registry.reserve(request("3", { namespace: "empty" })))
      assert.deepInclude({ ...missing }, { _tag: "NotFound", kind: "pool", name: "empty/pool" })
    }))

  it.effect("a pool without agents is known, not missing", () =>
    Effect.gen(function*() {
      const registry = yield* filled()
      yield* registry.addPool("default", "pool")
      const error = yield* Effect.flip(registry.reserve(request("1")))
      assert(error._tag === "ResourceExhausted")
      assert.include(error.message, "no agent that answers")
      yield* registry.removePool("default", "pool")
      assert.strictEqual((yield* Effect.flip(registry.reserve(request("1"))))._tag, "NotFound")
    }))
})

describe("Registry: names", () => {
  it.effect("a live name is refused until its instance has ended", () =>
    Effect.gen(function*() {
      const registry = yield* filled(view("a", { slots: 5 }))
      yield* Effect.scoped(Effect.gen(function*() {
        const reservation = yield* registry.reserve(request("x"))
        assert.strictEqual(
          (yield* Effect.flip(registry.reserve(request("x", { instanceId: "other" }))))._tag,
          "AlreadyExists"
        )
        yield* registry.confirm(reservation)
      }))
      assert.deepStrictEqual(yield* registry.holder("default", "x"), Option.some("i-x"))
      const shown: Shown = { id: "i-x", name: "x" }
      yield* registry.upsertAgent(view("a", { slots: 5, slotsUsed: 1, instances: instances([shown]) }))
      assert.strictEqual(
        (yield* Effect.flip(registry.reserve(request("x", { instanceId: "other" }))))._tag,
        "AlreadyExists"
      )
      yield* registry.upsertAgent(
        view("a", { slots: 5, instances: instances([{ ...shown, state: InstanceState.EXITED }]) })
      )
      yield* registry.reserve(request("x", { instanceId: "other" }))
    }))

  it.effect("a successor takes the name over, and keeps it when its predecessor goes", () =>
    Effect.gen(function*() {
      const registry = yield* filled(
        view("a", { slots: 5, slotsUsed: 1, instances: instances([{ id: "old", name: "x" }]) }),
        view("b", { slots: 9 })
      )
      yield* registry.reserve(request("x", { instanceId: "new", replacing: "old" }))
      yield* registry.upsertAgent(view("a", { slots: 5 }))
      assert.deepStrictEqual(yield* registry.holder("default", "x"), Option.some("new"))
    }))

  it.effect("a name comes back with its scope, whatever became of the agent meanwhile", () =>
    Effect.gen(function*() {
      for (const meanwhile of ["stays", "goes", "comes back"] as const) {
        const registry = yield* filled(view("a", { slots: 1 }))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* registry.reserve(request("x"))
          if (meanwhile !== "stays") {
            yield* registry.removeAgent("a")
          }
          if (meanwhile === "comes back") {
            yield* registry.upsertAgent(view("a", { slots: 1 }))
          }
        }))
        assert.deepStrictEqual(yield* registry.holder("default", "x"), Option.none(), meanwhile)
      }
    }))

  it.effect("the end of an agent frees the names that ran there", () =>
    Effect.gen(function*() {
      const registry = yield* filled(
        view("a", { slots: 2, slotsUsed: 1, instances: instances([{ id: "one", name: "x" }]) })
      )
      yield* Effect.scoped(Effect.flatMap(registry.reserve(request("y")), registry.confirm))
      yield* registry.removeAgent("a")
      assert.deepStrictEqual(yield* registry.holder("default", "x"), Option.none())
      assert.deepStrictEqual(yield* registry.holder("default", "y"), Option.none())
    }))

  it.effect("a confirmed instance that its agent never shows is given up after a while", () =>
    Effect.gen(function*() {
      const registry = yield* filled(view("a", { slots: 1 }))
      yield* Effect.scoped(Effect.flatMap(registry.reserve(request("x")), registry.confirm))
      yield* registry.upsertAgent(view("a", { slots: 1 }))
      assert.strictEqual((yield* Effect.flip(registry.reserve(request("y"))))._tag, "ResourceExhausted")
      yield* TestClock.adjust("10 seconds")
      yield* registry.upsertAgent(view("a", { slots: 1 }))
      yield* registry.reserve(request("y"))
      assert.deepStrictEqual(yield* registry.holder("default", "x"), Option.none())
    }))
})

describe("Registry: under contention", () => {
  it.effect("40 concurrent creates on 3 slots give exactly 3, and leave nothing behind", () =>
    Effect.gen(function*() {
      const registry = yield* filled(view("a"), view("b"), view("c"))
      const scope = yield* Scope.make()
      const results = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => `s${index}`),
        (name) =>
          Effect.gen(function*() {
            yield* Effect.yieldNow
            return yield* registry.reserve(request(name))
          }).pipe(Scope.provide(scope), Effect.result),
        { concurrency: "unbounded" }
      )
      const won = results.filter(Result.isSuccess)
      assert.strictEqual(won.length, 3)
      assert.strictEqual(new Set(won.map(({ success }) => success.agent.uid)).size, 3)
      assert.isTrue(results.filter(Result.isFailure).every(({ failure }) => failure._tag === "ResourceExhausted"))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* registry.usage("default", "pool"), Option.some({ ready: 3, slots: 3, free: 3 }))
    }))

  it.effect("one of many creates of one name wins", () =>
    Effect.gen(function*() {
      const registry = yield* filled(view("a", { slots: 50 }))
      const results = yield* Effect.forEach(
        Array.from({ length: 30 }, (_, index) => `i${index}`),
        (instanceId) =>
          Effect.andThen(Effect.yieldNow, registry.reserve(request("same", { instanceId }))).pipe(Effect.result),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(results.filter(Result.isSuccess).length, 1)
      assert.deepStrictEqual(Option.map(yield* registry.usage("default", "pool"), ({ free }) => free), Option.some(49))
    }))
})

const small = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))

const Command = Schema.Struct({
  what: Schema.Literals(["reserve", "reserve", "confirm", "release", "show", "end", "silence", "drop"]),
  agent: small(2),
  name: small(5),
  port: small(3)
})

/** What the agents really run: the model that the Registry's promises are held against. */
interface Running {
  readonly reservation: Reservation
  readonly name: string
  readonly ports: ReadonlyArray<number>
  readonly scope: Scope.Closeable
  confirmed: boolean
  shown: boolean
}

describe("Registry: invariants", () => {
  const slots = 2
  it.effect.prop(
    "no interleaving oversells a slot or a port, or holds a name twice",
    [Schema.Array(Command).check(Schema.isMaxLength(60))],
    ([commands]) =>
      Effect.gen(function*() {
        const registry = yield* make
        let running: Array<Running> = []
        let made = 0
        const uids = ["a", "b", "c"]
        const on = (uid: string) => running.filter(({ reservation }) => reservation.agent.uid === uid)
        const show = (uid: string, connection: AgentView["connection"]) => {
          for (const one of on(uid)) {
            one.shown = one.shown || one.confirmed
          }
          const shown = on(uid).filter(({ shown }) => shown)
          return registry.upsertAgent(view(uid, {
            slots,
            connection,
            slotsUsed: shown.length,
            portsUsed: new Set(shown.flatMap(({ ports }) => ports)),
            instances: instances(
              shown.map(({ name, ports, reservation }) => ({ id: reservation.instanceId, name, ports }))
            )
          }))
        }
        yield* Effect.forEach(uids, (uid) => show(uid, "synced"), { discard: true })
        for (const command of commands) {
          const uid = uids[command.agent] ?? "a"
          const name = `n${command.name}`
          const mine = running.find((one) => one.name === name)
          switch (command.what) {
            case "reserve": {
              const scope = yield* Scope.make()
              const ports = command.port === 0 ? [] : [8000 + command.port]
              const result = yield* registry.reserve(request(name, { instanceId: `i${made++}`, ports })).pipe(
                Scope.provide(scope),
                Effect.result
              )
              if (Result.isSuccess(result)) {
                assert.isUndefined(mine, "a live name was given again")
                running.push({ reservation: result.success, name, ports, scope, confirmed: false, shown: false })
              } else if (mine !== undefined) {
                assert.strictEqual(result.failure._tag, "AlreadyExists")
              }
              break
            }
            case "confirm":
              if (mine !== undefined) {
                yield* registry.confirm(mine.reservation)
                mine.confirmed = true
              }
              break
            case "release":
              if (mine !== undefined) {
                yield* Scope.close(mine.scope, Exit.void)
                running = running.filter((one) => one !== mine || one.confirmed)
              }
              break
            case "show":
              yield* show(uid, "synced")
              break
            case "silence":
              yield* show(uid, "stale")
              break
            case "end":
              if (mine?.shown === true) {
                running = running.filter((one) => one !== mine)
                yield* show(mine.reservation.agent.uid, "synced")
              }
              break
            case "drop":
              yield* registry.removeAgent(uid)
              running = running.filter((one) => one.reservation.agent.uid !== uid || !one.confirmed)
              // What is being created there ends without its agent.
              for (const one of on(uid)) {
                yield* Scope.close(one.scope, Exit.void)
              }
              running = running.filter((one) => one.reservation.agent.uid !== uid)
              yield* show(uid, "synced")
              break
          }
          for (const uid of uids) {
            const ports = on(uid).flatMap(({ ports }) => ports)
            assert.isAtMost(on(uid).length, slots, `agent ${uid} was oversold`)
            assert.strictEqual(new Set(ports).size, ports.length, `a port of agent ${uid} was given twice`)
          }
          assert.strictEqual(new Set(running.map(({ name }) => name)).size, running.length)
          for (const one of running) {
            assert.deepStrictEqual(
              yield* registry.holder("default", one.name),
              Option.some(one.reservation.instanceId)
            )
          }
        }
        // Nothing is left when everything has ended.
        for (const one of running) {
          yield* Scope.close(one.scope, Exit.void)
        }
        running = []
        yield* Effect.forEach(uids, (uid) => show(uid, "synced"), { discard: true })
        yield* TestClock.adjust("10 seconds")
        yield* Effect.forEach(uids, (uid) => show(uid, "synced"), { discard: true })
        assert.deepStrictEqual(
          yield* registry.usage("default", "pool"),
          Option.some({ ready: 3, slots: 3 * slots, free: 3 * slots })
        )
        assert.deepStrictEqual(
          yield* Effect.forEach([0, 1, 2, 3, 4, 5], (n) => registry.holder("default", `n${n}`)),
          Array.from({ length: 6 }, () => Option.none())
        )
      }),
    { arbitrary: { runs: 300 } }
  )
})
