/**
 * The store's bounds: a history that is trimmed, and what watches and lists say about what was trimmed.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { builtInTypes } from "@fast-sandbox/local/apiserver/BuiltIns"
import * as ListOptions from "@fast-sandbox/local/apiserver/ListOptions"
import * as Lists from "@fast-sandbox/local/apiserver/Lists"
import { Store, type StoreShape } from "@fast-sandbox/local/apiserver/Store"
import * as Watch from "@fast-sandbox/local/apiserver/Watch"
import { Effect, FileSystem, Layer, Queue, Result } from "effect"

const temporary = Layer.unwrap(
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    return Store.layer(`${yield* files.makeTempDirectoryScoped({ prefix: "fast-sandbox-store-" })}/state.db`)
  })
).pipe(Layer.provide(NodeServices.layer))

const put = (store: StoreShape, name: string, resource = "configmaps"): void => {
  store.write({
    resource,
    namespace: "n",
    name,
    uid: name,
    owners: [],
    deleting: false,
    body: (revision) => JSON.stringify({ metadata: { name, namespace: "n", resourceVersion: String(revision) } })
  })
}

const configMaps = builtInTypes().find((type) => type.plural === "configmaps")

describe("Store", () => {
  it.effect("undoes a failed transaction and a rehearsal", () =>
    Effect.gen(function*() {
      const store = yield* Store
      const before = store.revision()
      let heard = 0
      store.subscribe(() => void heard++)
      for (const attempt of [store.transaction, store.rehearse]) {
        attempt(() => {
          put(store, "a")
          return attempt === store.transaction ? Result.fail("no") : Result.succeed("yes")
        })
        assert.isUndefined(store.get({ resource: "configmaps", namespace: "n", name: "a" }))
        assert.strictEqual(store.revision(), before)
      }
      assert.strictEqual(heard, 0)
    }).pipe(Effect.provide(temporary)))

  it.effect("forgets old changes, and says so to those who ask for them", () =>
    Effect.gen(function*() {
      const store = yield* Store
      const type = configMaps
      assert.isDefined(type)
      if (type === undefined) return
      const write = (count: number) =>
        store.transaction(() => {
          for (let index = 0; index < count; index++) put(store, `c${index % 10}`)
          return Result.succeed(undefined)
        })
      write(10)
      const options = yield* Effect.fromResult(ListOptions.read(type, new URLSearchParams("limit=3")))
      const page = yield* Effect.fromResult(Lists.read(store, type, "n", options))
      assert.lengthOf(page.bodies, 3)
      const start = store.revision()
      for (let round = 0; round < 25; round++) write(1_000)
      assert.isAbove(store.compacted(), start)

      const query = new URLSearchParams({ limit: "3", continue: page.meta.continue ?? "" })
      const expired = yield* Effect.flip(Effect.fromResult(
        Result.flatMap(ListOptions.read(type, query), (next) => Lists.read(store, type, "n", next))
      ))
      assert.strictEqual(expired.code, 410)
      assert.strictEqual(expired.reason, "Expired")
      // The answer carries a token that goes on in the newest version.
      const onward = new URLSearchParams({ limit: "3", continue: expired.continue ?? "" })
      const rest = yield* Effect.fromResult(
        Result.flatMap(ListOptions.read(type, onward), (next) => Lists.read(store, type, "n", next))
      )
      assert.lengthOf(rest.bodies, 3)

      const watch = yield* Effect.fromResult(
        ListOptions.read(type, new URLSearchParams(`watch=1&resourceVersion=${start}`))
      )
      const written: Array<string> = []
      yield* Effect.scoped(
        Watch.run(
          store,
          { type, namespace: "n", options: watch, form: { _tag: "Json" } },
          (text) => Effect.sync(() => void written.push(text))
        )
      )
      assert.lengthOf(written, 1)
      assert.match(written[0] ?? "", /^\{"type":"ERROR","object":\{"kind":"Status".*"code":410\}\}\n$/)
    }).pipe(Effect.provide(temporary)))

  it.effect("tells an idle watch of a change that another one of another kind follows at once", () =>
    Effect.gen(function*() {
      const store = yield* Store
      const type = configMaps
      assert.isDefined(type)
      if (type === undefined) return
      const commit = (resource: string, name: string) => {
        store.transaction(() => Result.succeed(put(store, name, resource)))
        store.settle()
      }
      commit("configmaps", "first")
      const options = yield* Effect.fromResult(ListOptions.read(type, new URLSearchParams("watch=1&resourceVersion=0")))
      const told = yield* Queue.unbounded<string>()
      yield* Watch.run(
        store,
        { type, namespace: "n", options, form: { _tag: "Json" } },
        (text) => Effect.asVoid(Queue.offer(told, text))
      ).pipe(Effect.forkScoped)
      assert.include(yield* Queue.take(told), "\"first\"")
      // Whoever is told so soon goes on to wait.
      yield* Effect.repeat(Effect.yieldNow, { times: 10 })
      commit("configmaps", "second")
      commit("secrets", "other")
      assert.include(yield* Queue.take(told), "\"second\"")
    }).pipe(Effect.provide(temporary)))
})
