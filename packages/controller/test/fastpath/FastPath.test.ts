import { create } from "@bufbuild/protobuf"
import type { MessageInitShape } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as Assignment from "@fast-sandbox/core/Assignment"
import { ResourceExhausted, Unavailable } from "@fast-sandbox/core/Errors"
import { claimUidAnnotation, finalizer, requestIdAnnotation } from "@fast-sandbox/core/Names"
import {
  ConsistencyMode,
  CreateRequestSchema,
  LogsRequestSchema,
  UpdateRequestSchema
} from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { GrpcCaller, GrpcPeerAddress } from "@fast-sandbox/grpc/GrpcCaller"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as KubeError from "@fast-sandbox/kube/KubeError"
import { type Call, MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import type { SimulatedAgent } from "@fast-sandbox/testkit/SimulatedAgent"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, Option, References, Result, type Scope, Stream } from "effect"
import { Agents } from "../../src/agents/Agents.ts"
import { Caches } from "../../src/Caches.ts"
import * as Audit from "../../src/fastpath/Audit.ts"
import { Directory } from "../../src/fastpath/Directory.ts"
import { FastPath } from "../../src/fastpath/FastPath.ts"
import * as FastPathApi from "../../src/fastpath/FastPathApi.ts"
import { Images } from "../../src/fastpath/Images.ts"
import { Demand } from "../../src/pool/Demand.ts"
import { Registry } from "../../src/registry/Registry.ts"
import { addPool, controller, eventually, Fleet, world } from "../Fleet.ts"

/** The controller's part under test, without the SandboxController: deletions stay where the finalizer holds them. */
const fastPath = FastPathApi.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(controller, Caches.layer, Demand.layer, EventRecorder.layer({ component: "test" })))
)

const stage = Layer.provideMerge(fastPath, world)

type Stage = Layer.Success<typeof stage>

const run = <A, E>(name: string, test: Effect.Effect<A, E, Stage | Scope.Scope>) =>
  it.live(name, () => test.pipe(Effect.scoped, Effect.provide(stage)), 20_000)

const request = (fields: MessageInitShape<typeof CreateRequestSchema>) =>
  create(CreateRequestSchema, { image: "alpine", poolRef: "pool", ...fields })

/** Agents with a pool, all synced. */
const agents = Effect.fnUntraced(function*(slots: Readonly<Record<string, number>>) {
  yield* addPool()
  const fleet = yield* Fleet
  const added: Record<string, SimulatedAgent> = {}
  for (const [pod, count] of Object.entries(slots)) {
    added[pod] = yield* fleet.add(pod, { slots: count })
  }
  yield* eventually(Effect.gen(function*() {
    const views = yield* Agents.use(({ list }) => list)
    assert.strictEqual(views.filter(({ connection }) => connection === "synced").length, Object.keys(slots).length)
    assert.isTrue(Option.isSome(yield* Registry.use(({ usage }) => usage("default", "pool"))))
  }))
  return added
})

const resources = MemoryKube.use(({ all }) => all(FastSandbox.Sandbox))
const writes = MemoryKube.use(({ writes }) => writes)

/** Plays the SandboxController: what is being deleted loses its instance, then its finalizer. */
const finishDeletions = Effect.gen(function*() {
  const kube = yield* KubeClient
  const agents = yield* Agents
  for (const sandbox of yield* resources) {
    if (sandbox.metadata.deletionTimestamp !== undefined) {
      const assignment = Assignment.of(sandbox)
      if (Option.isSome(assignment)) {
        yield* agents.delete(assignment.value.podUid, assignment.value.instanceId)
      }
      yield* kube.patch(FastSandbox.Sandbox, { name: sandbox.metadata.name ?? "", namespace: "default" }, {
        type: "merge",
        body: { metadata: { finalizers: null } }
      })
    }
  }
})

const written = eventually(Effect.gen(function*() {
  assert.strictEqual(yield* Directory.use(({ backlog }) => backlog), 0)
  const all = yield* resources
  assert.isAbove(all.length, 0)
  return all
}))

