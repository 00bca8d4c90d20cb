/** Who gets in, by what the API answers, and what happens when it does not. */
import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as FastPath from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { type Caller, GrpcCaller, type Metadata } from "@fast-sandbox/grpc/GrpcCaller"
import { KubeClient, type RawRequest } from "@fast-sandbox/kube/KubeClient"
import { KubeError, Unavailable } from "@fast-sandbox/kube/KubeError"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import { Clock, Context, Duration, Effect, Fiber, Layer, Ref } from "effect"
import { TestClock } from "effect/testing"
import { Access, knownFor, machineOwner, unknownFor } from "../../src/access/Access.ts"

/** What the API is asked, and what it answers. */
class Api extends Context.Service<Api, {
  readonly asked: Ref.Ref<ReadonlyArray<RawRequest>>
  readonly answer: Ref.Ref<(request: RawRequest) => Effect.Effect<unknown, KubeError>>
}>()("test/Api") {}

const known = { status: { authenticated: true, user: { username: "alice", uid: "1", groups: ["devs"] } } }
const allowed = { status: { allowed: true } }

const world = Layer.effectContext(Effect.gen(function*() {
  const kube = yield* KubeClient
  const asked = yield* Ref.make<ReadonlyArray<RawRequest>>([])
  const answer = yield* Ref.make<(request: RawRequest) => Effect.Effect<unknown, KubeError>>(({ path }) =>
    Effect.succeed(path.includes("tokenreviews") ? known : allowed)
  )
  const request = (request: RawRequest) =>
    Ref.update(asked, (all) => [...all, request]).pipe(
      Effect.andThen(Ref.get(answer)),
      Effect.flatMap((answer) => answer(request))
    )
  return Context.make(Api, { answer, asked }).pipe(Context.add(KubeClient, { ...kube, request }))
})).pipe(Layer.provide(MemoryKube.layer))

const stage = Access.layer.pipe(Layer.provideMerge(world))

const sending = (authorization: string | undefined): Metadata => ({
  get: (name) => name === "authorization" ? authorization : undefined
})

const tcp = { transport: "tcp", address: "10.0.0.1:1", certificate: undefined } as const

const authenticate = (authorization: string | undefined) =>
  Access.use((access) => access.authenticate(sending(authorization), tcp))

const { method } = FastPath.FastPathService

const alice: Caller = { name: "alice", groups: ["devs"], uid: "1" }

const get = (sandboxName: string, caller = alice) =>
  Access.use((access) => access.authorize(method.getSandbox, create(FastPath.GetRequestSchema, { sandboxName }))).pipe(
    Effect.provideService(GrpcCaller, caller)
  )

const questions = Effect.flatMap(Api, ({ asked }) => Effect.map(Ref.get(asked), ({ length }) => length))

const answerWith = (answer: (request: RawRequest) => Effect.Effect<unknown, KubeError>) =>
  Effect.flatMap(Api, (api) => Ref.set(api.answer, answer))

const down = Effect.fail(
  new KubeError({
    method: "POST",
    path: "",
    reason: new Unavailable({ problem: "gone", sent: false })
  })
)

/** A token that says when it ends. */
const tokenUntil = (seconds: number) =>
  `Bearer a.${Buffer.from(JSON.stringify({ exp: seconds })).toString("base64url")}.c`

