import { assert, describe, it } from "@effect/vitest"
import { ConfigMap, type ConfigMap as ConfigMapObject } from "@fast-sandbox/kube/Kinds"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import type { Change, Store } from "@fast-sandbox/kube/Store"
import { Effect, Equal, Fiber, Latch, Option, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ServerResponse } from "node:http"
import { type Answer, configMap, eventually, reply, served, status } from "./ScriptedServer.ts"

type Object = ReturnType<typeof configMap>

/** A collection with its watchers, as far as a reflector needs one. */
const makeCollection = () => {
  const objects = new Map<string, Object>()
  const watchers = new Set<ServerResponse>()
  const lists: Array<URL> = []
  const watches: Array<URL> = []
  let version = 100
  /** Taken instead of the normal answer, once each. */
  const instead: Array<Answer> = []
  const send = (type: string, object: unknown) => {
    for (const watcher of watchers) {
      watcher.write(JSON.stringify({ type, object }) + "\n")
    }
  }
  const answer: Answer = (asked, response) => {
    const isWatch = asked.url.searchParams.get("watch") === "true"
    ;(isWatch ? watches : lists).push(asked.url)
    const other = isWatch || instead.length > 1 ? instead.shift() : undefined
    if (other !== undefined) {
      return other(asked, response)
    }
    if (isWatch) {
      response.writeHead(200, { "content-type": "application/json" }).flushHeaders()
      watchers.add(response)
      response.on("close", () => watchers.delete(response))
      return
    }
    const limit = Number(asked.url.searchParams.get("limit") ?? "1000")
    const from = Number(asked.url.searchParams.get("continue") ?? "0")
    const all = Array.from(objects.values())
    reply(response, 200, {
      kind: "ConfigMapList",
      metadata: {
        resourceVersion: String(version),
        ...(from + limit < all.length ? { continue: String(from + limit) } : {})
      },
      items: all.slice(from, from + limit)
    })
  }
  return {
    answer,
    lists,
    watches,
    watchers,
    instead,
    send,
    version: () => String(version),
    put: (name: string, data: Record<string, string> = {}) => {
      const before = objects.get(name)
      const object = configMap(name, String(++version), data)
      objects.set(name, object)
      send(before === undefined ? "ADDED" : "MODIFIED", object)
    },
    remove: (name: string) => {
      const before = objects.get(name)
      objects.delete(name)
      if (before !== undefined) {
        send("DELETED", { ...before, metadata: { ...before.metadata, resourceVersion: String(++version) } })
      }
    },
    /** As `put`, while no watcher looks. */
    putUnseen: (name: string) => objects.set(name, configMap(name, String(++version))),
    removeUnseen: (name: string) => {
      version++
      objects.delete(name)
    }
  }
}

const names = <I extends string>(store: Store<ConfigMapObject, I>) =>
  Effect.map(store.list, (objects) => objects.map((object) => object.metadata.name).join())

/** Waits, for five seconds at most, until a look at the store sees what is expected. */
const shows = <A>(look: Effect.Effect<A>, expected: A): Effect.Effect<void> => {
  const again: Effect.Effect<void> = Effect.flatMap(
    look,
    (now) => Equal.equals(now, expected) ? Effect.void : Effect.andThen(Effect.sleep("5 millis"), again)
  )
  return Effect.timeoutOrElse(again, {
    duration: "5 seconds",
    orElse: () => Effect.map(look, (now) => assert.deepStrictEqual(now, expected))
  })
}

const becomes = <I extends string>(store: Store<ConfigMapObject, I>, expected: string) => shows(names(store), expected)

const short = (change: Change<ConfigMapObject>): string =>
  change._tag === "Synced" ? "Synced" : `${change._tag} ${change.object.metadata.name}`

const started = Effect.fnUntraced(function*(options?: Parameters<typeof Reflector.make<ConfigMapObject, "color">>[1]) {
  const collection = makeCollection()
  collection.put("a", { color: "red" })
  collection.put("b", { color: "blue" })
  const { context, server } = yield* served(collection.answer)
  const store = yield* Effect.provide(
    Reflector.make(ConfigMap, {
      indices: { color: (object) => object.data?.color === undefined ? [] : [object.data.color] },
      ...options
    }),
    context
  )
  return { collection, server, store }
})

const watched = (collection: { readonly watchers: ReadonlySet<unknown> }) =>
  eventually(() => collection.watchers.size === 1)

