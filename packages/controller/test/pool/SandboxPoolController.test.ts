import { assert, describe, it } from "@effect/vitest"
import * as Names from "@fast-sandbox/core/Names"
import type { SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as KubeError from "@fast-sandbox/kube/KubeError"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import { Effect, Fiber, Layer, type Scope } from "effect"
import { Caches } from "../../src/Caches.ts"
import { Demand } from "../../src/pool/Demand.ts"
import * as SandboxPoolController from "../../src/pool/SandboxPoolController.ts"
import { Registry } from "../../src/registry/Registry.ts"
import * as SandboxController from "../../src/sandbox/SandboxController.ts"
import { feedRegistry } from "../feedRegistry.ts"
import { pass } from "../pass.ts"
import { SimulatedAgents } from "../SimulatedAgents.ts"
import { node } from "../simulatedNode.ts"

const world = Layer.effectDiscard(feedRegistry).pipe(
  Layer.provideMerge(Layer.mergeAll(
    Caches.layer.pipe(Layer.provideMerge(MemoryKube.layer)),
    SimulatedAgents.layer,
    Registry.layer,
    Demand.layer,
    EventRecorder.layerNoop
  ))
)

type World = Layer.Success<typeof world>

const test = (name: string, effect: Effect.Effect<void, unknown, World | Scope.Scope>) =>
  it.effect(name, () => effect.pipe(Effect.provide(Layer.fresh(world))))

const controller = SandboxPoolController.run({ agentImage: "agent:1" })

const ref = { name: "pool", namespace: "default" }

const createPool = (spec: SandboxPoolSpec) =>
  Effect.flatMap(KubeClient, (kube) =>
    kube.create(Kinds.SandboxPool, {
      apiVersion: Names.apiVersion,
      kind: "SandboxPool",
      metadata: ref,
      spec
    }))

const patchPool = (spec: Partial<SandboxPoolSpec>) =>
  Effect.flatMap(KubeClient, (kube) => kube.patch(Kinds.SandboxPool, ref, { type: "merge", body: { spec } }))

const pool = Effect.flatMap(KubeClient, (kube) => kube.get(Kinds.SandboxPool, ref))
const pods = Effect.flatMap(MemoryKube, (memory) => memory.all(Pod))
const writes = Effect.flatMap(MemoryKube, (memory) => memory.writes)

const createSandbox = (name: string) =>
  Effect.flatMap(KubeClient, (kube) =>
    kube.create(Kinds.Sandbox, {
      apiVersion: Names.apiVersion,
      kind: "Sandbox",
      metadata: { name, namespace: "default" },
      spec: { image: "alpine", poolRef: "pool" }
    }))

describe("SandboxPoolController", () => {
  test(
    "makes Pods as they should be, reports, and then writes nothing",
    Effect.gen(function*() {
      yield* node
      yield* Effect.forkScoped(controller)
      yield* createPool({
        capacity: { poolMin: 2 },
        maxSandboxesPerPod: 3,
        warmImages: [{ image: "alpine" }],
        agentTemplate: {
          metadata: { labels: { team: "a" } },
          spec: {
            nodeSelector: { disk: "ssd" },
            containers: [{ name: "agent", env: [{ name: "FSB_NETWORK", value: "mine" }] }]
          }
        }
      })
      yield* pass("5 seconds")
      const [pod] = yield* pods
      assert.strictEqual((yield* pods).length, 2)
      assert.isTrue(pod?.metadata.name.startsWith("pool-agent-"))
      assert.deepStrictEqual(pod?.metadata.labels, { team: "a", app: "sandbox-agent", "fast-sandbox.io/pool": "pool" })
      assert.strictEqual(pod?.metadata.ownerReferences?.[0]?.uid, (yield* pool).metadata.uid)
      assert.deepStrictEqual(pod?.spec.nodeSelector, { disk: "ssd" })
      const env = new Map(pod?.spec.containers[0]?.env?.map(({ name, value }) => [name, value]))
      assert.strictEqual(env.get("FSB_SLOTS"), "3")
      assert.strictEqual(env.get("FSB_NETWORK"), "mine")
      assert.isTrue(env.has("POD_UID"))
      const { status } = yield* pool
      assert.deepInclude({ ...status }, {
        replicas: 2,
        desired: 2,
        ready: 2,
        idle: 2,
        busy: 0,
        slotsUsage: "0/6",
        selector: "app=sandbox-agent,fast-sandbox.io/pool=pool"
      })
      assert.deepStrictEqual(status?.images, [{ image: "alpine", nodes: 2, ready: 0 }])
      assert.isTrue(
        status?.conditions?.every(({ status, type }) => (status === "True") !== (type === "ScalingLimited"))
      )
      const before = (yield* writes).length
      yield* pass("1 hour")
      assert.strictEqual((yield* writes).length, before)
    })
  )

  test(
    "never makes too many, however late its cache is",
    Effect.gen(function*() {
      const memory = yield* MemoryKube
      yield* memory.setGate({
        before: ({ kind, verb }) => kind === "Pod" && verb === "watch" ? Effect.never : Effect.void
      })
      yield* Effect.forkScoped(controller)
      yield* createPool({ capacity: { poolMin: 3 } })
      yield* pass("2 seconds")
      for (let edits = 0; edits < 5; edits++) {
        yield* patchPool({ capacity: { poolMin: 3, bufferMin: edits } })
        yield* pass("2 seconds")
      }
      assert.strictEqual((yield* pods).length, 3)
    })
  )

  test(
    "grows for sandboxes that wait, and for creates that were refused",
    Effect.gen(function*() {
      yield* node
      yield* Effect.forkScoped(SandboxController.run)
      yield* Effect.forkScoped(controller)
      yield* createPool({ maxSandboxesPerPod: 2 })
      yield* pass("2 seconds")
      assert.strictEqual((yield* pods).length, 0)
      yield* (yield* Demand).raise("default/pool")
      yield* pass("2 seconds")
      assert.strictEqual((yield* pods).length, 1)
      yield* Effect.forEach(["a", "b", "c", "d", "e"], createSandbox, { discard: true })
      yield* pass("5 seconds")
      const agents = yield* SimulatedAgents
      assert.strictEqual((yield* agents.live).length, 5)
      assert.strictEqual((yield* pods).length, 3)
      for (const { instanceId } of yield* agents.live) {
        yield* agents.exit(instanceId, { exitCode: 0 })
      }
      yield* pass("10 minutes")
      assert.strictEqual((yield* pods).length, 0, "finished sandboxes are no demand")
    })
  )

  test(
    "keeps an agent that holds a sandbox, and drains before it removes",
    Effect.gen(function*() {
      yield* node
      yield* Effect.forkScoped(SandboxController.run)
      const running = yield* Effect.forkScoped(controller)
      yield* createPool({ capacity: { poolMin: 2 }, maxSandboxesPerPod: 1 })
      yield* pass("2 seconds")
      yield* createSandbox("a")
      yield* pass("2 seconds")
      yield* patchPool({ capacity: { poolMin: 0 } })
      yield* pass("10 minutes")
      assert.strictEqual((yield* pods).length, 1)
      const agents = yield* SimulatedAgents
      assert.strictEqual((yield* agents.live).length, 1)
      yield* Fiber.interrupt(running)
    })
  )

  test(
    "replaces agents of an older template one by one",
    Effect.gen(function*() {
      yield* node
      yield* Effect.forkScoped(controller)
      yield* createPool({ capacity: { poolMin: 2 }, maxSandboxesPerPod: 1 })
      yield* pass("2 seconds")
      const old = new Set((yield* pods).map(({ metadata }) => metadata.uid))
      yield* patchPool({ maxSandboxesPerPod: 2 })
      let most = 0
      for (let round = 0; round < 60; round++) {
        yield* pass("1 seconds")
        most = Math.max(most, (yield* pods).length)
        const { status } = yield* pool
        assert.isTrue((status?.ready ?? 0) >= 2)
      }
      assert.strictEqual(most, 3)
      assert.strictEqual((yield* pods).length, 2)
      assert.isTrue((yield* pods).every(({ metadata }) => !old.has(metadata.uid)))
    })
  )

  test(
    "tells agents what to keep warm, also those that come back, and replaces none for it",
    Effect.gen(function*() {
      yield* node
      yield* Effect.forkScoped(controller)
      yield* createPool({ capacity: { poolMin: 2 }, warmImages: [{ image: "alpine" }] })
      yield* pass("2 seconds")
      const agents = yield* SimulatedAgents
      const warm = Effect.map(agents.views, (views) => views.map(({ warmImages }) => warmImages))
      const before = (yield* pods).map(({ metadata }) => metadata.uid)
      const alpine = [{ image: "docker.io/library/alpine:latest", parked: 0 }]
      assert.deepStrictEqual(yield* warm, [alpine, alpine])
      const [first = ""] = before
      yield* agents.silence(first)
      yield* patchPool({ warmImages: [{ image: "busybox:1", parked: 3 }] })
      yield* pass("2 seconds")
      const busybox = [{ image: "docker.io/library/busybox:1", parked: 3 }]
      assert.deepStrictEqual(yield* warm, [alpine, busybox], "who is silent can't be told")
      yield* agents.wake(first)
      yield* pass("10 seconds")
      assert.deepStrictEqual(yield* warm, [busybox, busybox])
      yield* pass("10 minutes")
      assert.deepStrictEqual((yield* pods).map(({ metadata }) => metadata.uid), before)
    })
  )

  test(
    "says that a quota is in the way, and tries again less and less often",
    Effect.gen(function*() {
      yield* node
      const memory = yield* MemoryKube
      let tries = 0
      const forbidden = new KubeError.KubeError({
        method: "POST",
        path: "/api/v1/pods",
        reason: new KubeError.Forbidden({ problem: "pods is forbidden: exceeded quota: few" })
      })
      yield* memory.setGate({
        before: ({ kind, verb }) => {
          if (kind !== "Pod" || verb !== "create") {
            return Effect.void
          }
          tries += 1
          return Effect.fail(forbidden)
        }
      })
      yield* Effect.forkScoped(controller)
      yield* createPool({ capacity: { poolMin: 3 } })
      yield* pass("5 minutes")
      const created = (yield* pool).status?.conditions?.find(({ type }) => type === "PodsCreated")
      assert.strictEqual(created?.reason, "QuotaExceeded")
      assert.isTrue(tries >= 3 && tries <= 8, `${tries} tries`)
      yield* memory.setGate({})
      yield* pass("6 minutes")
      assert.strictEqual((yield* pods).length, 3)
      assert.strictEqual((yield* pool).status?.conditions?.find(({ type }) => type === "PodsCreated")?.status, "True")
    })
  )

  test(
    "replaces Pods that never come up",
    Effect.gen(function*() {
      yield* Effect.forkScoped(controller)
      yield* createPool({ capacity: { poolMin: 1 } })
      yield* pass("4 minutes")
      const [first] = yield* pods
      yield* pass("2 minutes")
      const [second] = yield* pods
      assert.strictEqual((yield* pods).length, 1)
      assert.notStrictEqual(second?.metadata.uid, first?.metadata.uid)
      const ready = (yield* pool).status?.conditions?.find(({ type }) => type === "Ready")
      assert.strictEqual(ready?.reason, "AgentsNotComingUp")
    })
  )
})
