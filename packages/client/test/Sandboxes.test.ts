import { assert, describe, it } from "@effect/vitest"
import * as LogLine from "@fast-sandbox/client/LogLine"
import { type ConnectOptions, Sandboxes, started, terminal } from "@fast-sandbox/client/Sandboxes"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Redacted, Ref, Scope, Stream, SubscriptionRef } from "effect"
import * as FakeFastPath from "./FakeFastPath.ts"

const { Fake } = FakeFastPath

const connected = (options?: Partial<ConnectOptions>) =>
  Layer.unwrap(Effect.map(FakeFastPath.endpoint, (endpoint) => Sandboxes.layer({ endpoint, ...options }))).pipe(
    Layer.provideMerge(Layer.fresh(FakeFastPath.layer()))
  )

const names = Effect.map(Fake.use(({ state }) => SubscriptionRef.get(state)), (state) => [...state.keys()])

const soon = Effect.timeout("10 seconds")

describe("create", () => {
  it.live("answers with the instance, its endpoints and how it was started", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const created = yield* sandboxes.create({ image: "alpine", name: "web", exposedPorts: [8080] })
      assert.deepStrictEqual(created, {
        name: "web",
        namespace: "default",
        instanceId: "web-1",
        agentPod: "default-pool-agent-abcde",
        endpoints: ["10.0.0.7:8080"],
        startup: { tier: "parked", steps: [{ name: "claim", millis: 1.25 }, { name: "exec", millis: 2.5 }] }
      })
    }).pipe(Effect.provide(connected())))

  it.live("asks again for an answer that got lost, and makes one sandbox", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const { creates, loseAnswers } = yield* Fake
      yield* Ref.set(loseAnswers, 2)
      const created = yield* sandboxes.create({ image: "alpine", name: "web" })
      assert.strictEqual(created.instanceId, "web-1")
      const ids = (yield* Ref.get(creates)).map(({ requestId }) => requestId)
      assert.strictEqual(ids.length, 3)
      assert.strictEqual(new Set(ids).size, 1)
      assert.notStrictEqual(ids[0], "")
    }).pipe(Effect.provide(connected())))

  it.live("fails with what the server failed with", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const error = yield* Effect.flip(sandboxes.create({ image: "alpine", pool: "nope" }))
      assert.deepInclude({ ...error }, { _tag: "NotFound", kind: "pool", name: "nope" })
      const full = yield* Effect.flip(sandboxes.create({ image: "alpine", pool: "busy" }))
      assert.strictEqual(full._tag === "ResourceExhausted" && full.retryAfterMillis, 1500)
      yield* sandboxes.create({ image: "alpine", name: "web" })
      assert.strictEqual(
        (yield* Effect.flip(sandboxes.create({ image: "alpine", name: "web" })))._tag,
        "AlreadyExists"
      )
    }).pipe(Effect.provide(connected())))

  it.live("a deadline ends it", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const error = yield* Effect.flip(
        sandboxes.create({ image: "alpine", args: ["slow"], deadline: "50 millis" })
      )
      assert.strictEqual(error._tag, "DeadlineExceeded")
    }).pipe(Effect.provide(connected())))

  it.live("carries every option", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* sandboxes.create({
        image: "alpine",
        name: "web",
        namespace: "team",
        command: ["/bin/sh"],
        args: ["echo", "x"],
        envs: { A: "1" },
        workingDir: "/srv",
        exposedPorts: [80],
        consistencyMode: "strong",
        failurePolicy: "AutoRecreate",
        recoveryTimeoutSeconds: 30,
        ttlSeconds: 60,
        terminationGracePeriodSeconds: 0,
        resources: { cpu: "500m", memory: "64Mi", pids: 32 },
        labels: { app: "web" },
        requestId: "r-1"
      })
      const [request] = yield* Fake.use(({ creates }) => Ref.get(creates))
      assert.isDefined(request)
      const { $typeName: _, resources, ...rest } = request
      assert.deepStrictEqual(rest, {
        image: "alpine",
        poolRef: "default-pool",
        tty: false,
        stdin: false,
        exposedPorts: [80],
        command: ["/bin/sh"],
        args: ["echo", "x"],
        namespace: "team",
        consistencyMode: 1,
        name: "web",
        envs: { A: "1" },
        workingDir: "/srv",
        requestId: "r-1",
        failurePolicy: 1,
        recoveryTimeoutSeconds: 30,
        expireTimeSeconds: 0n,
        ttlSeconds: 60n,
        terminationGracePeriodSeconds: 0n,
        labels: { app: "web" }
      })
      assert.deepInclude({ ...resources }, { cpu: "500m", memory: "64Mi", pids: 32n })
    }).pipe(Effect.provide(connected())))
})

