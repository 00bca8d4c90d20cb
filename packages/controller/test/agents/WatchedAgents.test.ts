import { assert, describe, it } from "@effect/vitest"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { Effect, Fiber, Layer, Option, Stream } from "effect"
import { Agents, NotConnected } from "../../src/agents/Agents.ts"
import { Registry } from "../../src/registry/Registry.ts"
import { controller, eventually, Fleet, world } from "../Fleet.ts"

const claim = (sandboxName: string) => ({ namespace: "default", sandboxName, claimUid: `claim-${sandboxName}` })

const stage = Layer.provideMerge(controller, world)

const run = <A, E>(name: string, test: Effect.Effect<A, E, Agents | Registry | Fleet | KubeClient>) =>
  it.live(name, () => Effect.provide(test, stage))

const synced = (uid: string) =>
  eventually(Effect.gen(function*() {
    const view = yield* Agents.use(({ get }) => get(uid))
    assert.strictEqual(Option.getOrUndefined(view)?.connection, "synced")
    return Option.getOrThrow(view)
  }))

describe("WatchedAgents", () => {
  run(
    "shows an agent as its Pod and its own stream describe it, and offers its slots",
    Effect.scoped(Effect.gen(function*() {
      const fleet = yield* Fleet
      const { options } = yield* fleet.add("one", { slots: 3, images: ["docker.io/library/alpine:latest"] })
      const view = yield* synced(options.uid)
      assert.deepInclude(view, {
        pod: "one",
        namespace: "default",
        pool: "pool",
        node: "node-one",
        slots: 3,
        draining: false
      })
      assert.deepStrictEqual([...view.images.keys()], ["docker.io/library/alpine:latest"])
      assert.deepStrictEqual(
        Option.map(yield* Registry.use(({ usage }) => usage("default", "pool")), ({ free }) => free),
        Option.some(3)
      )
    }))
  )

  run(
    "an instance shows in the view by the time its create is answered, and is gone when its delete is",
    Effect.scoped(Effect.gen(function*() {
      const fleet = yield* Fleet
      const agents = yield* Agents
      const registry = yield* Registry
      const { options: { uid } } = yield* fleet.add("one")
      yield* synced(uid)
      yield* agents.create(uid, { instanceId: "i", claim: claim("x"), spec: { exposedPorts: [80] } })
      const found = yield* agents.findInstance("i")
      assert.strictEqual(Option.getOrUndefined(found)?.instance.state, InstanceState.RUNNING)
      assert.deepStrictEqual(yield* registry.holder("default", "x"), Option.some("i"))
      yield* agents.bind(uid, "i", "resource")
      assert.strictEqual(
        Option.getOrThrow(yield* agents.findInstance("i")).instance.claim?.resourceUid,
        "resource"
      )
      yield* agents.delete(uid, "i")
      assert.isTrue(Option.isNone(yield* agents.findInstance("i")))
      assert.deepStrictEqual(yield* registry.holder("default", "x"), Option.none())
      // Gone already is gone.
      yield* agents.delete(uid, "i")
    }))
  )

  run(
    "a broken stream makes the view stale, calls fail at once, and the agent's return repairs both",
    Effect.scoped(Effect.gen(function*() {
      const fleet = yield* Fleet
      const agents = yield* Agents
      const agent = yield* fleet.add("one")
      const { uid } = agent.options
      yield* synced(uid)
      yield* agents.create(uid, { instanceId: "i", claim: claim("x") })
      yield* agent.disconnect
      const stale = yield* eventually(Effect.gen(function*() {
        const view = Option.getOrThrow(yield* agents.get(uid))
        assert.strictEqual(view.connection, "stale")
        return view
      }))
      assert.isTrue(stale.instances.has("i"), "the last that was known stays")
      assert.deepStrictEqual(
        Option.map(yield* Registry.use(({ usage }) => usage("default", "pool")), ({ free, ready }) => [free, ready]),
        Option.some([0, 0])
      )
      assert.isTrue((yield* Effect.flip(agents.create(uid, { instanceId: "j" }))) instanceof NotConnected)
      yield* agent.exit("i", 3)
      yield* agent.connect
      const back = yield* synced(uid)
      assert.strictEqual(back.instances.get("i")?.exitCode, 3)
    }))
  )

  run(
    "an instance that its agent lost is followed again once it is started anew",
    Effect.scoped(Effect.gen(function*() {
      const fleet = yield* Fleet
      const agents = yield* Agents
      const agent = yield* fleet.add("one")
      const { uid } = agent.options
      yield* synced(uid)
      yield* agents.create(uid, { instanceId: "i", claim: claim("x") })
      yield* agent.disconnect
      yield* agent.lose("i")
      yield* agent.connect
      yield* eventually(Effect.gen(function*() {
        assert.isFalse((yield* synced(uid)).instances.has("i"))
      }))
      yield* agents.create(uid, { instanceId: "i", claim: claim("x") })
      yield* agent.exit("i", 3)
      yield* eventually(Effect.gen(function*() {
        const { instance } = Option.getOrThrow(yield* agents.findInstance("i"))
        assert.strictEqual(instance.exitCode, 3)
      }))
    }))
  )

  run(
    "changes tell what moved, and when an agent is gone",
    Effect.scoped(Effect.gen(function*() {
      const fleet = yield* Fleet
      const agents = yield* Agents
      const agent = yield* fleet.add("one")
      const { uid } = agent.options
      yield* synced(uid)
      const changes = yield* agents.changes.pipe(
        Stream.filter((change) => change._tag !== "AgentChanged"),
        // What changes twice before it is told is told once, so that their number is not known.
        Stream.takeUntil(({ _tag }) => _tag === "AgentGone"),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* agents.create(uid, { instanceId: "i", claim: claim("x") })
      yield* agent.exit("i", 0)
      yield* eventually(Effect.gen(function*() {
        const found = Option.getOrThrow(yield* agents.findInstance("i"))
        assert.strictEqual(found.instance.state, InstanceState.EXITED)
      }))
      yield* fleet.remove(agent)
      const told = yield* Fiber.join(changes)
      assert.deepInclude(told, {
        _tag: "InstanceChanged",
        uid,
        instanceId: "i",
        namespace: "default",
        sandboxName: "x"
      })
      yield* eventually(Effect.gen(function*() {
        assert.isTrue(Option.isNone(yield* agents.get(uid)))
        assert.isTrue(Option.isNone(yield* Registry.use(({ usage }) => usage("default", "pool"))))
      }))
    }))
  )

  run(
    "a Pod that is being drained is offered nothing",
    Effect.scoped(Effect.gen(function*() {
      const fleet = yield* Fleet
      const kube = yield* KubeClient
      const { options: { uid } } = yield* fleet.add("one")
      yield* synced(uid)
      yield* kube.patch(Kinds.Pod, { name: "one", namespace: "default" }, {
        type: "merge",
        body: { metadata: { annotations: { "fast-sandbox.io/drain": "true" } } }
      })
      yield* eventually(Effect.gen(function*() {
        assert.isTrue(Option.getOrThrow(yield* Agents.use(({ get }) => get(uid))).draining)
      }))
      assert.deepStrictEqual(
        Option.map(yield* Registry.use(({ usage }) => usage("default", "pool")), ({ free }) => free),
        Option.some(0)
      )
    }))
  )

  it.live("the first sync waits for every agent to answer or to be tried", () =>
    Effect.gen(function*() {
      const fleet = yield* Fleet
      const up = yield* fleet.add("up")
      const down = yield* fleet.add("down")
      yield* down.disconnect
      yield* Effect.gen(function*() {
        const agents = yield* Agents
        yield* agents.firstSync
        assert.strictEqual(Option.getOrThrow(yield* agents.get(up.options.uid)).connection, "synced")
        assert.strictEqual(Option.getOrThrow(yield* agents.get(down.options.uid)).connection, "connecting")
      }).pipe(Effect.provide(controller))
    }).pipe(Effect.scoped, Effect.provide(world)))
})