const failing = (verb: string, reason: KubeError.KubeErrorReason) => (call: Call) =>
  call.verb === verb && call.kind === "Sandbox"
    ? Effect.fail(new KubeError.KubeError({ method: "POST", path: "/", kind: call.kind, name: call.name, reason }))
    : Effect.void

const events = MemoryKube.use(({ all }) => all(Kinds.Event))

describe("fast create", () => {
  run(
    "answers before the resource is written, and writes it as it was asked for, with its status",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 2 })
      const gate = yield* Deferred.make<void>()
      const memory = yield* MemoryKube
      yield* memory.setGate({
        before: (call) => call.verb === "create" && call.kind === "Sandbox" ? Deferred.await(gate) : Effect.void
      })
      const path = yield* FastPath
      const answer = yield* path.create(
        request({ name: "a", requestId: "r1", labels: { app: "x" }, exposedPorts: [80] })
      )
      assert.strictEqual(answer.status?.phase, "Running")
      assert.strictEqual(answer.status?.assignedPod, "one")
      assert.deepStrictEqual(answer.status?.endpoints, ["node-one:80"])
      assert.strictEqual(answer.status?.startup?.tier, "parked")
      assert.deepStrictEqual(yield* resources, [])

      // It exists for every reader.
      assert.strictEqual((yield* path.get("", "a")).status?.sandboxID, answer.status?.sandboxID)
      assert.strictEqual((yield* path.list({ namespace: "", labelSelector: "app=x" })).length, 1)
      assert.strictEqual((yield* path.list({ namespace: "", labelSelector: "app!=x" })).length, 0)
      const lines = yield* path.logs(create(LogsRequestSchema, { sandboxName: "a" })).pipe(Stream.runCollect)
      assert.strictEqual(lines.length, 1)

      yield* Deferred.succeed(gate, undefined)
      const [resource] = yield* written
      assert.deepStrictEqual(resource?.metadata.finalizers, [finalizer])
      assert.strictEqual(resource?.metadata.annotations?.[requestIdAnnotation], "r1")
      assert.isString(resource?.metadata.annotations?.[claimUidAnnotation])
      assert.strictEqual(resource?.spec.image, "alpine")
      yield* eventually(Effect.gen(function*() {
        const [after] = yield* resources
        assert.strictEqual(after?.status?.phase, "Running")
        assert.strictEqual(after?.status?.sandboxID, answer.status?.sandboxID)
        const [instance] = [...one?.instances.values() ?? []]
        assert.strictEqual(instance?.claim?.resourceUid, after?.metadata.uid)
      }))
    })
  )

  run(
    "40 concurrent creates on 3 slots give exactly 3, 37 refusals with a pause, and no leftover",
    Effect.gen(function*() {
      const fleet = yield* agents({ one: 1, two: 1, three: 1 })
      const path = yield* FastPath
      const results = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => `s${index}`),
        (name) => Effect.result(path.create(request({ name }))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(results.filter(Result.isSuccess).length, 3)
      for (const { failure } of results.filter(Result.isFailure)) {
        assert(failure._tag === "ResourceExhausted", failure.message)
        assert.isAbove(failure.retryAfterMillis, 0)
      }
      assert.strictEqual((yield* written).length, 3)
      assert.strictEqual((yield* path.list({ namespace: "", labelSelector: "" })).length, 3)
      for (const agent of Object.values(fleet)) {
        assert.strictEqual(agent.instances.size, 1)
      }
      assert.strictEqual(yield* Demand.use(({ recent }) => recent("default/pool")), 37)
    })
  )

  run(
    "an agent that refuses is left out and the next best is asked",
    Effect.gen(function*() {
      const { big, small } = yield* agents({ big: 9, small: 1 })
      big?.setGate({
        before: ({ method }) =>
          method === "create"
            ? Effect.fail(new ResourceExhausted({ resource: "slots", problem: "busy", retryAfterMillis: 1 }))
            : Effect.void
      })
      const answer = yield* FastPath.use((_) => _.create(request({ name: "a" })))
      assert.strictEqual(answer.status?.assignedPod, "small")
      assert.strictEqual(small?.instances.size, 1)
      assert.deepStrictEqual(
        Option.map(yield* Registry.use(({ usage }) => usage("default", "pool")), ({ free }) => free),
        Option.some(9)
      )
    })
  )

  run(
    "an answer that was lost on its way leaves no instance behind",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 2 })
      one?.setGate({
        after: ({ method }) =>
          method === "create" ? Effect.fail(new Unavailable({ target: "agent", problem: "cut" })) : Effect.void
      })
      const error = yield* Effect.flip(FastPath.use((_) => _.create(request({ name: "a" }))))
      assert.strictEqual(error._tag, "Unavailable")
      yield* eventually(Effect.sync(() => assert.strictEqual(one?.instances.size, 0)))
      yield* eventually(Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flip(FastPath.use((_) => _.get("", "a"))))._tag, "NotFound")
      }))
      one?.setGate({})
      yield* FastPath.use((_) => _.create(request({ name: "a" })))
    })
  )

  run(
    "the same request again is a replay of the first answer, another spec is refused",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 9 })
      const path = yield* FastPath
      const first = yield* path.create(request({ name: "a", requestId: "r" }))
      const again = yield* path.create(request({ name: "a", requestId: "r" }))
      const equal = yield* path.create(request({ name: "a" }))
      assert.strictEqual(again.status?.sandboxID, first.status?.sandboxID)
      assert.strictEqual(equal.status?.sandboxID, first.status?.sandboxID)
      for (
        const other of [request({ name: "a", args: ["x"] }), request({ name: "a", requestId: "r", image: "busybox" })]
      ) {
        assert.strictEqual((yield* Effect.flip(path.create(other)))._tag, "AlreadyExists")
      }
      const mallory = Effect.provideService(GrpcCaller, { name: "mallory", groups: [] })
      for (const replayed of [request({ name: "a", requestId: "r" }), request({ name: "a" })]) {
        assert.strictEqual((yield* Effect.flip(path.create(replayed).pipe(mallory)))._tag, "AlreadyExists")
      }
      const unnamed = yield* path.create(request({ requestId: "u" }))
      const unnamedOfMallory = yield* path.create(request({ requestId: "u" })).pipe(mallory)
      assert.notStrictEqual(unnamedOfMallory.metadata.name, unnamed.metadata.name)
      const unnamedAgain = yield* path.create(request({ requestId: "u" }))
      assert.strictEqual(unnamedAgain.metadata.name, unnamed.metadata.name)
      const many = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () => path.create(request({ name: "same" })),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(many.map(({ status }) => status?.sandboxID)).size, 1)
      assert.strictEqual(one?.instances.size, 4)
    })
  )

  run(
    "every change leaves one audit record, without a word of its content",
    Effect.gen(function*() {
      yield* agents({ one: 9 })
      const records: Array<Record<string, unknown>> = []
      const logger = Logger.make(({ fiber, message }) => {
        const annotations = fiber.getRef(References.CurrentLogAnnotations)
        if (annotations["audit"] === true) records.push({ ...annotations, message })
      })
      const path = yield* FastPath
      const longName = "x".repeat(1000)
      yield* Effect.gen(function*() {
        yield* path.create(request({ name: "a", requestId: "r", envs: { KEY: "secret-value" }, args: ["secret-arg"] }))
        yield* Effect.exit(path.create(request({ name: "a", requestId: "r", args: ["secret-arg"] })))
        yield* Effect.exit(path.delete("", longName))
        yield* path.reset("", "a")
        yield* path.delete("", "a")
        yield* path.list({ namespace: "", labelSelector: "" })
        // The lines come behind the answers.
        yield* eventually(Effect.sync(() => assert.isAtLeast(records.length, 5)))
      }).pipe(
        Effect.provideService(GrpcCaller, { name: "alice", groups: [] }),
        Effect.provideService(GrpcPeerAddress, "10.0.0.1:4711"),
        Effect.withSpan("call"),
        Effect.provideService(References.MinimumLogLevel, "Info"),
        Effect.provide(Logger.layer([logger]))
      )
      assert.deepStrictEqual(
        records.map(({ operation, outcome }) => [operation, outcome]),
        [["create", "ok"], ["create", "AlreadyExists"], ["delete", "InvalidArgument"], ["reset", "ok"], [
          "delete",
          "ok"
        ]]
      )
      for (const record of records) {
        assert.deepInclude(record, { audit: true, caller: "alice", from: "10.0.0.1:4711" })
        assert.isNumber(record["durationMillis"])
        assert.match(String(record["traceId"]), /^[0-9a-f]{32}$/)
        for (const value of Object.values(record)) assert.isAtMost(String(value).length, Audit.maxFieldLength)
      }
      assert.deepInclude(records[0], { subject: "default/a", requestId: "r" })
      assert.notInclude(JSON.stringify(records), "secret")
    })
  )

  run(
    "what is wrong is refused with its field, and nothing is created",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 9 })
      const path = yield* FastPath
      const cases: ReadonlyArray<readonly [MessageInitShape<typeof CreateRequestSchema>, string]> = [
        [{ image: "" }, "spec.image"],
        [{ poolRef: "" }, "spec.poolRef"],
        [{ exposedPorts: [0] }, "spec.exposedPorts[0]"],
        [{ exposedPorts: [80, 80] }, "spec.exposedPorts[1]"],
        [{ envs: { "": "x" } }, "spec.envs[0].name"],
        [{ labels: { "fast-sandbox.io/x": "y" } }, "metadata.labels[fast-sandbox.io/x]"],
        [{ resources: { cpu: "lots" } }, "spec.resources.cpu"]
      ]
      for (const [fields, field] of cases) {
        const error = yield* Effect.flip(path.create(request({ name: "a", ...fields })))
        assert(error._tag === "InvalidArgument", error.message)
        assert.strictEqual(error.field, field)
      }
      assert.deepInclude({ ...(yield* Effect.flip(path.create(request({ poolRef: "none" })))) }, {
        _tag: "NotFound",
        kind: "pool",
        name: "default/none"
      })
      assert.strictEqual(one?.calls.length, 0)
      assert.isFalse((yield* writes).some(({ kind }) => kind === "Sandbox"))
    })
  )
})