describe("scoped", () => {
  it.live("deletes the sandbox when the scope closes", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* Effect.gen(function*() {
        const sandbox = yield* sandboxes.scoped({ image: "alpine", args: ["echo", "hi"] })
        assert.strictEqual((yield* sandbox.wait({ for: terminal })).exitCode, 0)
        const lines = yield* Stream.runCollect(sandbox.logs({ follow: true }))
        assert.deepStrictEqual(lines.map(LogLine.text), ["hi"])
        assert.strictEqual((yield* names).length, 1)
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(yield* names, [])
    }).pipe(Effect.provide(connected())))

  it.live("deletes it when its user is interrupted", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const ready = yield* Deferred.make<void>()
      const fiber = yield* sandboxes.scoped({ image: "alpine" }).pipe(
        Effect.andThen(Deferred.succeed(ready, undefined)),
        Effect.andThen(Effect.never),
        Effect.scoped,
        Effect.forkChild
      )
      yield* soon(Deferred.await(ready))
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* names, [])
    }).pipe(Effect.provide(connected())))

  for (const name of ["late", undefined]) {
    it.live(`deletes what an interrupted create left, ${name === undefined ? "also without a name" : "by name"}`, () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const { createStarted } = yield* Fake
        yield* sandboxes.create({ image: "alpine", name: "other" })
        const fiber = yield* Effect.forkChild(sandboxes.create({ image: "alpine", name, args: ["slow"] }))
        yield* soon(Deferred.await(createStarted))
        yield* Effect.repeat(names, { until: (all) => all.length === 2 })
        yield* soon(Fiber.interrupt(fiber))
        assert.deepStrictEqual(yield* names, ["default/other"])
      }).pipe(Effect.provide(connected())))
  }

  it.live("an interrupted or refused create never deletes a sandbox of somebody else", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* sandboxes.create({ image: "alpine", name: "web" })
      const error = yield* Effect.flip(Effect.scoped(sandboxes.scoped({ image: "alpine", name: "web" })))
      assert.strictEqual(error._tag, "AlreadyExists")
      assert.deepStrictEqual(yield* names, ["default/web"])
    }).pipe(Effect.provide(connected())))

  it.live("a sandbox that is gone already is no failure", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const scope = yield* Scope.make()
      const { name } = yield* Scope.provide(sandboxes.scoped({ image: "alpine" }), scope)
      yield* sandboxes.delete(name)
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.provide(connected())))
})

describe("wait", () => {
  it.live("for a phase", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* sandboxes.create({ image: "alpine", name: "web" })
      assert.strictEqual((yield* sandboxes.wait("web", { for: started })).phase, "Running")
      const waiting = yield* Effect.forkChild(sandboxes.wait("web", { for: new Set(["Expired"]) }), {
        startImmediately: true
      })
      yield* sandboxes.update("web", { expireTime: 1000 })
      assert.strictEqual((yield* soon(Fiber.join(waiting))).phase, "Expired")
    }).pipe(Effect.provide(connected())))

  it.live("for a phase that can't come any more", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* sandboxes.create({ image: "alpine", name: "web", args: ["complain", "x"] })
      const error = yield* Effect.flip(sandboxes.wait("web", { for: new Set(["Running"]) }))
      assert.deepInclude({ ...error }, { _tag: "FailedPrecondition", reason: "Ended" })
      assert.include(error.message, "exit code 3")
      assert.strictEqual((yield* Effect.flip(sandboxes.wait("nope", { for: terminal })))._tag, "NotFound")
    }).pipe(Effect.provide(connected())))

  it.live("for a deletion, also one that is over", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* soon(sandboxes.waitForDeletion("nope"))
      yield* sandboxes.create({ image: "alpine", name: "web" })
      const waiting = yield* Effect.forkChild(sandboxes.waitForDeletion("web"), { startImmediately: true })
      yield* sandboxes.delete("web")
      yield* soon(Fiber.join(waiting))
    }).pipe(Effect.provide(connected())))

  it.live("no longer than its deadline", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* sandboxes.create({ image: "alpine", name: "web" })
      const error = yield* Effect.flip(sandboxes.wait("web", { for: terminal, deadline: "30 millis" }))
      assert.strictEqual(error._tag, "DeadlineExceeded")
    }).pipe(Effect.provide(connected())))
})

