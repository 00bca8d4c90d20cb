/**
 * The Fast-Path API as its clients use it: over gRPC, with the SandboxController beside it, on the embedded API server
 * and simulated agents.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import { ConsistencyMode, FastPathService, WatchEvent_Type } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import * as FastSandboxCrds from "@fast-sandbox/kube/FastSandboxCrds"
import { CustomResourceDefinition } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import type { SimulatedAgent } from "@fast-sandbox/testkit/SimulatedAgent"
import {
  Context,
  Effect,
  Fiber,
  FileSystem,
  Layer,
  Option,
  Redacted,
  References,
  Result,
  Schedule,
  Stream
} from "effect"
import { Agents } from "../../src/agents/Agents.ts"
import * as Controller from "../../src/Controller.ts"
import { Registry } from "../../src/registry/Registry.ts"
import * as SandboxController from "../../src/sandbox/SandboxController.ts"
import { addPool, addresses, eventually, Fleet } from "../Fleet.ts"

const api = Layer.unwrap(Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  return ApiServer.layer({ dataDirectory: yield* files.makeTempDirectoryScoped({ prefix: "fastpath-" }) })
})).pipe(Layer.provide(NodeServices.layer))

const kube = KubeClient.layer.pipe(
  Layer.provide(Layer.unwrap(
    Effect.map(
      ApiServer,
      ({ caCertificate, token, url }) => KubeConfig.layer({ server: url, token, ca: caCertificate })
    )
  )),
  Layer.provideMerge(api)
)

const definitions = Layer.effectDiscard(Effect.gen(function*() {
  const kube = yield* KubeClient
  yield* Effect.forEach(FastSandboxCrds.all, (definition) => kube.create(CustomResourceDefinition, definition))
  yield* Effect.retry(kube.list(FastSandbox.Sandbox), Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 100 })))
}))

const world = Fleet.layer.pipe(
  Layer.provideMerge(definitions),
  Layer.provideMerge(kube),
  Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "Fatal"))
)

/** The client's side. */
class Client extends Context.Service<Client, {
  readonly path: GrpcClient.GrpcClient<typeof FastPathService, unknown>
  readonly agent: SimulatedAgent
}>()("Client") {}

const client = Layer.effect(
  Client,
  Effect.gen(function*() {
    const { addresses: [address = ""] } = yield* GrpcServer.GrpcServer
    yield* addPool()
    const agent = yield* Fleet.use((fleet) => fleet.add("one", { slots: 3 }))
    yield* eventually(Effect.gen(function*() {
      const view = yield* Agents.use(({ get }) => get(agent.options.uid))
      assert.strictEqual(Option.getOrUndefined(view)?.connection, "synced")
      assert.isTrue(Option.isSome(yield* Registry.use(({ usage }) => usage("default", "pool"))))
    }))
    const { token } = yield* ApiServer
    const credentials = { token: Effect.succeed(Redacted.make(token)) }
    return Client.of({ path: yield* GrpcClient.makeBoundary(FastPathService, { address, credentials }), agent })
  })
)

const stage = client.pipe(
  Layer.provide(Controller.server({ listeners: [GrpcServer.tcp("127.0.0.1", 0)] })),
  Layer.provideMerge(SandboxController.layer),
  Layer.provideMerge(Controller.shared.pipe(Layer.provide(addresses))),
  Layer.provideMerge(world)
)

const eventNames = new Map<number, string>(Object.entries(WatchEvent_Type).map(([name, type]) => [type, name]))

const request = (name: string) => ({ name, image: "alpine", poolRef: "pool" })

const goneSoon = (name: string) =>
  eventually(Effect.gen(function*() {
    const { path } = yield* Client
    const { items } = yield* path.listSandboxes({})
    assert.isFalse(items.some(({ sandboxName }) => sandboxName === name))
  }))