describe("write-behind", () => {
  run(
    "tells of the first status by an Event, also of an end that came before it was written",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 9 })
      const gate = yield* Deferred.make<void>()
      const memory = yield* MemoryKube
      yield* memory.setGate({
        before: (call) => call.verb === "create" && call.kind === "Sandbox" ? Deferred.await(gate) : Effect.void
      })
      const path = yield* FastPath
      yield* path.create(request({ name: "running" }))
      const ended = yield* path.create(request({ name: "ended" }))
      yield* one?.exit(ended.status?.sandboxID ?? "", 3) ?? Effect.void
      yield* eventually(Effect.gen(function*() {
        assert.strictEqual((yield* path.get("", "ended")).status?.phase, "Failed")
      }))
      yield* Deferred.succeed(gate, undefined)
      yield* path.create(request({ name: "strong", consistencyMode: ConsistencyMode.STRONG }))
      yield* eventually(Effect.gen(function*() {
        const told = (yield* events).map(({ involvedObject, reason, type }) => [involvedObject.name, type, reason])
        assert.sameDeepMembers(told, [
          ["running", "Normal", "Running"],
          ["ended", "Warning", "Error"],
          ["strong", "Normal", "Running"]
        ])
      }))
    })
  )

  run(
    "an API that is away for a while loses nothing",
    Effect.gen(function*() {
      yield* agents({ one: 9 })
      const memory = yield* MemoryKube
      yield* memory.setGate({
        before: failing("create", new KubeError.Unavailable({ problem: "down", sent: false }))
      })
      const path = yield* FastPath
      yield* Effect.forEach(["a", "b", "c"], (name) => path.create(request({ name })))
      assert.strictEqual(yield* Directory.use(({ backlog }) => backlog), 3)
      assert.strictEqual((yield* path.list({ namespace: "", labelSelector: "" })).length, 3)
      yield* memory.setGate({})
      assert.strictEqual((yield* written).length, 3)
    })
  )

  run(
    "an answer of the API that was lost does not make two of one",
    Effect.gen(function*() {
      yield* agents({ one: 9 })
      const memory = yield* MemoryKube
      yield* memory.setGate({ after: failing("create", new KubeError.Timeout({ problem: "lost" })) })
      const answer = yield* FastPath.use((_) => _.create(request({ name: "a" })))
      yield* eventually(Effect.gen(function*() {
        assert.strictEqual((yield* resources).length, 1)
      }))
      yield* memory.setGate({})
      yield* eventually(Effect.gen(function*() {
        const found = yield* Agents.use((_) => _.findInstance(answer.status?.sandboxID ?? ""))
        assert.notStrictEqual(Option.getOrThrow(found).instance.claim?.resourceUid, "")
      }))
    })
  )

  run(
    "a resource that is refused for good ends its instance at once, and says why",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      const memory = yield* MemoryKube
      yield* memory.setGate({ before: failing("create", new KubeError.Forbidden({ problem: "quota" })) })
      const path = yield* FastPath
      yield* path.create(request({ name: "a" }))
      yield* eventually(Effect.gen(function*() {
        assert.strictEqual(one?.instances.size, 0)
        assert.strictEqual((yield* Effect.flip(path.get("", "a")))._tag, "NotFound")
        const [event] = yield* events
        assert.strictEqual(event?.reason, "ResourceRefused")
        assert.include(event?.message ?? "", "quota")
      }))
      yield* memory.setGate({})
      yield* path.create(request({ name: "b" }))
    })
  )

  run(
    "a name that somebody else took meanwhile ends the instance, not the other's sandbox",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      const memory = yield* MemoryKube
      const kube = yield* KubeClient
      const gate = yield* Deferred.make<void>()
      let gated = false
      yield* memory.setGate({
        before: (call) => {
          if (call.verb === "create" && call.kind === "Sandbox" && !gated) {
            gated = true
            return Deferred.await(gate)
          }
          return Effect.void
        }
      })
      yield* FastPath.use((_) => _.create(request({ name: "a" })))
      yield* eventually(Effect.sync(() => assert.isTrue(gated)))
      yield* kube.create(FastSandbox.Sandbox, {
        metadata: { name: "a", namespace: "default" },
        spec: { image: "other", poolRef: "pool" }
      })
      yield* Deferred.succeed(gate, undefined)
      yield* eventually(Effect.gen(function*() {
        assert.strictEqual(one?.instances.size, 0)
        assert.strictEqual((yield* FastPath.use((_) => _.get("", "a"))).spec.image, "other")
        assert.isTrue((yield* events).some(({ reason }) => reason === "NameTaken"))
      }))
    })
  )

  it.live(
    "what was acknowledged survives the end of the controller before anything was written",
    () =>
      Effect.gen(function*() {
        const fleet = yield* Fleet
        const memory = yield* MemoryKube
        yield* addPool()
        const one = yield* fleet.add("one", { slots: 5 })
        const ready = eventually(Effect.gen(function*() {
          assert.strictEqual(Option.getOrThrow(yield* Agents.use((_) => _.get(one.options.uid))).connection, "synced")
        }))
        yield* memory.setGate({
          before: failing("create", new KubeError.Unavailable({ problem: "down", sent: false }))
        })
        const answer = yield* Effect.gen(function*() {
          yield* ready
          return yield* FastPath.use((_) => _.create(request({ name: "a", labels: { app: "x" } })))
        }).pipe(Effect.provide(fastPath, { local: true }))
        yield* memory.setGate({})
        assert.deepStrictEqual(yield* resources, [])
        yield* Effect.gen(function*() {
          yield* ready
          const path = yield* FastPath
          yield* eventually(Effect.gen(function*() {
            assert.strictEqual((yield* path.get("", "a")).status?.sandboxID, answer.status?.sandboxID)
          }))
          yield* eventually(Effect.gen(function*() {
            const [resource] = yield* resources
            assert.deepInclude(resource?.metadata.labels, { app: "x" })
            assert.strictEqual(resource?.status?.sandboxID, answer.status?.sandboxID)
            assert.strictEqual(
              one.instances.get(answer.status?.sandboxID ?? "")?.claim?.resourceUid,
              resource?.metadata.uid
            )
          }))
          assert.strictEqual(one.instances.size, 1)
        }).pipe(Effect.provide(fastPath, { local: true }))
      }).pipe(Effect.scoped, Effect.provide(world)),
    20_000
  )
})

