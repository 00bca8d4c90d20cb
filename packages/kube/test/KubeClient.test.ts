import { assert, describe, it } from "@effect/vitest"
import { ConfigMap, Namespace } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeErrorReason } from "@fast-sandbox/kube/KubeError"
import { Clock, Deferred, Effect, Fiber, Metric, Stream } from "effect"
import { clientOf, configMap, eventually, reply, served, status } from "./ScriptedServer.ts"

describe("KubeClient", () => {
  it.live("reads and writes over one kept-alive connection", () =>
    Effect.gen(function*() {
      const { client, server } = yield* served((asked, response) =>
        asked.method === "DELETE"
          ? reply(response, 200, status(200, "", "deleted"))
          : reply(response, asked.method === "POST" ? 201 : 200, configMap("a", "7", { k: "v" }))
      )
      const created = yield* client.create(ConfigMap, { metadata: { name: "a" }, data: { k: "v" } })
      const read = yield* client.get(ConfigMap, { name: "a", namespace: "other" })
      yield* client.update(ConfigMap, read, { fieldManager: "me" })
      yield* client.patch(ConfigMap, { name: "a" }, { type: "merge", body: { data: { k: null } } })
      yield* client.patch(ConfigMap, { name: "a" }, { type: "json", body: [{ op: "remove", path: "/data/k" }] })
      yield* client.apply(ConfigMap, { metadata: { name: "a" }, data: { k: "v" } }, { fieldManager: "me", force: true })
      yield* client.updateStatus(ConfigMap, read)
      yield* client.delete(ConfigMap, { name: "a" }, {
        preconditions: { uid: created.metadata.uid },
        propagationPolicy: "Background",
        gracePeriodSeconds: 0
      })
      yield* client.deleteCollection(ConfigMap, { namespace: "default", labelSelector: "a=b" })
      assert.strictEqual(server.connections(), 1)
      assert.deepStrictEqual(
        server.asked.map((asked) => `${asked.method} ${asked.url.pathname}${asked.url.search}`),
        [
          "POST /api/v1/namespaces/default/configmaps",
          "GET /api/v1/namespaces/other/configmaps/a",
          "PUT /api/v1/namespaces/default/configmaps/a?fieldManager=me",
          "PATCH /api/v1/namespaces/default/configmaps/a",
          "PATCH /api/v1/namespaces/default/configmaps/a",
          "PATCH /api/v1/namespaces/default/configmaps/a?fieldManager=me&force=true",
          "PUT /api/v1/namespaces/default/configmaps/a/status",
          "DELETE /api/v1/namespaces/default/configmaps/a",
          "DELETE /api/v1/namespaces/default/configmaps?labelSelector=a%3Db"
        ]
      )
      assert.deepStrictEqual(server.asked.map((asked) => asked.headers["content-type"]), [
        "application/json",
        undefined,
        "application/json",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/apply-patch+yaml",
        "application/json",
        "application/json",
        "application/json"
      ])
      assert.deepStrictEqual(JSON.parse(server.asked[7]?.body ?? ""), {
        apiVersion: "v1",
        kind: "DeleteOptions",
        preconditions: { uid: "uid-a" },
        propagationPolicy: "Background",
        gracePeriodSeconds: 0
      })
      assert.strictEqual(server.asked[0]?.headers.authorization, "Bearer secret")
      assert.match(server.asked[0]?.headers.traceparent as string, /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/)
    }))

  it.live("keeps the fields that it does not know", () =>
    Effect.gen(function*() {
      const stored = { ...configMap("a", "7"), novel: { deep: [1, { x: null }] } }
      const { client, server } = yield* served((_, response) => reply(response, 200, stored))
      yield* client.update(ConfigMap, yield* client.get(ConfigMap, { name: "a" }))
      assert.deepStrictEqual(JSON.parse(server.asked[1]?.body ?? ""), stored)
    }))

  it.live("lists pages, with the kind put back into the items", () =>
    Effect.gen(function*() {
      const { apiVersion: _, kind: __, ...item } = configMap("a", "7")
      const { client, server } = yield* served((_, response) =>
        reply(response, 200, {
          kind: "ConfigMapList",
          metadata: { resourceVersion: "9", continue: "more", remainingItemCount: 3 },
          items: [item]
        })
      )
      const page = yield* client.list(ConfigMap, { limit: 1, labelSelector: "app in (a,b)", resourceVersion: "0" })
      assert.strictEqual(page.items[0]?.kind, "ConfigMap")
      assert.strictEqual(page.items[0]?.apiVersion, "v1")
      assert.strictEqual(page.resourceVersion, "9")
      assert.strictEqual(page.continue, "more")
      assert.strictEqual(page.remainingItemCount, 3)
      assert.strictEqual(server.asked[0]?.url.pathname, "/api/v1/configmaps")
      assert.strictEqual(server.asked[0]?.url.searchParams.get("labelSelector"), "app in (a,b)")
      yield* client.list(Namespace, { namespace: "ignored" })
      assert.strictEqual(server.asked[1]?.url.pathname, "/api/v1/namespaces")
    }))

  const meanings: ReadonlyArray<readonly [number, unknown, KubeErrorReason["_tag"]]> = [
    [400, status(400, "BadRequest"), "BadRequest"],
    [401, status(401, "Unauthorized"), "Unauthorized"],
    [403, status(403, "Forbidden"), "Forbidden"],
    [404, status(404, "NotFound"), "NotFound"],
    [404, "404 page not found", "NotFound"],
    [405, status(405, "MethodNotAllowed"), "BadRequest"],
    [409, status(409, "Conflict"), "Conflict"],
    [409, status(409, "AlreadyExists"), "AlreadyExists"],
    [410, status(410, "Expired"), "Gone"],
    [415, status(415, "UnsupportedMediaType"), "BadRequest"],
    [500, status(500, "InternalError"), "ServerError"],
    [500, status(500, "ServerTimeout"), "Timeout"],
    [503, "<html>", "Unavailable"],
    [504, status(504, "Timeout"), "Timeout"],
    [200, "not json", "MalformedResponse"],
    [200, { no: "metadata" }, "MalformedResponse"]
  ]
  for (const [code, body, tag] of meanings) {
    it.live(`takes ${code} ${JSON.stringify(body).slice(0, 90)} for ${tag}`, () =>
      Effect.gen(function*() {
        const { client } = yield* served((_, response) =>
          typeof body === "string" ? response.writeHead(code).end(body) : reply(response, code, body)
        )
        const error = yield* Effect.flip(client.create(ConfigMap, { metadata: { name: "a" } }))
        assert.strictEqual(error.reason._tag, tag)
        assert.strictEqual(error.method, "POST")
        assert.strictEqual(error.path, "/api/v1/namespaces/default/configmaps")
        assert.strictEqual(error.kind, "ConfigMap")
        assert.strictEqual(error.name, "a")
      }))
  }

  it.live("says which fields are invalid", () =>
    Effect.gen(function*() {
      const { client } = yield* served((_, response) =>
        reply(
          response,
          422,
          status(422, "Invalid", "a is invalid", {
            causes: [{ reason: "FieldValueRequired", message: "Required value", field: "spec.image" }]
          })
        )
      )
      const error = yield* Effect.flip(client.get(ConfigMap, { name: "a" }))
      assert.strictEqual(error.reason._tag, "Invalid")
      if (error.reason._tag === "Invalid") {
        assert.deepStrictEqual({ ...error.reason.causes[0] }, {
          field: "spec.image",
          reason: "FieldValueRequired",
          message: "Required value"
        })
      }
    }))

  it.live("waits out throttling, as long as it was told", () =>
    Effect.gen(function*() {
      let left = 2
      const { client, server } = yield* served((_, response) =>
        left-- > 0
          ? reply(response, 429, status(429, "TooManyRequests"), { "retry-after": "0.05" })
          : reply(response, 201, configMap("a", "1"))
      )
      const before = yield* Clock.currentTimeMillis
      yield* client.create(ConfigMap, { metadata: { name: "a" } })
      assert.isAtLeast((yield* Clock.currentTimeMillis) - before, 100)
      assert.strictEqual(server.asked.length, 3)
    }))

  it.live("gives up on throttling that does not end", () =>
    Effect.gen(function*() {
      const { client, server } = yield* served((_, response) =>
        reply(response, 429, status(429, "TooManyRequests"), { "retry-after": "0.01" })
      )
      const error = yield* Effect.flip(client.get(ConfigMap, { name: "a" }))
      assert.strictEqual(error.reason._tag, "TooManyRequests")
      assert.strictEqual(server.asked.length, 5)
    }))

  it.live("repeats a broken read but never a broken write", () =>
    Effect.gen(function*() {
      let broken = 1
      const { client, server } = yield* served((_, response) => {
        if (broken-- > 0) {
          response.socket?.resetAndDestroy()
        } else {
          reply(response, 200, configMap("a", "1"))
        }
      })
      yield* client.get(ConfigMap, { name: "a" })
      assert.strictEqual(server.asked.length, 2)
      broken = 1
      const error = yield* Effect.flip(client.create(ConfigMap, { metadata: { name: "a" } }))
      assert.deepInclude(error.reason, { _tag: "Unavailable", sent: true })
      assert.strictEqual(server.asked.length, 3)
    }))

  it.live("knows that nothing was sent where nobody listens", () =>
    Effect.gen(function*() {
      const { server } = yield* Effect.scoped(served(() => {}))
      const client = yield* Effect.provide(KubeClient, clientOf(server))
      const error = yield* Effect.flip(client.create(ConfigMap, { metadata: { name: "a" } }))
      assert.deepInclude(error.reason, { _tag: "Unavailable", sent: false })
    }))

  it.live("gives up when the server does not answer, and closes the connection", () =>
    Effect.gen(function*() {
      const { client, server } = yield* served(() => {}, { requestTimeout: "50 millis" })
      const error = yield* Effect.flip(client.get(ConfigMap, { name: "a" }))
      assert.strictEqual(error.reason._tag, "Timeout")
      yield* eventually(() => server.open() === 0)
    }))

  it.live("aborts the request when its fiber is interrupted", () =>
    Effect.gen(function*() {
      const arrived = yield* Deferred.make<void>()
      const { client, server } = yield* served(() => Effect.runFork(Deferred.succeed(arrived, undefined)))
      const fiber = yield* Effect.forkChild(client.get(ConfigMap, { name: "a" }))
      yield* Deferred.await(arrived)
      assert.strictEqual(server.open(), 1)
      yield* Fiber.interrupt(fiber)
      yield* eventually(() => server.open() === 0)
    }))

  it.live("counts its calls", () =>
    Effect.gen(function*() {
      const { client } = yield* served((_, response) => reply(response, 404, status(404, "NotFound")))
      yield* Effect.flip(client.get(Namespace, { name: "a" }))
      const counted = (yield* Metric.snapshot).filter((metric) =>
        metric.id === "fsb_kube_client_calls_total" && metric.attributes?.kind === "Namespace" &&
        metric.attributes.code === "NotFound" && metric.attributes.verb === "get"
      )
      assert.strictEqual(counted.length, 1)
    }))

  it.live("watches: events, bookmarks, an end", () =>
    Effect.gen(function*() {
      const lines = [
        { type: "ADDED", object: configMap("a", "1") },
        { type: "MODIFIED", object: configMap("ä€😀", "2") },
        { type: "BOOKMARK", object: { kind: "ConfigMap", metadata: { resourceVersion: "5" } } },
        { type: "DELETED", object: configMap("a", "6") }
      ].map((event) => JSON.stringify(event) + "\n").join("")
      const { client, server } = yield* served((_, response) => {
        const bytes = Buffer.from(lines)
        response.writeHead(200, { "content-type": "application/json" })
        for (let at = 0; at < bytes.length; at += 7) {
          response.write(bytes.subarray(at, at + 7))
        }
        response.end()
      })
      const events = yield* client.watch(ConfigMap, { resourceVersion: "0", timeout: "90 seconds" }).pipe(
        Stream.runCollect
      )
      assert.deepStrictEqual(
        events.map((event) => [
          event._tag,
          event._tag === "Bookmark" ? event.resourceVersion : event.object.metadata.name
        ]),
        [["Added", "a"], ["Modified", "ä€😀"], ["Bookmark", "5"], ["Deleted", "a"]]
      )
      assert.strictEqual(
        server.asked[0]?.url.search,
        "?watch=true&allowWatchBookmarks=true&resourceVersion=0&timeoutSeconds=90"
      )
    }))

  it.live("fails a watch whose version is too old with Gone, and one that breaks with Unavailable", () =>
    Effect.gen(function*() {
      const gone = yield* served((_, response) =>
        response.writeHead(200).end(JSON.stringify({ type: "ERROR", object: status(410, "Expired") }) + "\n")
      )
      const first = yield* Effect.flip(Stream.runDrain(gone.client.watch(ConfigMap)))
      assert.strictEqual(first.reason._tag, "Gone")
      const broken = yield* served((_, response) => {
        response.writeHead(200).write(JSON.stringify({ type: "ADDED", object: configMap("a", "1") }) + "\n{\"type")
        setTimeout(() => response.socket?.resetAndDestroy(), 20)
      })
      const seen: Array<string> = []
      const second = yield* broken.client.watch(ConfigMap).pipe(
        Stream.runForEach((event) => Effect.sync(() => seen.push(event._tag))),
        Effect.flip
      )
      assert.strictEqual(second.reason._tag, "Unavailable")
      assert.deepStrictEqual(seen, ["Added"])
    }))

  it.live("closes the connection of a watch that nobody reads any more", () =>
    Effect.gen(function*() {
      const { client, server } = yield* served((_, response) => {
        response.writeHead(200).write(JSON.stringify({ type: "ADDED", object: configMap("a", "1") }) + "\n")
      })
      yield* client.watch(ConfigMap).pipe(Stream.take(1), Stream.runDrain)
      yield* eventually(() => server.open() === 0)
    }))

  it.live("does not read ahead of a slow reader without bound", () =>
    Effect.gen(function*() {
      let written = 0
      const { client } = yield* served((_, response) => {
        response.writeHead(200)
        const line = JSON.stringify({ type: "MODIFIED", object: configMap("a", "1", { k: "x".repeat(60_000) }) }) + "\n"
        const pump = () => {
          while (written < 100_000_000 && response.write(line)) {
            written += line.length
          }
        }
        response.on("drain", pump)
        pump()
      })
      const fiber = yield* client.watch(ConfigMap).pipe(
        Stream.runForEach(() => Effect.never),
        Effect.forkChild
      )
      yield* Effect.sleep("300 millis")
      const settled = written
      yield* Effect.sleep("100 millis")
      assert.strictEqual(written, settled)
      assert.isBelow(written, 50_000_000)
      yield* Fiber.interrupt(fiber)
    }))

  it.live("asks for anything else by its path", () =>
    Effect.gen(function*() {
      const { client, server } = yield* served((asked, response) =>
        asked.url.pathname === "/healthz" ? response.end("ok") : reply(response, 200, { gitVersion: "v1.35" })
      )
      assert.strictEqual(yield* client.request({ path: "/healthz", query: { verbose: true } }), "ok")
      assert.deepStrictEqual(yield* client.request({ path: "/version" }), { gitVersion: "v1.35" })
      assert.strictEqual(server.asked[0]?.url.search, "?verbose=true")
    }))
})