describe("Fast-Path on the embedded API server", () => {
  layer(stage, { timeout: 30_000, excludeTestServices: true })((it) => {
    it.effect(
      "create, Running, delete, gone; the same name at once, four times, in both modes",
      () =>
        Effect.gen(function*() {
          const { agent, path } = yield* Client
          for (const consistencyMode of [ConsistencyMode.FAST, ConsistencyMode.STRONG]) {
            const ids = new Set<string>()
            for (let round = 0; round < 4; round++) {
              const { sandboxId } = yield* path.createSandbox({ ...request("again"), consistencyMode })
              ids.add(sandboxId)
              const info = yield* path.getSandbox({ sandboxName: "again" })
              assert.strictEqual(info.phase, "Running")
              assert.strictEqual(info.sandboxId, sandboxId)
              yield* path.deleteSandbox({ sandboxName: "again" })
            }
            assert.strictEqual(ids.size, 4)
            yield* goneSoon("again")
          }
          yield* eventually(Effect.sync(() => assert.strictEqual(agent.instances.size, 0)))
        }),
      30_000
    )

    it.effect(
      "a written sandbox is the SandboxController's: its end shows, and its log stays readable",
      () =>
        Effect.gen(function*() {
          const { agent, path } = yield* Client
          const { sandboxId } = yield* path.createSandbox({ ...request("ending"), labels: { app: "x" } })
          yield* agent.exit(sandboxId, 3)
          yield* eventually(Effect.gen(function*() {
            const info = yield* path.getSandbox({ sandboxName: "ending" })
            assert.deepInclude({ ...info }, { phase: "Failed", exitCode: 3 })
          }))
          const lines = yield* path.logs({ sandboxName: "ending" }).pipe(Stream.runCollect)
          assert.strictEqual(new TextDecoder().decode(lines[0]?.lines[0]?.text), `hello from ${sandboxId}`)
          const first = yield* path.resetSandbox({ sandboxName: "ending" })
          assert.strictEqual(first.sandboxName, "ending")
          yield* eventually(Effect.gen(function*() {
            const info = yield* path.getSandbox({ sandboxName: "ending" })
            assert.strictEqual(info.phase, "Running")
            assert.notStrictEqual(info.sandboxId, sandboxId)
          }))
          const { sandbox } = yield* path.updateSandbox({ sandboxName: "ending", labels: { app: "", team: "y" } })
          assert.deepStrictEqual(sandbox?.labels, { team: "y" })
          yield* path.deleteSandbox({ sandboxName: "ending" })
          yield* goneSoon("ending")
        }),
      30_000
    )

    it.effect("a declared sandbox is the same kind of thing", () =>
      Effect.gen(function*() {
        const { path } = yield* Client
        const watching = yield* path.watchSandboxes({ sandboxName: "declared" }).pipe(
          Stream.map(({ sandbox, type }) => `${eventNames.get(type) ?? ""} ${sandbox?.phase ?? ""}`),
          Stream.takeUntil((line) => line.startsWith("DELETED")),
          Stream.runCollect,
          Effect.forkChild({ startImmediately: true })
        )
        yield* KubeClient.use((kube) =>
          kube.create(FastSandbox.Sandbox, {
            metadata: { name: "declared", namespace: "default" },
            spec: { image: "alpine", poolRef: "pool" }
          })
        )
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* path.getSandbox({ sandboxName: "declared" })).phase, "Running")
        }))
        const taken = yield* Effect.flip(path.createSandbox({ ...request("declared"), image: "busybox" }))
        assert.deepInclude(taken, { _tag: "AlreadyExists" })
        yield* path.deleteSandbox({ sandboxName: "declared" })
        yield* goneSoon("declared")
        const told = yield* Fiber.join(watching)
        assert.include(told, "MODIFIED Running")
        assert.strictEqual(told.filter((line) => line.startsWith("ADDED")).length, 1)
      }), 30_000)

    it.effect("40 concurrent creates on 3 slots give exactly 3, written and all", () =>
      Effect.gen(function*() {
        const { agent, path } = yield* Client
        const results = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, index) => `s${index}`),
          (name) => Effect.result(path.createSandbox(request(name))),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(results.filter(Result.isSuccess).length, 3)
        for (const { failure } of results.filter(Result.isFailure)) {
          assert.deepInclude(failure, { _tag: "ResourceExhausted" })
        }
        yield* eventually(Effect.gen(function*() {
          const { items } = yield* KubeClient.use((kube) => kube.list(FastSandbox.Sandbox))
          assert.strictEqual(items.length, 3)
          assert.isTrue(items.every(({ status }) => status?.phase === "Running"))
        }))
        assert.strictEqual(agent.instances.size, 3)
        const { items } = yield* path.listSandboxes({ labelSelector: "!app" })
        yield* Effect.forEach(items, ({ sandboxName }) => path.deleteSandbox({ sandboxName }))
        yield* eventually(Effect.sync(() => assert.strictEqual(agent.instances.size, 0)))
      }), 30_000)
  })
})