describe("expiry", () => {
  run(
    "one that is over is refused, unless the sandbox has had its time already",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 2 })
      const path = yield* FastPath
      const over = request({ name: "a", requestId: "r", expireTimeSeconds: 1_000_000_000n })
      const refused = yield* Effect.flip(path.create(over))
      assert.deepInclude(refused, { _tag: "InvalidArgument", field: "spec.expireTime" })
      assert.strictEqual(one?.instances.size, 0)
      const first = yield* path.create(request({ name: "a", requestId: "r" }))
      assert.strictEqual((yield* path.create(over)).status?.sandboxID, first.status?.sandboxID)
    })
  )
})

describe("delete", () => {
  run(
    "what is not written yet is ended directly and never written",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      const memory = yield* MemoryKube
      yield* memory.setGate({ before: failing("create", new KubeError.Unavailable({ problem: "down", sent: false })) })
      const path = yield* FastPath
      yield* path.create(request({ name: "a" }))
      yield* path.delete("", "a")
      assert.strictEqual(one?.instances.size, 0)
      assert.strictEqual((yield* Effect.flip(path.get("", "a")))._tag, "NotFound")
      yield* memory.setGate({})
      yield* path.create(request({ name: "b" }))
      yield* written
      assert.deepStrictEqual((yield* resources).map(({ metadata }) => metadata.name), ["b"])
    })
  )

  run(
    "a written one is deleted as a resource; the name is new again when it is gone, each time with a new instance",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      const path = yield* FastPath
      const ids: Array<string | undefined> = []
      for (let round = 0; round < 4; round++) {
        const creating = yield* Effect.forkChild(path.create(request({ name: "a" })))
        yield* Effect.repeat(Effect.andThen(finishDeletions, Effect.sleep("5 millis")), {
          until: () => creating.pollUnsafe() !== undefined
        })
        ids.push((yield* Fiber.join(creating)).status?.sandboxID)
        yield* written
        yield* path.delete("", "a")
        assert.strictEqual(
          yield* Effect.map(resources, ([sandbox]) => typeof sandbox?.metadata.deletionTimestamp),
          "string"
        )
      }
      assert.strictEqual(new Set(ids).size, 4)
      yield* finishDeletions
      assert.strictEqual(one?.instances.size, 0)
      yield* eventually(Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flip(path.delete("", "a")))._tag, "NotFound")
      }))
    })
  )

  run(
    "a delete during a create wins",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      const begun = yield* Deferred.make<void>()
      one?.setGate({
        after: ({ method }) =>
          method === "create" ? Effect.andThen(Deferred.succeed(begun, undefined), Effect.never) : Effect.void
      })
      const path = yield* FastPath
      const creating = yield* Effect.forkChild(path.create(request({ name: "a" })))
      yield* Deferred.await(begun)
      yield* path.delete("", "a")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(creating)))
      yield* eventually(Effect.sync(() => assert.strictEqual(one?.instances.size, 0)))
      assert.strictEqual((yield* Effect.flip(path.get("", "a")))._tag, "NotFound")
      assert.deepStrictEqual(yield* resources, [])
    })
  )

  run(
    "what is not there is NOT_FOUND",
    Effect.gen(function*() {
      yield* agents({ one: 1 })
      assert.strictEqual((yield* Effect.flip(FastPath.use((_) => _.delete("", "none"))))._tag, "NotFound")
    })
  )
})

