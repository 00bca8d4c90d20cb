import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConfigMap } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import { Context, Effect, Exit, FileSystem, Layer, Option, Scope } from "effect"
import { until } from "./Contract.ts"

/** A server that can be stopped and started again on its port. */
const restartable = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const dataDirectory = yield* fs.makeTempDirectoryScoped({ prefix: "fsb-restart-" })
  const start = Effect.fnUntraced(function*(port: number) {
    const scope = yield* Scope.fork(yield* Effect.scope)
    const context = yield* Layer.buildWithScope(Layer.fresh(ApiServer.layer({ dataDirectory, port })), scope)
    const server = Context.get(context, ApiServer)
    return { server, port: Number(new URL(server.url).port), stop: Scope.close(scope, Exit.void) }
  })
  return { dataDirectory, start }
})

const makeMap = (name: string) =>
  KubeClient.use((client) => client.create(ConfigMap, { metadata: { name, namespace: "default" } }))

describe("a restart of the API server", () => {
  it.live("is survived by reflectors, whether it kept its storage or lost it", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { dataDirectory, start } = yield* restartable
      const first = yield* start(0)
      const client = yield* Layer.build(
        KubeClient.layer.pipe(Layer.provide(KubeConfig.layerFile(first.server.kubeconfigPath)))
      )
      yield* Effect.gen(function*() {
        const store = yield* Reflector.make(ConfigMap, { namespace: "default" })
        const becomes = (expected: string) =>
          until(
            Effect.map(store.list, (all) => all.map(({ metadata }) => metadata.name).join()),
            (now) => now === expected
          )
        yield* makeMap("a")
        yield* becomes("a")

        yield* first.stop
        yield* until(store.health, ({ problem }) => Option.isSome(problem))
        const second = yield* start(first.port)
        yield* makeMap("b")
        yield* becomes("a,b")

        for (const name of ["c", "d", "e"]) {
          yield* makeMap(name)
        }
        yield* becomes("a,b,c,d,e")
        yield* second.stop
        for (const file of yield* fs.readDirectory(dataDirectory)) {
          if (file.startsWith("state.db")) {
            yield* fs.remove(`${dataDirectory}/${file}`)
          }
        }
        yield* start(first.port)
        yield* makeMap("anew")
        yield* becomes("anew")
        assert.deepStrictEqual((yield* store.health).synced, true)
      }).pipe(Effect.provide(client))
    }).pipe(Effect.provide(NodeServices.layer)))
})