describe("Access", () => {
  it.effect("knows callers by their token, and asks once a minute", () =>
    Effect.gen(function*() {
      assert.deepInclude(yield* authenticate("Bearer token"), { name: "alice", groups: ["devs"], uid: "1" })
      yield* authenticate("bearer token")
      assert.strictEqual(yield* questions, 1)
      yield* TestClock.adjust(knownFor)
      yield* authenticate("Bearer token")
      assert.strictEqual(yield* questions, 2)
    }).pipe(Effect.provide(stage)))

  it.effect("does not remember a token beyond its end", () =>
    Effect.gen(function*() {
      const token = tokenUntil((yield* Clock.currentTimeMillis) / 1000 + 10)
      yield* authenticate(token)
      yield* TestClock.adjust("11 seconds")
      yield* answerWith(() => Effect.succeed({ status: { authenticated: false } }))
      assert.strictEqual((yield* Effect.flip(authenticate(token)))._tag, "Unauthenticated")
    }).pipe(Effect.provide(stage)))

  it.effect("asks nobody about what is no token", () =>
    Effect.gen(function*() {
      for (
        const header of [undefined, "", "token", "Basic a", "Bearer ", "Bearer a b", `Bearer ${"x".repeat(20_000)}`]
      ) {
        assert.strictEqual((yield* Effect.flip(authenticate(header)))._tag, "Unauthenticated", header)
      }
      assert.strictEqual(yield* questions, 0)
    }).pipe(Effect.provide(stage)))

  it.effect("remembers strangers for a short while only", () =>
    Effect.gen(function*() {
      yield* answerWith(() => Effect.succeed({ status: { authenticated: false, user: { username: "alice" } } }))
      assert.strictEqual((yield* Effect.flip(authenticate("Bearer a")))._tag, "Unauthenticated")
      assert.strictEqual((yield* Effect.flip(authenticate("Bearer a")))._tag, "Unauthenticated")
      assert.strictEqual(yield* questions, 1)
      yield* answerWith(() => Effect.succeed(known))
      yield* TestClock.adjust(unknownFor)
      assert.strictEqual((yield* authenticate("Bearer a")).name, "alice")
    }).pipe(Effect.provide(stage)))

  it.effect("lets nobody in while the API does not answer, and remembers no failure", () =>
    Effect.gen(function*() {
      yield* answerWith(() => down)
      const refused = yield* Effect.flip(authenticate("Bearer a"))
      assert.strictEqual(refused._tag, "Unavailable")
      assert.include(refused.message, "gone")
      assert.strictEqual((yield* Effect.flip(get("a")))._tag, "Unavailable")
      yield* answerWith(() => Effect.never)
      const waiting = yield* Effect.forkChild(Effect.flip(get("a")))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "Unavailable")
      for (
        const nonsense of [undefined, "yes", {}, { status: { allowed: "true" } }, { status: { authenticated: true } }]
      ) {
        yield* answerWith(() => Effect.succeed(nonsense))
        yield* TestClock.adjust(unknownFor)
        assert.strictEqual((yield* Effect.flip(get("a")))._tag, "PermissionDenied")
        assert.strictEqual((yield* Effect.flip(authenticate("Bearer a")))._tag, "Unauthenticated")
      }
    }).pipe(Effect.provide(stage)))

  it.effect("asks about all before it asks about one, once for all of them", () =>
    Effect.gen(function*() {
      for (let index = 0; index < 100; index++) yield* get(`s${index}`)
      assert.strictEqual(yield* questions, 1)
      yield* TestClock.adjust(Duration.sum(knownFor, unknownFor))
      yield* answerWith((request) =>
        Effect.succeed({ status: { allowed: JSON.stringify(request.body).includes("\"mine\"") } })
      )
      yield* get("mine")
      const denied = yield* Effect.flip(get("yours"))
      assert.strictEqual(denied._tag, "PermissionDenied")
      assert.include(denied.message, "alice may not get sandboxes.sandbox.fast.io yours in namespace default")
    }).pipe(Effect.provide(stage)))

  it.effect("does not take one caller for another", () =>
    Effect.gen(function*() {
      yield* get("a")
      yield* answerWith(() => Effect.succeed({ status: { allowed: false } }))
      assert.strictEqual((yield* Effect.flip(get("a", { ...alice, groups: [] })))._tag, "PermissionDenied")
      assert.strictEqual((yield* Effect.flip(get("a", { ...alice, name: "bob" })))._tag, "PermissionDenied")
      yield* get("a")
    }).pipe(Effect.provide(stage)))

  it.effect("trusts the unix socket, and asks nobody about it", () =>
    Effect.gen(function*() {
      const access = yield* Access
      const caller = yield* access.authenticate(sending(undefined), { ...tcp, transport: "unix" })
      assert.strictEqual(caller, machineOwner)
      yield* get("a", caller)
      assert.strictEqual(yield* questions, 0)
      // whoever merely has that name is somebody else
      yield* answerWith(() => Effect.succeed({ status: { allowed: false } }))
      assert.strictEqual((yield* Effect.flip(get("a", { ...machineOwner })))._tag, "PermissionDenied")
    }).pipe(Effect.provide(stage)))
})