describe("Reflector", () => {
  it.live("lists in pages, follows the watch, keeps indices", () =>
    Effect.gen(function*() {
      const { collection, store } = yield* started({ pageSize: 1 })
      yield* store.synced
      assert.strictEqual(yield* names(store), "a,b")
      assert.strictEqual(collection.lists.length, 2)
      yield* watched(collection)
      assert.strictEqual(collection.watches[0]?.searchParams.get("resourceVersion"), "102")
      const timeout = Number(collection.watches[0]?.searchParams.get("timeoutSeconds"))
      assert.isTrue(timeout >= 300 && timeout <= 600, String(timeout))
      collection.put("c", { color: "red" })
      collection.put("a", { color: "blue" })
      collection.remove("b")
      yield* becomes(store, "a,c")
      const of = (color: string) =>
        Effect.map(store.byIndex("color", color), (objects) => objects.map((object) => object.metadata.name))
      assert.deepStrictEqual(yield* of("red"), ["c"])
      assert.deepStrictEqual(yield* of("blue"), ["a"])
      assert.deepStrictEqual(yield* of("green"), [])
      assert.isTrue(Option.isSome(yield* store.get({ name: "a", namespace: "default" })))
      assert.isTrue(Option.isNone(yield* store.get({ name: "b", namespace: "default" })))
    }))

  it.live("lists again when its version is too old, and reports what happened meanwhile", () =>
    Effect.gen(function*() {
      const { collection, store } = yield* started()
      yield* watched(collection)
      const seen: Array<string> = []
      const fiber = yield* store.changes.pipe(
        Stream.take(6),
        Stream.runForEach((change) => Effect.sync(() => seen.push(short(change)))),
        Effect.forkChild
      )
      yield* eventually(() => seen.includes("Synced"))
      collection.removeUnseen("a")
      collection.putUnseen("c")
      collection.send("ERROR", status(410, "Expired"))
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(seen, ["Added a", "Added b", "Synced", "Added c", "Deleted a", "Synced"])
      assert.strictEqual(collection.lists.length, 2)
    }))

  it.live("goes on where a broken connection stopped, without another list", () =>
    Effect.gen(function*() {
      const { collection, server, store } = yield* started()
      yield* watched(collection)
      collection.put("c")
      yield* becomes(store, "a,b,c")
      server.reset()
      yield* eventually(() => collection.watches.length === 2)
      assert.strictEqual(collection.watches[1]?.searchParams.get("resourceVersion"), "103")
      assert.strictEqual(collection.lists.length, 1)
      yield* watched(collection)
      collection.put("d")
      yield* becomes(store, "a,b,c,d")
    }))

  it.live("does not take half a line for an event", () =>
    Effect.gen(function*() {
      const { collection, store } = yield* started()
      yield* watched(collection)
      const line = JSON.stringify({ type: "ADDED", object: configMap("half", "999") })
      for (const watcher of collection.watchers) {
        watcher.end(line.slice(0, -1))
      }
      yield* eventually(() => collection.watches.length === 2)
      yield* watched(collection)
      assert.strictEqual(collection.watches[1]?.searchParams.get("resourceVersion"), "102")
      assert.strictEqual(yield* names(store), "a,b")
    }))

  it.live("survives garbage by listing again", () =>
    Effect.gen(function*() {
      const { collection, store } = yield* started()
      yield* watched(collection)
      for (const watcher of collection.watchers) {
        watcher.write("{]\n")
      }
      collection.putUnseen("c")
      yield* becomes(store, "a,b,c")
    }))

  it.live("moves on with bookmarks", () =>
    Effect.gen(function*() {
      const { collection } = yield* started()
      yield* watched(collection)
      collection.send("BOOKMARK", { kind: "ConfigMap", metadata: { resourceVersion: "500" } })
      for (const watcher of collection.watchers) {
        watcher.end()
      }
      yield* eventually(() => collection.watches.length === 2)
      assert.strictEqual(collection.watches[1]?.searchParams.get("resourceVersion"), "500")
      assert.strictEqual(collection.lists.length, 1)
    }))

  it.effect("replaces a half-open connection", () =>
    Effect.gen(function*() {
      const { collection, store } = yield* started()
      yield* TestClock.withLive(watched(collection))
      // The watch is read, and waits for what comes next.
      collection.put("c")
      yield* TestClock.withLive(becomes(store, "a,b,c"))
      yield* TestClock.adjust("119 seconds")
      assert.isTrue(Option.isNone((yield* store.health).problem))
      assert.strictEqual(collection.watches.length, 1)
      yield* TestClock.adjust("1 seconds")
      yield* TestClock.withLive(shows(Effect.map(store.health, ({ problem }) => Option.isSome(problem)), true))
      assert.deepInclude(Option.getOrThrow((yield* store.health).problem), { problem: "the watch fell silent" })
      yield* TestClock.adjust("1 seconds")
      yield* TestClock.withLive(eventually(() => collection.watches.length === 2 && collection.watchers.size === 1))
      assert.strictEqual(collection.lists.length, 1)
    }))

  it.live("outlives refusals, throttling and outages before the first list", () =>
    Effect.gen(function*() {
      const collection = makeCollection()
      collection.put("a")
      let asked = 0
      const { context } = yield* served((one, response) => {
        asked++
        if (asked === 1) {
          reply(response, 404, status(404, "NotFound"))
        } else if (asked === 2) {
          reply(response, 503, status(503, "ServiceUnavailable"))
        } else if (asked === 3) {
          reply(response, 429, status(429, "TooManyRequests"), { "retry-after": "0.01" })
        } else {
          collection.answer(one, response)
        }
      })
      const store = yield* Effect.provide(Reflector.make(ConfigMap), context)
      yield* eventually(() => asked === 1)
      assert.isFalse((yield* store.health).synced)
      yield* store.synced
      assert.strictEqual(yield* names(store), "a")
      assert.deepStrictEqual(yield* store.health, { synced: true, problem: Option.none() })
    }))

  it.live("fetches in one piece what expires between two pages", () =>
    Effect.gen(function*() {
      const collection = makeCollection()
      collection.put("a")
      collection.put("b")
      const { context } = yield* served((asked, response) =>
        asked.url.searchParams.has("continue")
          ? reply(response, 410, status(410, "Expired"))
          : collection.answer(asked, response)
      )
      const store = yield* Effect.provide(Reflector.make(ConfigMap, { pageSize: 1 }), context)
      yield* store.synced
      assert.strictEqual(yield* names(store), "a,b")
      assert.isFalse(collection.lists[1]?.searchParams.has("limit"))
    }))

  it.live("does not spin when every watch is refused with 410", () =>
    Effect.gen(function*() {
      const collection = makeCollection()
      const { context } = yield* served((asked, response) => {
        if (asked.url.searchParams.has("watch")) {
          collection.watches.push(asked.url)
          reply(response, 410, status(410, "Expired"))
        } else {
          collection.answer(asked, response)
        }
      })
      yield* Effect.provide(Reflector.make(ConfigMap), context)
      yield* Effect.sleep("500 millis")
      assert.isBelow(collection.watches.length, 5)
    }))

  it.live("tells a slow subscriber the sum of what happened", () =>
    Effect.gen(function*() {
      const { collection, store } = yield* started()
      yield* watched(collection)
      const gate = yield* Latch.make()
      const seen: Array<string> = []
      let isHeld = false
      const hold = Effect.suspend(() => {
        isHeld = true
        return gate.await
      })
      const fiber = yield* store.changes.pipe(
        Stream.runForEach((change) =>
          Effect.andThen(
            change._tag === "Synced" ? hold : Effect.void,
            Effect.sync(() => seen.push(short(change)))
          )
        ),
        Effect.forkChild
      )
      yield* eventually(() => isHeld)
      for (let at = 0; at < 1000; at++) {
        collection.put("a", { at: String(at) })
        collection.put("passing")
        collection.remove("passing")
      }
      collection.remove("b")
      collection.put("end")
      yield* becomes(store, "a,end")
      yield* gate.open
      yield* eventually(() => seen.includes("Added end"))
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(seen, ["Added a", "Added b", "Synced", "Modified a", "Deleted b", "Added end"])
    }))

  it.live("keeps out what does not fit its schema, and nothing else", () =>
    Effect.gen(function*() {
      const collection = makeCollection()
      collection.put("good", { k: "v" })
      collection.put("bad", {})
      const { context } = yield* served(collection.answer)
      const Strict = Schema.Struct({
        metadata: Schema.Struct({ name: Schema.String }),
        data: Schema.Struct({ k: Schema.String })
      })
      const kind = {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        namespaced: true,
        schema: Strict
      }
      const store = yield* Effect.provide(Reflector.make(kind), context)
      yield* store.synced
      assert.deepStrictEqual((yield* store.list).map((object) => object.metadata.name), ["good"])
      assert.deepStrictEqual(Array.from((yield* store.malformed).keys()), ["default/bad"])
      yield* watched(collection)
      collection.put("good", {})
      const malformed = Effect.map(store.malformed, ({ size }) => size)
      yield* shows(malformed, 2)
      assert.strictEqual((yield* store.list)[0]?.data.k, "v")
      collection.put("good", { k: "w" })
      collection.remove("bad")
      yield* shows(malformed, 0)
      assert.strictEqual((yield* store.list)[0]?.data.k, "w")
    }))

  it.live("ends with its scope", () =>
    Effect.gen(function*() {
      const collection = makeCollection()
      const { context } = yield* served(collection.answer)
      yield* Effect.scoped(
        Effect.gen(function*() {
          const store = yield* Reflector.make(ConfigMap)
          yield* store.synced
          yield* watched(collection)
        })
      ).pipe(Effect.provide(context))
      yield* eventually(() => collection.watchers.size === 0)
    }))
})