describe("logs", () => {
  it.live("followed logs take up again after a broken connection, with every line once", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const { breakLogsAfter } = yield* Fake
      yield* sandboxes.create({ image: "alpine", name: "web", args: ["count", "9"] })
      for (const after of [1, 2, 3, 8]) {
        yield* Ref.set(breakLogsAfter, after)
        const lines = yield* soon(Stream.runCollect(sandboxes.logs("web", { follow: true })))
        assert.deepStrictEqual(lines.map(LogLine.text), Array.from({ length: 9 }, (_, i) => `line ${i + 1}`))
      }
    }).pipe(Effect.provide(connected())))

  it.live("others fail with it", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      const { breakLogsAfter } = yield* Fake
      yield* sandboxes.create({ image: "alpine", name: "web", args: ["count", "9"] })
      yield* Ref.set(breakLogsAfter, 2)
      const error = yield* Effect.flip(Stream.runDrain(sandboxes.logs("web")))
      assert.strictEqual(error._tag, "Unavailable")
    }).pipe(Effect.provide(connected())))

  it.live("tail, stream and time stamps", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* sandboxes.create({ image: "alpine", name: "web", args: ["complain", "oh"] })
      const [line] = yield* Stream.runCollect(sandboxes.logs("web", { tail: 1, stream: "stderr" }))
      assert.isDefined(line)
      assert.deepStrictEqual([line.time, line.stream, LogLine.text(line), line.partial], [
        "2023-11-14T22:13:20.000000000Z",
        "stderr",
        "oh",
        false
      ])
      assert.deepStrictEqual(yield* Stream.runCollect(sandboxes.logs("web", { stream: "stdout" })), [])
    }).pipe(Effect.provide(connected())))
})

describe("the rest", () => {
  it.live("list, watch, update, reset", () =>
    Effect.gen(function*() {
      const sandboxes = yield* Sandboxes
      yield* sandboxes.create({ image: "alpine", name: "a", labels: { app: "x" } })
      yield* sandboxes.create({ image: "alpine", name: "b", namespace: "team" })
      const listed = (options?: Parameters<typeof sandboxes.list>[0]) =>
        Effect.map(sandboxes.list(options), (all) => all.map(({ name }) => name))
      assert.deepStrictEqual(yield* listed(), ["a"])
      assert.deepStrictEqual(yield* listed({ allNamespaces: true }), ["a", "b"])
      assert.deepStrictEqual(yield* listed({ allNamespaces: true, labelSelector: "app=x" }), ["a"])
      const events = yield* Effect.forkChild(
        sandboxes.watch().pipe(
          Stream.map((event) => event._tag === "Synced" ? "Synced" : `${event._tag} ${event.sandbox.name}`),
          Stream.take(4),
          Stream.runCollect
        ),
        { startImmediately: true }
      )
      yield* sandboxes.wait("a", { for: started })
      const updated = yield* sandboxes.update("a", {
        expireTime: "never",
        failurePolicy: "AutoRecreate",
        recoveryTimeoutSeconds: 5,
        labels: { app: "", tier: "1" }
      })
      assert.deepStrictEqual(updated.labels, { tier: "1" })
      const sent = yield* Fake.use(({ updates }) => Ref.get(updates))
      assert.deepStrictEqual(sent.map(({ update }) => [update.case, update.value]), [
        ["expireTimeSeconds", 0n],
        ["failurePolicy", 1],
        ["recoveryTimeoutSeconds", 5]
      ])
      assert.strictEqual((yield* sandboxes.reset("a")).instanceId, "a-2")
      assert.include(yield* soon(Fiber.join(events)), "Synced")
    }).pipe(Effect.provide(connected())))

  it.live("images", () =>
    Effect.gen(function*() {
      const { images } = yield* Sandboxes
      assert.strictEqual((yield* images.list())[0]?.sizeBytes, 3_400_000)
      const progress = yield* Stream.runCollect(images.pull("alpine"))
      assert.deepStrictEqual(progress.map(({ status }) => status), ["transferring", "unpacking", "done"])
      const archive = Stream.range(1, 10).pipe(Stream.map(() => new Uint8Array(1000)))
      const [done] = yield* Stream.runCollect(images.load(archive, { name: "loaded" }))
      assert.strictEqual(done?.status, "done")
      assert.strictEqual(yield* Fake.use(({ loaded }) => Ref.get(loaded)), 10_000)
      assert.deepStrictEqual(yield* images.remove("alpine"), ["node-1"])
    }).pipe(Effect.provide(connected())))

  it.live("a token is sent with every call", () =>
    Effect.gen(function*() {
      const { token } = yield* Fake
      yield* Ref.set(token, "s3cret")
      const sandboxes = yield* Sandboxes
      assert.deepStrictEqual(yield* sandboxes.list(), [])
      const other = yield* Layer.build(Sandboxes.layer({ endpoint: yield* FakeFastPath.endpoint }))
      assert.strictEqual((yield* Effect.flip(Context.get(other, Sandboxes).list()))._tag, "Unauthenticated")
    }).pipe(Effect.provide(connected({ token: Redacted.make("s3cret") }))))
})