const strong = (name: string) => request({ name, consistencyMode: ConsistencyMode.STRONG })

describe("strong create", () => {
  run(
    "the resource is there, with assignment and claim, before the agent is asked, and has a status when it answers",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      let before: number | undefined
      const all = yield* MemoryKube
      one?.setGate({
        before: ({ method }) =>
          method === "create"
            ? Effect.map(all.all(FastSandbox.Sandbox), ([sandbox]) => {
              before = sandbox === undefined || Option.isNone(Assignment.ofCreator(sandbox)) ? 0 : 1
            })
            : Effect.void
      })
      const answer = yield* FastPath.use((_) => _.create(strong("a")))
      assert.strictEqual(before, 1)
      const [resource] = yield* resources
      assert.strictEqual(resource?.status?.phase, "Running")
      assert.strictEqual(resource?.status?.sandboxID, answer.status?.sandboxID)
      const [instance] = [...one?.instances.values() ?? []]
      assert.strictEqual(instance?.claim?.resourceUid, resource?.metadata.uid)
    })
  )

  run(
    "after a refusal the next candidate is assigned first and asked then",
    Effect.gen(function*() {
      const { big, small } = yield* agents({ big: 9, small: 1 })
      big?.setGate({
        before: ({ method }) =>
          method === "create"
            ? Effect.fail(new ResourceExhausted({ resource: "slots", problem: "busy", retryAfterMillis: 1 }))
            : Effect.void
      })
      const answer = yield* FastPath.use((_) => _.create(strong("a")))
      assert.strictEqual(answer.status?.assignedPod, "small")
      const [resource] = yield* resources
      assert.strictEqual(
        resource === undefined ? undefined : Option.getOrThrow(Assignment.ofCreator(resource)).pod,
        "small"
      )
      assert.strictEqual(small?.instances.size, 1)
    })
  )

  run(
    "when none has room the resource is removed again",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      one?.setGate({
        before: ({ method }) =>
          method === "create"
            ? Effect.fail(new ResourceExhausted({ resource: "slots", problem: "busy", retryAfterMillis: 1 }))
            : Effect.void
      })
      const error = yield* Effect.flip(FastPath.use((_) => _.create(strong("a"))))
      assert.strictEqual(error._tag, "ResourceExhausted")
      assert.deepStrictEqual(yield* resources, [])
    })
  )

  run(
    "asked again after an answer that got lost, it finds what the first one made",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 2 })
      one?.setGate({
        after: ({ method }) =>
          method === "create" ? Effect.fail(new Unavailable({ target: "one", problem: "gone" })) : Effect.void
      })
      const path = yield* FastPath
      assert.strictEqual((yield* Effect.flip(path.create(strong("a"))))._tag, "Unavailable")
      const answer = yield* path.create(strong("a"))
      assert.strictEqual(answer.status?.phase, "Running")
      assert.deepStrictEqual([...one?.instances.keys() ?? []], [answer.status?.sandboxID])
    })
  )

  run(
    "asked again, it acknowledges nothing that never ran",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 2 })
      one?.setGate({
        before: ({ method }) =>
          method === "create" ? Effect.fail(new Unavailable({ target: "one", problem: "gone" })) : Effect.void
      })
      const path = yield* FastPath
      assert.strictEqual((yield* Effect.flip(path.create(strong("a"))))._tag, "Unavailable")
      const again = yield* Effect.flip(path.create(strong("a"))).pipe(Effect.forkChild({ startImmediately: true }))
      const [resource] = yield* resources
      if (resource === undefined) {
        return assert.fail("the resource is gone")
      }
      const kube = yield* KubeClient
      yield* kube.updateStatus(FastSandbox.Sandbox, {
        ...resource,
        status: { ...resource.status, phase: "Lost", reason: "InstanceLost" }
      })
      assert.deepInclude({ ...(yield* Fiber.join(again)) }, { _tag: "FailedPrecondition", reason: "NeverStarted" })
    })
  )

  run(
    "a resource that is refused starts nothing",
    Effect.gen(function*() {
      const { one } = yield* agents({ one: 1 })
      yield* MemoryKube.use((_) =>
        _.setGate({ before: failing("create", new KubeError.Forbidden({ problem: "quota" })) })
      )
      assert.strictEqual((yield* Effect.flip(FastPath.use((_) => _.create(strong("a")))))._tag, "PermissionDenied")
      assert.strictEqual(one?.calls.length, 0)
      assert.deepStrictEqual(
        Option.map(yield* Registry.use(({ usage }) => usage("default", "pool")), ({ free }) => free),
        Option.some(1)
      )
    })
  )
})

