/**
 * The server as a part of a program: its files, its doors, its bounds, and the project's own client against it.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import * as FastSandboxCrds from "@fast-sandbox/kube/FastSandboxCrds"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import * as Identity from "@fast-sandbox/local/apiserver/Identity"
import { Effect, Fiber, FileSystem, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { statSync } from "node:fs"
import { TestServer } from "./TestServer.ts"

const directory = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  return yield* files.makeTempDirectoryScoped({ prefix: "fast-sandbox-server-" })
})

describe("ApiServer", () => {
  it.live("reuses its files, and shares them with no second server", () =>
    Effect.gen(function*() {
      const dataDirectory = yield* directory
      const use = <A, E>(body: Effect.Effect<A, E, ApiServer | FileSystem.FileSystem>) =>
        body.pipe(Effect.provide(ApiServer.layer({ dataDirectory }), { local: true }))
      const identity = Effect.map(ApiServer, ({ caCertificate, token }) => ({ caCertificate, token }))
      const first = yield* use(identity)
      const second = yield* use(Effect.gen(function*() {
        const error = yield* Effect.flip(use(identity))
        assert.strictEqual(error.reason._tag, "StoreError")
        return yield* identity
      }))
      assert.deepStrictEqual(second, first)
      for (const file of ["state.db", "kubeconfig", "token", "ca.key", "server.key"]) {
        assert.strictEqual(statSync(`${dataDirectory}/${file}`).mode & 0o777, 0o600, file)
      }
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.live("speaks plain HTTP on its socket, to those with the token", () =>
    Effect.gen(function*() {
      const dataDirectory = yield* directory
      const socketPath = `${dataDirectory}/api.sock`
      yield* Effect.gen(function*() {
        const { token } = yield* ApiServer
        assert.strictEqual(statSync(socketPath).mode & 0o777, 0o600)
        const names = (withToken: string) =>
          KubeClient.use((client) => client.list(Kinds.Namespace)).pipe(
            Effect.map(({ items }) => items.map(({ metadata }) => metadata.name)),
            Effect.provide(
              KubeClient.layer.pipe(
                Layer.provide(KubeConfig.layer({ server: `unix://${socketPath}`, token: withToken }))
              ),
              { local: true }
            )
          )
        assert.includeMembers([...(yield* names(token))], ["default", "kube-system"])
        const error = yield* Effect.flip(names("wrong"))
        assert.strictEqual(error.reason._tag, "Unauthorized")
      }).pipe(Effect.provide(ApiServer.layer({ dataDirectory, socketPath })))
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

  it.effect("renews a certificate near its end, under the same authority", () =>
    Effect.gen(function*() {
      const dataDirectory = yield* directory
      const first = yield* Identity.load(dataDirectory)
      yield* TestClock.adjust("300 days")
      const early = yield* Identity.load(dataDirectory)
      assert.strictEqual(early.certificate, first.certificate)
      yield* TestClock.adjust("40 days")
      const late = yield* Identity.load(dataDirectory)
      assert.notStrictEqual(late.certificate, first.certificate)
      assert.strictEqual(late.caCertificate, first.caCertificate)
      assert.strictEqual(late.token, first.token)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})

const clientLayer = Layer.unwrap(Effect.gen(function*() {
  const { kubeconfigPath } = yield* TestServer
  return KubeClient.layer.pipe(Layer.provide(KubeConfig.layerFile(kubeconfigPath)))
})).pipe(Layer.provideMerge(TestServer.layer))

describe("the project's client", () => {
  layer(clientLayer, { excludeTestServices: true })((it) => {
    it.effect("defines, creates, reflects, updates and deletes", () =>
      Effect.scoped(Effect.gen(function*() {
        const client = yield* KubeClient
        for (const crd of FastSandboxCrds.all) yield* client.create(Kinds.CustomResourceDefinition, crd)
        const store = yield* Reflector.make(FastSandbox.Sandbox)
        yield* store.synced
        const { resourceVersion } = yield* client.list(FastSandbox.Sandbox)
        const events = yield* client.watch(FastSandbox.Sandbox, { namespace: "default", resourceVersion }).pipe(
          Stream.take(3),
          Stream.runCollect,
          Effect.forkChild
        )
        const created = yield* client.create(FastSandbox.Sandbox, {
          metadata: { name: "a", namespace: "default" },
          spec: { image: "alpine", poolRef: "pool" }
        })
        assert.strictEqual(created.spec.failurePolicy, "Manual")
        const ref = { name: "a", namespace: "default" }
        const status = yield* client.patchStatus(FastSandbox.Sandbox, ref, {
          type: "merge",
          body: { status: { phase: "Running" } }
        })
        assert.strictEqual(status.status?.phase, "Running")
        const stale = yield* Effect.flip(client.update(FastSandbox.Sandbox, created))
        assert.strictEqual(stale.reason._tag, "Conflict")
        yield* client.delete(FastSandbox.Sandbox, ref)
        const gone = yield* Effect.flip(client.get(FastSandbox.Sandbox, ref))
        assert.strictEqual(gone.reason._tag, "NotFound")
        assert.deepStrictEqual((yield* Fiber.join(events)).map(({ _tag }) => _tag), ["Added", "Modified", "Deleted"])
      })))
  })
})
