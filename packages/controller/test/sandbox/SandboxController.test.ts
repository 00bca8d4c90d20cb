import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Assignment from "@fast-sandbox/core/Assignment"
import { FailedPrecondition, Unavailable } from "@fast-sandbox/core/Errors"
import * as Instant from "@fast-sandbox/core/Instant"
import * as Names from "@fast-sandbox/core/Names"
import type { Sandbox, SandboxSpec } from "@fast-sandbox/core/Sandbox"
import { InstanceSchema, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import { Clock, Effect, Fiber, Layer, Metric, type Scope } from "effect"
import { Caches } from "../../src/Caches.ts"
import { Registry } from "../../src/registry/Registry.ts"
import * as SandboxController from "../../src/sandbox/SandboxController.ts"
import { feedRegistry } from "../feedRegistry.ts"
import { pass } from "../pass.ts"
import { SimulatedAgents } from "../SimulatedAgents.ts"

const world = Layer.effectDiscard(feedRegistry).pipe(
  Layer.provideMerge(Layer.mergeAll(
    Caches.layer.pipe(Layer.provideMerge(MemoryKube.layer)),
    SimulatedAgents.layer,
    Registry.layer,
    EventRecorder.layerNoop
  ))
)

type World = Layer.Success<typeof world>

const it_ = (name: string, test: Effect.Effect<void, unknown, World | Scope.Scope>) =>
  it.effect(name, () => test.pipe(Effect.provide(Layer.fresh(world))))

/** Time enough for everything that is ready to happen, too short for any timeout. */
const settle = pass("1 second")

const addAgent = Effect.fnUntraced(function*(name: string, slots = 2) {
  const kube = yield* KubeClient
  const agents = yield* SimulatedAgents
  const pod = yield* kube.create(Pod, { metadata: { name, namespace: "default" }, spec: { containers: [] } })
  yield* agents.add({ uid: pod.metadata.uid, pod: name, pool: "pool", slots })
  return pod.metadata.uid
})

/** The Pod and all that ran in it. */
const killAgent = Effect.fnUntraced(function*(name: string, uid: string) {
  const kube = yield* KubeClient
  yield* kube.delete(Pod, { name, namespace: "default" })
  yield* (yield* SimulatedAgents).remove(uid)
})

const prepare = Effect.gen(function*() {
  const kube = yield* KubeClient
  yield* kube.create(Kinds.SandboxPool, { metadata: { name: "pool", namespace: "default" }, spec: {} })
  return yield* addAgent("agent-a")
})

const ref = { name: "s", namespace: "default" }

const createSandbox = Effect.fnUntraced(function*(spec: Partial<SandboxSpec> = {}, metadata: Sandbox["metadata"] = {}) {
  const kube = yield* KubeClient
  return yield* kube.create(Kinds.Sandbox, {
    apiVersion: Names.apiVersion,
    kind: "Sandbox",
    metadata: { ...ref, ...metadata },
    spec: { image: "alpine", poolRef: "pool", ...spec }
  })
})

const getSandbox = Effect.flatMap(KubeClient, (kube) => kube.get(Kinds.Sandbox, ref))

const change = (spec: Partial<SandboxSpec>) =>
  Effect.flatMap(KubeClient, (kube) => kube.patch(Kinds.Sandbox, ref, { type: "merge", body: { spec } }))

const sandboxWrites = Effect.map(
  Effect.flatMap(MemoryKube, (memory) => memory.writes),
  (writes) => writes.filter(({ kind, verb }) => kind === "Sandbox" && verb !== "create" && verb !== "delete")
)

const running = Effect.gen(function*() {
  const uid = yield* prepare
  const controller = yield* Effect.forkScoped(SandboxController.run)
  yield* createSandbox()
  yield* settle
  return { uid, controller }
})

describe("SandboxController", () => {
  it_(
    "starts a declared sandbox with three writes, keeps quiet, and removes it with one more",
    Effect.gen(function*() {
      yield* running
      const sandbox = yield* getSandbox
      assert.strictEqual(sandbox.status?.phase, "Running")
      assert.deepStrictEqual(sandbox.metadata.finalizers, [Names.finalizer])
      const agents = yield* SimulatedAgents
      assert.deepStrictEqual((yield* agents.calls).map(({ verb }) => verb), ["create"])
      assert.deepStrictEqual((yield* sandboxWrites).map(({ verb }) => verb), ["patch", "updateStatus", "updateStatus"])
      yield* pass("1 hour")
      assert.strictEqual((yield* sandboxWrites).length, 3)
      yield* (yield* KubeClient).delete(Kinds.Sandbox, ref)
      yield* settle
      assert.strictEqual((yield* Effect.flip(getSandbox)).reason._tag, "NotFound")
      assert.strictEqual((yield* sandboxWrites).length, 4)
      assert.strictEqual((yield* agents.instances).length, 0)
    })
  )

  it_(
    "waits for a pool and for room, and heals by itself",
    Effect.gen(function*() {
      yield* Effect.forkScoped(SandboxController.run)
      yield* (yield* Registry).removePool("default", "pool")
      yield* createSandbox()
      yield* settle
      const reason = Effect.map(
        getSandbox,
        ({ status }) => status?.conditions?.find(({ type }) => type === "Scheduled")?.reason
      )
      assert.strictEqual(yield* reason, "PoolNotFound")
      yield* (yield* Registry).addPool("default", "pool")
      yield* (yield* KubeClient).create(Kinds.SandboxPool, {
        metadata: { name: "pool", namespace: "default" },
        spec: {}
      })
      yield* settle
      assert.strictEqual(yield* reason, "NoCapacity")
      const before = (yield* sandboxWrites).length
      yield* pass("10 minutes")
      assert.strictEqual((yield* sandboxWrites).length, before)
      yield* addAgent("agent-a")
      yield* settle
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
    })
  )

  it_(
    "gives 3 slots to 3 of 10 sandboxes, and a freed one to the next",
    Effect.gen(function*() {
      yield* prepare
      yield* addAgent("agent-b", 1)
      yield* Effect.forkScoped(SandboxController.run)
      for (let index = 0; index < 10; index++) {
        yield* createSandbox({}, { name: `s${index}` })
      }
      yield* settle
      const agents = yield* SimulatedAgents
      const phases = Effect.map(
        Effect.flatMap(KubeClient, (kube) => kube.list(Kinds.Sandbox)),
        ({ items }) => items.map(({ status }) => status?.phase)
      )
      assert.strictEqual((yield* phases).filter((phase) => phase === "Running").length, 3)
      assert.strictEqual((yield* phases).filter((phase) => phase === "Pending").length, 7)
      const [first] = yield* agents.live
      yield* agents.exit(first?.instanceId ?? "", { exitCode: 0 })
      yield* settle
      assert.strictEqual((yield* phases).filter((phase) => phase === "Succeeded").length, 1)
      assert.strictEqual((yield* agents.live).length, 3)
      assert.strictEqual((yield* phases).filter((phase) => phase === "Running").length, 3)
    })
  )

  it_(
    "goes to the next agent when one refuses, and fails when the agent says it never will",
    Effect.gen(function*() {
      yield* prepare
      yield* addAgent("agent-b", 1)
      const agents = yield* SimulatedAgents
      let refused = ""
      yield* agents.setGate({
        before: ({ uid, verb }) => {
          if (verb !== "create" || refused !== "") {
            return Effect.void
          }
          refused = uid
          return agents.drain(uid)
        }
      })
      yield* Effect.forkScoped(SandboxController.run)
      yield* createSandbox()
      yield* settle
      const { status } = yield* getSandbox
      assert.strictEqual(status?.phase, "Running")
      assert.notStrictEqual(status?.assignedPodUID, refused)
      assert.isUndefined(status?.restarts)
      yield* agents.setGate({
        before: ({ verb }) =>
          verb === "create"
            ? Effect.fail(new FailedPrecondition({ reason: "ImageNotPresent", problem: "pull it first" }))
            : Effect.void
      })
      yield* addAgent("agent-c")
      yield* createSandbox({}, { name: "t" })
      yield* settle
      const failed = yield* (yield* KubeClient).get(Kinds.Sandbox, { name: "t", namespace: "default" })
      assert.strictEqual(failed.status?.phase, "Failed")
      assert.strictEqual(failed.status?.reason, "ImageNotPresent")
    })
  )

  it_(
    "repeats a start whose answer was lost, with the same instance",
    Effect.gen(function*() {
      yield* prepare
      const agents = yield* SimulatedAgents
      let lost = 0
      yield* agents.setGate({
        after: ({ verb }) =>
          verb === "create" && lost++ === 0
            ? Effect.fail(new Unavailable({ target: "agent", problem: "connection reset" }))
            : Effect.void
      })
      yield* Effect.forkScoped(SandboxController.run)
      yield* createSandbox()
      yield* pass("10 seconds")
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
      assert.strictEqual((yield* agents.instances).length, 1)
    })
  )

  it_(
    "resets: another instance, the revision accepted, the old one gone",
    Effect.gen(function*() {
      yield* running
      const first = (yield* getSandbox).status?.sandboxID
      yield* change({ resetRevision: "2026-01-01T00:00:00Z" })
      yield* change({ resetRevision: "2026-01-01T00:00:00.1Z" })
      yield* settle
      const { status } = yield* getSandbox
      assert.strictEqual(status?.phase, "Running")
      assert.notStrictEqual(status?.sandboxID, first)
      assert.strictEqual(status?.acceptedResetRevision, "2026-01-01T00:00:00.1Z")
      const agents = yield* SimulatedAgents
      assert.deepStrictEqual((yield* agents.instances).map(({ instanceId }) => instanceId), [status?.sandboxID])
    })
  )

  it_(
    "expires on time, frees the slot, and revives",
    Effect.gen(function*() {
      const now = yield* Clock.currentTimeMillis
      yield* prepare
      yield* Effect.forkScoped(SandboxController.run)
      yield* createSandbox({ expireTime: Instant.format(now + 2000) })
      yield* pass("1999 millis")
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
      yield* pass("1 millis")
      yield* settle
      const agents = yield* SimulatedAgents
      assert.strictEqual((yield* getSandbox).status?.phase, "Expired")
      assert.strictEqual((yield* agents.live).length, 0)
      yield* change({ expireTime: Instant.format(now + 3_600_000), resetRevision: "2026-01-01T00:00:00Z" })
      yield* settle
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
      yield* pass("1 hour")
      assert.strictEqual((yield* getSandbox).status?.phase, "Expired")
    })
  )

  it_(
    "expires what waits for room",
    Effect.gen(function*() {
      const now = yield* Clock.currentTimeMillis
      yield* Effect.forkScoped(SandboxController.run)
      yield* createSandbox({ expireTime: Instant.format(now + 5000) })
      yield* settle
      assert.strictEqual((yield* getSandbox).status?.phase, "Pending")
      yield* pass("5 seconds")
      assert.strictEqual((yield* getSandbox).status?.phase, "Expired")
    })
  )

  it_(
    "recreates after the loss of an agent, at most one at a time, and deletes what returns",
    Effect.gen(function*() {
      const uid = yield* prepare
      yield* Effect.forkScoped(SandboxController.run)
      yield* createSandbox({ failurePolicy: "AutoRecreate", recoveryTimeoutSeconds: 30 })
      yield* settle
      const first = (yield* getSandbox).status?.sandboxID
      yield* addAgent("agent-b")
      const agents = yield* SimulatedAgents
      yield* agents.silence(uid)
      yield* pass("20 seconds")
      assert.strictEqual((yield* getSandbox).status?.sandboxID, first)
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
      yield* pass("15 seconds")
      const { status } = yield* getSandbox
      assert.strictEqual(status?.phase, "Running")
      assert.strictEqual(status?.restarts, 1)
      assert.notStrictEqual(status?.sandboxID, first)
      assert.strictEqual((yield* agents.live).length, 2, "the old one still runs where nobody reaches it")
      yield* agents.wake(uid)
      yield* settle
      assert.deepStrictEqual((yield* agents.instances).map(({ instanceId }) => instanceId), [status?.sandboxID])
    })
  )

  it_(
    "stays Lost with the Manual policy, until a reset",
    Effect.gen(function*() {
      const { uid } = yield* running
      yield* killAgent("agent-a", uid)
      yield* addAgent("agent-b")
      yield* pass("10 minutes")
      assert.strictEqual((yield* getSandbox).status?.phase, "Lost")
      yield* change({ resetRevision: "2026-01-01T00:00:00Z" })
      yield* settle
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
    })
  )

  it_(
    "does not believe its cache alone that an agent's Pod is gone",
    Effect.gen(function*() {
      const { uid } = yield* running
      yield* (yield* SimulatedAgents).remove(uid)
      yield* pass("10 minutes")
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
    })
  )

  it_(
    "paces recoveries of a program that fails, over a restart of the controller",
    Effect.gen(function*() {
      yield* prepare
      const controller = yield* Effect.forkScoped(SandboxController.run)
      yield* createSandbox({ failurePolicy: "AutoRecreate" })
      yield* settle
      const agents = yield* SimulatedAgents
      for (let attempt = 1; attempt <= 3; attempt++) {
        const [live] = yield* agents.live
        yield* agents.exit(live?.instanceId ?? "", { exitCode: 1 })
        yield* pass("100 millis")
        const { status } = yield* getSandbox
        assert.strictEqual(status?.phase, "Failed")
        assert.strictEqual(status?.recovery?.attempt, attempt)
        if (attempt === 2) {
          yield* Fiber.interrupt(controller)
          yield* Effect.forkScoped(SandboxController.run)
        }
        yield* pass("6 seconds")
        assert.strictEqual((yield* agents.live).length, 1)
        assert.strictEqual((yield* getSandbox).status?.restarts, attempt)
      }
      const counted = (yield* Metric.snapshot).filter(({ id }) => id === "fsb_sandbox_recoveries_total")
      assert.include(counted.map(({ attributes }) => attributes?.["outcome"]), "scheduled")
    })
  )

  it_(
    "leaves a fresh creator alone, then does its work",
    Effect.gen(function*() {
      const uid = yield* prepare
      yield* Effect.forkScoped(SandboxController.run)
      const assignment = Assignment.encode({ instanceId: "mine", pod: "agent-a", podUid: uid, node: "n" })
      yield* createSandbox({}, { annotations: { [Names.assignmentAnnotation]: assignment } })
      yield* pass("14 seconds")
      const agents = yield* SimulatedAgents
      assert.strictEqual((yield* agents.instances).length, 0)
      assert.isUndefined((yield* getSandbox).status)
      yield* pass("2 seconds")
      assert.strictEqual((yield* getSandbox).status?.phase, "Running")
      assert.notStrictEqual((yield* getSandbox).status?.sandboxID, "mine")
    })
  )

  it_(
    "takes over a fast create: projects at once, binds after the grace period",
    Effect.gen(function*() {
      const uid = yield* prepare
      yield* Effect.forkScoped(SandboxController.run)
      const agents = yield* SimulatedAgents
      yield* agents.plant(
        uid,
        create(InstanceSchema, {
          instanceId: "mine",
          claim: { namespace: "default", sandboxName: "s", claimUid: "c1" },
          state: InstanceState.RUNNING
        })
      )
      yield* settle
      assert.strictEqual((yield* agents.instances).length, 1, "unbound instances are the adopter's")
      const assignment = Assignment.encode({ instanceId: "mine", pod: "agent-a", podUid: uid, node: "n" })
      yield* createSandbox({}, {
        annotations: { [Names.assignmentAnnotation]: assignment, [Names.claimUidAnnotation]: "c1" }
      })
      yield* settle
      assert.strictEqual((yield* getSandbox).status?.sandboxID, "mine")
      yield* pass("16 seconds")
      const [instance] = yield* agents.instances
      assert.strictEqual(instance?.claim?.resourceUid, (yield* getSandbox).metadata.uid)
    })
  )

  it_(
    "deletes bound instances of resources that are gone, and asks the API first",
    Effect.gen(function*() {
      const uid = yield* prepare
      const agents = yield* SimulatedAgents
      const memory = yield* MemoryKube
      const plant = (id: string, resourceUid: string) =>
        agents.plant(
          uid,
          create(InstanceSchema, {
            instanceId: id,
            claim: { namespace: "default", sandboxName: "gone", claimUid: "c", resourceUid },
            state: InstanceState.RUNNING
          })
        )
      yield* plant("orphan", "old-uid")
      yield* plant("unbound", "")
      let blocked = true
      yield* memory.setGate({
        before: ({ kind, verb }) => blocked && kind === "Sandbox" && verb === "get" ? Effect.never : Effect.void
      })
      yield* Effect.forkScoped(SandboxController.run)
      yield* settle
      assert.strictEqual((yield* agents.instances).length, 2)
      blocked = false
      yield* memory.setGate({})
      yield* agents.silence(uid)
      yield* agents.wake(uid)
      yield* settle
      assert.strictEqual((yield* agents.instances).length, 2, "the first question has no answer yet")
    })
  )

  it_(
    "deletes bound instances of resources that are gone",
    Effect.gen(function*() {
      const uid = yield* prepare
      const agents = yield* SimulatedAgents
      yield* agents.plant(
        uid,
        create(InstanceSchema, {
          instanceId: "orphan",
          claim: { namespace: "default", sandboxName: "gone", claimUid: "c", resourceUid: "old-uid" },
          state: InstanceState.RUNNING
        })
      )
      yield* Effect.forkScoped(SandboxController.run)
      yield* settle
      assert.strictEqual((yield* agents.instances).length, 0)
    })
  )

  it_(
    "a hand-edited status does no harm",
    Effect.gen(function*() {
      yield* running
      const kube = yield* KubeClient
      const first = (yield* getSandbox).status
      for (const phase of ["Succeeded", "Failed", "Scheduled", "Stopping"] as const) {
        yield* kube.patchStatus(Kinds.Sandbox, ref, { type: "merge", body: { status: { phase } } })
        yield* settle
        assert.strictEqual((yield* getSandbox).status?.phase, "Running", phase)
        assert.strictEqual((yield* getSandbox).status?.sandboxID, first?.sandboxID, phase)
      }
      yield* kube.patchStatus(Kinds.Sandbox, ref, { type: "merge", body: { status: null } })
      yield* settle
      assert.strictEqual((yield* getSandbox).status?.sandboxID, first?.sandboxID)
      yield* kube.patch(Kinds.Sandbox, ref, { type: "merge", body: { metadata: { finalizers: null } } })
      yield* settle
      assert.deepStrictEqual((yield* getSandbox).metadata.finalizers, [Names.finalizer])
    })
  )

  it_(
    "a delete during a create wins",
    Effect.gen(function*() {
      yield* prepare
      const agents = yield* SimulatedAgents
      yield* agents.setGate({ before: ({ verb }) => verb === "create" ? Effect.never : Effect.void })
      yield* Effect.forkScoped(SandboxController.run)
      yield* createSandbox()
      yield* settle
      assert.strictEqual((yield* getSandbox).status?.phase, "Scheduled")
      yield* (yield* KubeClient).delete(Kinds.Sandbox, ref)
      yield* settle
      assert.strictEqual((yield* Effect.flip(getSandbox)).reason._tag, "NotFound")
      assert.strictEqual((yield* agents.instances).length, 0)
      const usage = yield* (yield* Registry).usage("default", "pool")
      assert.strictEqual(usage._tag === "Some" ? usage.value.free : 0, 2, "the reservation came back")
    })
  )

  it_(
    "waits with the deletion for a silent agent, unless forced",
    Effect.gen(function*() {
      const { uid } = yield* running
      const agents = yield* SimulatedAgents
      const kube = yield* KubeClient
      yield* agents.silence(uid)
      yield* kube.delete(Kinds.Sandbox, ref)
      yield* pass("1 hour")
      assert.strictEqual((yield* getSandbox).status?.phase, "Deleting")
      yield* kube.patch(Kinds.Sandbox, ref, {
        type: "merge",
        body: { metadata: { annotations: { [Names.forceDeleteAnnotation]: "true" } } }
      })
      yield* settle
      assert.strictEqual((yield* Effect.flip(getSandbox)).reason._tag, "NotFound")
      assert.strictEqual((yield* agents.live).length, 1)
      yield* agents.wake(uid)
      yield* settle
      assert.strictEqual((yield* agents.live).length, 0, "an orphan is deleted when its agent returns")
    })
  )
})