describe("update, reset, watch", () => {
  run(
    "changes what may change, and reads show it at once",
    Effect.gen(function*() {
      yield* agents({ one: 1 })
      const path = yield* FastPath
      yield* path.create(request({ name: "a", labels: { old: "x" }, ttlSeconds: 60n }))
      const update = (fields: MessageInitShape<typeof UpdateRequestSchema>) =>
        path.update(create(UpdateRequestSchema, { sandboxName: "a", ...fields }))
      yield* update({ labels: { old: "", fresh: "y" } })
      assert.deepStrictEqual((yield* path.get("", "a")).metadata.labels, { fresh: "y" })
      yield* update({ update: { case: "expireTimeSeconds", value: 4_000_000_000n } })
      const expiring = (yield* path.get("", "a")).spec
      assert.strictEqual(expiring.expireTime, "2096-10-02T07:06:40.000Z")
      assert.isUndefined(expiring.ttlSeconds)
      yield* update({ update: { case: "expireTimeSeconds", value: 0n } })
      assert.isUndefined((yield* path.get("", "a")).spec.expireTime)
      yield* update({ update: { case: "failurePolicy", value: 1 } })
      yield* update({ update: { case: "recoveryTimeoutSeconds", value: 5 } })
      const { spec } = yield* path.get("", "a")
      assert.deepInclude(spec, { failurePolicy: "AutoRecreate", recoveryTimeoutSeconds: 5 })
      const first = (yield* path.reset("", "a")).spec.resetRevision
      const second = (yield* path.reset("", "a")).spec.resetRevision
      assert.isString(first)
      assert.notStrictEqual(first, second)
      const refused = yield* Effect.flip(update({ update: { case: "resetRevision", value: "soon" } }))
      assert.strictEqual(refused._tag, "InvalidArgument")
      assert.strictEqual((yield* Effect.flip(update({ sandboxName: "none" })))._tag, "NotFound")
    })
  )

  run(
    "a watch tells what exists, that it did, and every change, through the change from unwritten to written",
    Effect.gen(function*() {
      yield* agents({ one: 3 })
      const path = yield* FastPath
      yield* path.create(request({ name: "a", labels: { app: "x" } }))
      yield* path.create(request({ name: "hidden" }))
      const told: Array<string> = []
      yield* path.watch({ namespace: "", labelSelector: "app=x" }).pipe(
        Stream.runForEach((event) =>
          Effect.sync(() => {
            told.push(event._tag === "Synced" ? "Synced" : `${event._tag} ${event.sandbox.metadata.name}`)
          })
        ),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* eventually(Effect.sync(() => assert.include(told, "Synced")))
      assert.deepStrictEqual(told.slice(0, 2), ["Added a", "Synced"])
      yield* path.create(request({ name: "b", labels: { app: "x" } }))
      yield* eventually(Effect.sync(() => assert.include(told, "Added b")))
      yield* written
      yield* path.delete("", "b")
      yield* finishDeletions
      yield* eventually(Effect.sync(() => assert.include(told, "Deleted b")))
      assert.strictEqual(told.filter((line) => line === "Added b").length, 1)
      assert.isFalse(told.some((line) => line.includes("hidden")))
    })
  )

  run(
    "images are listed, pulled and removed once for each node",
    Effect.gen(function*() {
      yield* agents({ one: 1, two: 1 })
      const images = yield* Images
      const nodes = { poolRef: "pool", namespace: "" }
      const progress = yield* images.pull("alpine", nodes).pipe(Stream.runCollect)
      assert.deepStrictEqual(progress.map(({ node, status }) => `${node} ${status}`).toSorted(), [
        "node-one done",
        "node-two done"
      ])
      yield* eventually(Effect.gen(function*() {
        assert.deepStrictEqual((yield* images.list(nodes)).map(({ name, nodes }) => [name, nodes]), [
          ["docker.io/library/alpine:latest", ["node-one", "node-two"]]
        ])
      }))
      assert.deepStrictEqual(yield* images.remove("alpine", nodes), ["node-one", "node-two"])
      assert.strictEqual((yield* Effect.flip(images.remove("alpine", nodes)))._tag, "NotFound")
      const unknown = yield* Effect.flip(images.list({ poolRef: "none", namespace: "" }))
      assert.strictEqual(unknown._tag, "NotFound")
    })
  )
})
