import { assert, describe, it } from "@effect/vitest"
import type { ConfigMap } from "@fast-sandbox/kube/Kinds"
import * as Store from "@fast-sandbox/kube/Store"
import { Effect, Latch, Stream } from "effect"
import { configMap } from "./ScriptedServer.ts"

const incarnation = (name: string, uid: string, resourceVersion: string): ConfigMap => {
  const object = configMap(name, resourceVersion)
  return { ...object, metadata: { ...object.metadata, uid } }
}

const short = (change: Store.Change<ConfigMap>): string =>
  change._tag === "Synced" ? "Synced" : `${change._tag} ${change.object.metadata.uid}`

describe("Store", () => {
  it.effect("reports an object that was made again under its name as deleted and added", () =>
    Effect.gen(function*() {
      const { store, writer } = Store.make<ConfigMap, never>(undefined)
      const listening = yield* Latch.make()
      const seen: Array<string> = []
      yield* Effect.forkChild(
        Stream.runForEach(store.changes, (change) => {
          seen.push(short(change))
          return change._tag === "Synced" ? listening.open : Effect.void
        })
      )
      writer.replace([incarnation("a", "one", "1")], new Map())
      yield* listening.await
      writer.remove("default/a")
      writer.put(incarnation("a", "two", "2"))
      yield* Effect.yieldNow
      assert.deepStrictEqual(seen, ["Added one", "Synced", "Deleted one", "Added two"])
    }))

  it.effect("says nothing where nothing changed", () =>
    Effect.gen(function*() {
      const { store, writer } = Store.make<ConfigMap, never>(undefined)
      const seen: Array<string> = []
      yield* Effect.forkChild(Stream.runForEach(store.changes, (change) => Effect.sync(() => seen.push(short(change)))))
      writer.replace([incarnation("a", "one", "1")], new Map())
      yield* Effect.yieldNow
      writer.put(incarnation("a", "one", "1"))
      writer.replace([incarnation("a", "one", "1")], new Map())
      yield* Effect.yieldNow
      assert.deepStrictEqual(seen, ["Added one", "Synced", "Synced"])
    }))
})
