/**
 * The protocol that all kinds share: verbs, errors, selectors, lists, watches, patches, deletion and its collector.
 */
import { assert, describe, layer } from "@effect/vitest"
import type { Json, JsonObject } from "@fast-sandbox/local/apiserver/Json"
import { Effect } from "effect"
import { statSync } from "node:fs"
import { arrayAt, at, eventually, freshNamespace, numberAt, objectAt, stringAt, TestServer } from "./TestServer.ts"

const configMap = (name: string, data: JsonObject = {}, metadata: JsonObject = {}): JsonObject => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, ...metadata },
  data
})

const pod = (name: string, metadata: JsonObject = {}, spec: JsonObject = {}): JsonObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, ...metadata },
  spec: { containers: [{ name: "main", image: "busybox" }], ...spec }
})

const names = (list: JsonObject): ReadonlyArray<string> =>
  arrayAt(list, "items").map((entry) => stringAt(entry, "metadata", "name") ?? "")

const versionOf = (object: JsonObject): string => stringAt(object, "metadata", "resourceVersion") ?? ""

const review = (spec: JsonObject) => ({ apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", spec })

const merge = { contentType: "application/merge-patch+json" }

describe("the protocol", () => {
  layer(TestServer.layer, { excludeTestServices: true })((it) => {
    it.effect("asks every request for the token, and keeps its files private", () =>
      Effect.gen(function*() {
        const { dataDirectory, request } = yield* TestServer
        for (const token of ["", "wrong"]) {
          const reply = yield* request("GET", "/healthz", { token })
          assert.strictEqual(reply.code, 401)
          assert.strictEqual(stringAt(reply.body, "reason"), "Unauthorized")
        }
        assert.strictEqual((yield* request("GET", "/readyz")).text, "ok")
        for (const file of ["kubeconfig", "token", "ca.key", "server.key"]) {
          assert.strictEqual(statSync(`${dataDirectory}/${file}`).mode & 0o777, 0o600, file)
        }
      }))

    it.effect("tells what it serves", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        assert.deepStrictEqual(at((yield* request("GET", "/api")).body, "versions"), ["v1"])
        const groups = arrayAt((yield* request("GET", "/apis")).body, "groups").map((entry) => stringAt(entry, "name"))
        assert.includeMembers(groups, ["coordination.k8s.io", "apiextensions.k8s.io", "events.k8s.io"])
        const aggregated = yield* request("GET", "/apis", {
          accept: "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        })
        assert.strictEqual(
          aggregated.headers["content-type"],
          "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        )
        assert.strictEqual(stringAt(aggregated.body, "kind"), "APIGroupDiscoveryList")
        assert.property(at((yield* request("GET", "/openapi/v3")).body, "paths"), "apis/coordination.k8s.io/v1")
        const document = yield* request("GET", "/openapi/v3/api/v1")
        assert.strictEqual(stringAt(document.body, "openapi"), "3.0.0")
        assert.strictEqual((yield* request("GET", "/apis/nothing.here/v1/things")).code, 404)
        assert.strictEqual(stringAt((yield* request("GET", "/version")).body, "minor"), "35")
      }))

    it.effect("creates, reads, replaces and deletes", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const namespace = yield* freshNamespace("crud")
        const path = `/api/v1/namespaces/${namespace}/configmaps`
        const created = yield* request("POST", path, { body: configMap("a", { k: "v" }) })
        assert.strictEqual(created.code, 201)
        assert.match(stringAt(created.body, "metadata", "uid") ?? "", /^[0-9a-f-]{36}$/)
        const twice = yield* request("POST", path, { body: configMap("a") })
        assert.strictEqual(twice.code, 409)
        assert.strictEqual(stringAt(twice.body, "message"), "configmaps \"a\" already exists")
        assert.strictEqual(stringAt(twice.body, "reason"), "AlreadyExists")
        const replaced = yield* request("PUT", `${path}/a`, { body: { ...created.body, data: { k: "w" } } })
        assert.strictEqual(replaced.code, 200)
        const stale = yield* request("PUT", `${path}/a`, { body: { ...created.body, data: { k: "x" } } })
        assert.strictEqual(stale.code, 409)
        assert.strictEqual(
          stringAt(stale.body, "message"),
          "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
        )
        const same = yield* request("PUT", `${path}/a`, { body: replaced.body })
        assert.strictEqual(versionOf(same.body), versionOf(replaced.body))
        const generated = yield* request("POST", path, { body: configMap("", {}, { name: "", generateName: "gen-" }) })
        assert.match(stringAt(generated.body, "metadata", "name") ?? "", /^gen-[a-z0-9]{5}$/)
        const wrongUid = yield* request("DELETE", `${path}/a`, { body: { preconditions: { uid: "other" } } })
        assert.strictEqual(wrongUid.code, 409)
        assert.include(
          stringAt(wrongUid.body, "message"),
          "Precondition failed: UID in precondition: other, UID in object meta: "
        )
        const wrongVersion = yield* request("DELETE", `${path}/a`, {
          body: { preconditions: { resourceVersion: "1" } }
        })
        assert.strictEqual(wrongVersion.code, 409)
        const deleted = yield* request("DELETE", `${path}/a`)
        assert.strictEqual(stringAt(deleted.body, "status"), "Success")
        const gone = yield* request("GET", `${path}/a`)
        assert.strictEqual(gone.code, 404)
        assert.strictEqual(stringAt(gone.body, "message"), "configmaps \"a\" not found")
        assert.strictEqual((yield* request("DELETE", `${path}/a`)).code, 404)
      }))

    it.effect("refuses bad names, foreign namespaces, bad bodies and changes of identity", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const namespace = yield* freshNamespace("refusals")
        const path = `/api/v1/namespaces/${namespace}/configmaps`
        const created = yield* request("POST", path, { body: configMap("fixed") })
        const cases: ReadonlyArray<readonly [string, string, Json | string, number, string]> = [
          ["POST", path, configMap("Bad_Name"), 422, "Invalid"],
          ["POST", path, configMap(""), 422, "Invalid"],
          ["POST", path, configMap("a", { "bad key": "x" }), 422, "Invalid"],
          ["POST", path, configMap("a", {}, { labels: { "-": "x" } }), 422, "Invalid"],
          ["POST", path, configMap("a", {}, { namespace: "other" }), 400, "BadRequest"],
          ["POST", path, { ...configMap("a"), kind: "Secret" }, 400, "BadRequest"],
          ["POST", path, { ...configMap("a"), apiVersion: "v2" }, 400, "BadRequest"],
          ["POST", path, "{", 400, "BadRequest"],
          ["POST", "/api/v1/namespaces/missing/configmaps", configMap("a"), 404, "NotFound"],
          ["POST", path, configMap("a", {}, { resourceVersion: "5" }), 400, "BadRequest"],
          ["POST", `${path}?dryRun=Some`, configMap("a"), 422, "Invalid"],
          ["PUT", `${path}/other`, created.body, 400, "BadRequest"],
          ["PUT", `${path}/fixed`, configMap("fixed", {}, { uid: "other" }), 409, "Conflict"],
          ["PUT", `${path}/missing`, configMap("missing"), 404, "NotFound"],
          ["POST", `${path}/fixed`, configMap("fixed"), 405, "MethodNotAllowed"]
        ]
        for (const [method, to, body, code, reason] of cases) {
          const reply = yield* request(method, to, { body })
          assert.strictEqual(reply.code, code, `${method} ${to} ${JSON.stringify(body)}: ${reply.text}`)
          assert.strictEqual(stringAt(reply.body, "reason"), reason)
        }
        assert.strictEqual((yield* request("POST", path, { body: "x: 1", contentType: "application/xml" })).code, 415)
        assert.strictEqual((yield* request("GET", path, { accept: "text/html" })).code, 406)
        assert.strictEqual(
          (yield* request("POST", path, { body: configMap("big", { k: "x".repeat(4 * 1024 * 1024) }) })).code,
          413
        )
      }))

    it.effect("rehearses a dry run", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("dry")}/configmaps`
        assert.strictEqual((yield* request("POST", `${path}?dryRun=All`, { body: configMap("a") })).code, 201)
        assert.strictEqual((yield* request("GET", `${path}/a`)).code, 404)
        yield* request("POST", path, { body: configMap("a") })
        assert.strictEqual((yield* request("DELETE", `${path}/a?dryRun=All`)).code, 200)
        assert.strictEqual((yield* request("GET", `${path}/a`)).code, 200)
      }))

    it.effect("selects by labels and fields", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const namespace = yield* freshNamespace("select")
        const path = `/api/v1/namespaces/${namespace}/pods`
        yield* request("POST", path, { body: pod("a", { labels: { app: "x", tier: "1" } }, { nodeName: "n1" }) })
        yield* request("POST", path, { body: pod("b", { labels: { app: "y" } }) })
        yield* request("POST", path, { body: pod("c", { labels: { app: "x" } }) })
        const cases: ReadonlyArray<readonly [string, ReadonlyArray<string>]> = [
          ["labelSelector=app=x", ["a", "c"]],
          ["labelSelector=app==y", ["b"]],
          ["labelSelector=app!=x", ["b"]],
          ["labelSelector=app in (x, y),tier", ["a"]],
          ["labelSelector=app notin (x)", ["b"]],
          ["labelSelector=!tier", ["b", "c"]],
          ["fieldSelector=metadata.name=b", ["b"]],
          ["fieldSelector=spec.nodeName=n1", ["a"]],
          ["fieldSelector=spec.nodeName!=n1", ["b", "c"]],
          ["fieldSelector=status.phase=Pending&labelSelector=app=x", ["a", "c"]],
          [`fieldSelector=metadata.namespace=${namespace}`, ["a", "b", "c"]]
        ]
        for (const [query, expected] of cases) {
          const reply = yield* request("GET", `${path}?${query}`)
          assert.deepStrictEqual(names(reply.body), expected, `${query} ${reply.text.slice(0, 200)}`)
        }
        assert.strictEqual((yield* request("GET", `${path}?labelSelector=a in`)).code, 400)
        assert.strictEqual((yield* request("GET", `${path}?fieldSelector=spec.nope=1`)).code, 400)
      }))

    it.effect("lists in pages of one snapshot", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("pages")}/configmaps`
        for (const name of ["a", "b", "c", "d", "e"]) {
          yield* request("POST", path, { body: configMap(name, { k: "old" }) })
        }
        const first = yield* request("GET", `${path}?limit=2`)
        assert.deepStrictEqual(names(first.body), ["a", "b"])
        assert.strictEqual(numberAt(first.body, "metadata", "remainingItemCount"), 3)
        yield* request("DELETE", `${path}/c`)
        yield* request("PATCH", `${path}/d`, { body: { data: { k: "new" } }, ...merge })
        yield* request("POST", path, { body: configMap("cc") })
        const token = encodeURIComponent(stringAt(first.body, "metadata", "continue") ?? "")
        const second = yield* request("GET", `${path}?limit=2&continue=${token}`)
        assert.deepStrictEqual(names(second.body), ["c", "d"])
        assert.strictEqual(stringAt(arrayAt(second.body, "items")[1], "data", "k"), "old")
        assert.strictEqual(versionOf(second.body), versionOf(first.body))
        const last = encodeURIComponent(stringAt(second.body, "metadata", "continue") ?? "")
        const third = yield* request("GET", `${path}?limit=2&continue=${last}`)
        assert.deepStrictEqual(names(third.body), ["e"])
        assert.isUndefined(at(third.body, "metadata", "continue"))
        const exact = yield* request(
          "GET",
          `${path}?resourceVersion=${versionOf(first.body)}&resourceVersionMatch=Exact`
        )
        assert.deepStrictEqual(names(exact.body), ["a", "b", "c", "d", "e"])
        assert.deepStrictEqual(names((yield* request("GET", path)).body), ["a", "b", "cc", "d", "e"])
        assert.strictEqual((yield* request("GET", `${path}?continue=zzz`)).code, 400)
        const future = yield* request("GET", `${path}?resourceVersion=999999999`)
        assert.strictEqual(future.code, 504)
        assert.include(future.text, "ResourceVersionTooLarge")
        assert.strictEqual((yield* request("GET", `${path}?resourceVersionMatch=Exact`)).code, 422)
      }))

    it.effect("watches from a version, from now with what is there, and through a selector", () =>
      Effect.scoped(Effect.gen(function*() {
        const { request, watch } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("watch")}/configmaps`
        const before = yield* request("GET", path)
        yield* request("POST", path, { body: configMap("a", {}, { labels: { on: "1" } }) })
        const resumed = yield* watch(`${path}?watch=true&resourceVersion=${versionOf(before.body)}`)
        const selected = yield* watch(`${path}?watch=1&labelSelector=on=1&resourceVersion=${versionOf(before.body)}`)
        const fresh = yield* watch(
          `${path}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan`
        )
        const any = yield* watch(`${path}?watch=1&resourceVersion=0`)
        for (const stream of [resumed, selected, fresh, any]) {
          const event = yield* stream.next
          assert.strictEqual(event?.type, "ADDED")
          assert.strictEqual(stringAt(event?.object, "metadata", "name"), "a")
        }
        const bookmark = yield* fresh.next
        assert.strictEqual(bookmark?.type, "BOOKMARK")
        assert.strictEqual(stringAt(bookmark?.object, "metadata", "annotations", "k8s.io/initial-events-end"), "true")
        yield* request("PATCH", `${path}/a`, { body: { metadata: { labels: { on: "0" } } }, ...merge })
        assert.strictEqual((yield* resumed.next)?.type, "MODIFIED")
        const left = yield* selected.next
        assert.strictEqual(left?.type, "DELETED")
        assert.strictEqual(stringAt(left?.object, "metadata", "labels", "on"), "1")
        yield* request("PATCH", `${path}/a`, { body: { metadata: { labels: { on: "1" } } }, ...merge })
        assert.strictEqual((yield* selected.next)?.type, "ADDED")
        yield* resumed.next
        const deleted = yield* request("DELETE", `${path}/a`)
        assert.strictEqual(deleted.code, 200)
        const last = yield* resumed.next
        assert.strictEqual(last?.type, "DELETED")
        const current = yield* request("GET", path)
        assert.isAbove(Number(versionOf(last?.object ?? {})), Number(versionOf(before.body)))
        assert.isAtMost(Number(versionOf(last?.object ?? {})), Number(versionOf(current.body)))
        const short = yield* watch(`${path}?watch=1&timeoutSeconds=1&resourceVersion=${versionOf(current.body)}`)
        assert.isUndefined(yield* short.next)
        const table = yield* watch(`${path}?watch=1&resourceVersion=${versionOf(before.body)}`, {
          accept: "application/json;as=Table;v=v1;g=meta.k8s.io"
        })
        const firstRow = yield* table.next
        assert.strictEqual(stringAt(firstRow?.object, "kind"), "Table")
        assert.isAbove(arrayAt(firstRow?.object, "columnDefinitions").length, 0)
        assert.isNull(at((yield* table.next)?.object, "columnDefinitions") ?? null)
        assert.strictEqual((yield* request("GET", `${path}?watch=1&sendInitialEvents=true`)).code, 422)
      })))

    it.effect("patches in each of the four ways", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("patch")}/pods`
        const created = yield* request("POST", path, {
          body: pod("a", {}, {
            containers: [{ name: "main", image: "one", env: [{ name: "A", value: "1" }] }, { name: "side", image: "s" }]
          })
        })
        const strategic = yield* request("PATCH", `${path}/a`, {
          body: { spec: { containers: [{ name: "side", image: "t" }] }, metadata: { labels: { x: "y" } } },
          contentType: "application/strategic-merge-patch+json"
        })
        assert.strictEqual(strategic.code, 200, strategic.text)
        assert.deepStrictEqual(arrayAt(strategic.body, "spec", "containers").map((entry) => stringAt(entry, "image")), [
          "one",
          "t"
        ])
        assert.strictEqual(numberAt(strategic.body, "metadata", "generation"), 2)
        const operations = [
          { op: "test", path: "/spec/containers/0/image", value: "one" },
          { op: "replace", path: "/spec/containers/0/image", value: "two" },
          { op: "add", path: "/metadata/labels/a~1b", value: "z" },
          { op: "remove", path: "/metadata/labels/x" }
        ]
        const json = yield* request("PATCH", `${path}/a`, {
          body: operations,
          contentType: "application/json-patch+json"
        })
        assert.strictEqual(json.code, 200, json.text)
        assert.deepStrictEqual(at(json.body, "metadata", "labels"), { "a/b": "z" })
        const again = yield* request("PATCH", `${path}/a`, {
          body: operations,
          contentType: "application/json-patch+json"
        })
        assert.strictEqual(again.code, 422)
        const merged = yield* request("PATCH", `${path}/a`, { body: { metadata: { labels: null } }, ...merge })
        assert.isUndefined(at(merged.body, "metadata", "labels"))
        const stale = yield* request("PATCH", `${path}/a`, {
          body: { metadata: { resourceVersion: versionOf(created.body), labels: { q: "1" } } },
          ...merge
        })
        assert.strictEqual(stale.code, 409)
        const frozen = yield* request("PATCH", `${path}/a`, { body: { spec: { restartPolicy: "Never" } }, ...merge })
        assert.strictEqual(frozen.code, 422)
        assert.include(
          stringAt(frozen.body, "message"),
          "spec: Forbidden: pod updates may not change fields other than"
        )
        const applied = yield* request("PATCH", `${path}/b?fieldManager=me`, {
          body: pod("b"),
          contentType: "application/apply-patch+yaml"
        })
        assert.strictEqual(applied.code, 201, applied.text)
        assert.deepStrictEqual(at(arrayAt(applied.body, "metadata", "managedFields")[0], "fieldsV1", "f:spec"), {
          "f:containers": { "k:{\"name\":\"main\"}": { ".": {}, "f:image": {}, "f:name": {} } }
        })
        assert.strictEqual(
          (yield* request("PATCH", `${path}/a`, { body: {}, contentType: "application/json" })).code,
          415
        )
      }))

    it.effect("defaults and guards Pods as the real server does", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("pods")}/pods`
        const { body } = yield* request("POST", path, {
          body: { ...pod("a", {}, { nodeName: "n" }), status: { phase: "Running" } }
        })
        assert.strictEqual(stringAt(body, "status", "phase"), "Pending")
        assert.strictEqual(stringAt(body, "status", "qosClass"), "BestEffort")
        assert.strictEqual(stringAt(body, "spec", "restartPolicy"), "Always")
        const container = arrayAt(body, "spec", "containers")[0]
        assert.strictEqual(stringAt(container, "imagePullPolicy"), "Always")
        assert.strictEqual(stringAt(container, "terminationMessagePolicy"), "File")
        const missing = yield* request("POST", path, { body: pod("b", {}, { containers: [] }) })
        assert.strictEqual(stringAt(missing.body, "message"), "Pod \"b\" is invalid: spec.containers: Required value")
        const wrong = yield* request("POST", path, { body: pod("b", {}, { containers: "x" }) })
        assert.strictEqual(wrong.code, 400)
        assert.include(
          stringAt(wrong.body, "message"),
          "cannot unmarshal string into Go struct field Pod.spec.containers"
        )
        const unknown = yield* request("POST", `${path}?fieldValidation=Strict`, {
          body: pod("b", {}, { nodename: "x" })
        })
        assert.strictEqual(
          stringAt(unknown.body, "message"),
          "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.nodename\""
        )
        const status = yield* request("PATCH", `${path}/a/status`, {
          body: { status: { phase: "Running" }, spec: { nodeName: "m" } },
          ...merge
        })
        assert.strictEqual(stringAt(status.body, "status", "phase"), "Running")
        assert.strictEqual(stringAt(status.body, "spec", "nodeName"), "n")
        // A bound, running Pod is given its grace period and goes when its runner deletes it with none.
        const graceful = yield* request("DELETE", `${path}/a`, { body: { gracePeriodSeconds: 20 } })
        assert.strictEqual(numberAt(graceful.body, "metadata", "deletionGracePeriodSeconds"), 20)
        assert.isString(at(graceful.body, "metadata", "deletionTimestamp"))
        assert.strictEqual((yield* request("GET", `${path}/a`)).code, 200)
        const final = yield* request("DELETE", `${path}/a`, { body: { gracePeriodSeconds: 0 } })
        assert.strictEqual(final.code, 200)
        assert.strictEqual((yield* request("GET", `${path}/a`)).code, 404)
      }))

    it.effect("holds an object until its finalizers are gone", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("final")}/configmaps`
        yield* request("POST", path, { body: configMap("a", {}, { finalizers: ["test.fast.io/hold"] }) })
        const marked = yield* request("DELETE", `${path}/a`)
        assert.strictEqual(marked.code, 200)
        assert.isString(at(marked.body, "metadata", "deletionTimestamp"))
        const added = yield* request("PATCH", `${path}/a`, {
          body: { metadata: { finalizers: ["test.fast.io/hold", "test.fast.io/more"] } },
          ...merge
        })
        assert.strictEqual(added.code, 422)
        assert.include(
          stringAt(added.body, "message"),
          "metadata.finalizers: Forbidden: no new finalizers can be added"
        )
        yield* request("PATCH", `${path}/a`, { body: { metadata: { finalizers: null } }, ...merge })
        assert.strictEqual((yield* request("GET", `${path}/a`)).code, 404)
      }))

    it.effect("collects dependents in the background, in the foreground, or orphans them", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("gc")}/configmaps`
        const family = Effect.fnUntraced(function*(name: string) {
          const { body } = yield* request("POST", path, { body: configMap(name) })
          const owner = {
            apiVersion: "v1",
            kind: "ConfigMap",
            name,
            uid: stringAt(body, "metadata", "uid") ?? "",
            blockOwnerDeletion: true,
            controller: true
          }
          yield* request("POST", path, { body: configMap(`${name}-child`, {}, { ownerReferences: [owner] }) })
          yield* request("POST", path, {
            body: configMap(`${name}-held`, {}, { ownerReferences: [owner], finalizers: ["test.fast.io/hold"] })
          })
        })
        const code = (name: string) => Effect.map(request("GET", `${path}/${name}`), (reply) => reply.code)
        const release = (name: string) =>
          request("PATCH", `${path}/${name}`, { body: { metadata: { finalizers: null } }, ...merge })
        yield* family("back")
        yield* request("DELETE", `${path}/back?propagationPolicy=Background`)
        assert.strictEqual(yield* code("back"), 404)
        yield* eventually(code("back-child"), (value) => value === 404)
        yield* release("back-held")
        yield* eventually(code("back-held"), (value) => value === 404)
        yield* family("fore")
        yield* request("DELETE", `${path}/fore`, { body: { propagationPolicy: "Foreground" } })
        yield* eventually(code("fore-child"), (value) => value === 404)
        assert.strictEqual(yield* code("fore"), 200)
        yield* eventually(
          request("GET", `${path}/fore-held`),
          ({ body }) => at(body, "metadata", "deletionTimestamp") !== undefined
        )
        yield* release("fore-held")
        yield* eventually(code("fore"), (value) => value === 404)
        yield* family("orph")
        yield* request("DELETE", `${path}/orph`, { body: { propagationPolicy: "Orphan" } })
        yield* eventually(code("orph"), (value) => value === 404)
        const orphan = yield* request("GET", `${path}/orph-child`)
        assert.strictEqual(orphan.code, 200)
        assert.isUndefined(at(orphan.body, "metadata", "ownerReferences"))
      }))

    it.effect("empties a namespace before it goes", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const namespace = yield* freshNamespace("emptied")
        const path = `/api/v1/namespaces/${namespace}`
        yield* request("POST", `${path}/configmaps`, {
          body: configMap("a", {}, { finalizers: ["test.fast.io/hold"] })
        })
        yield* request("POST", `${path}/pods`, { body: pod("p") })
        const deleted = yield* request("DELETE", path)
        assert.strictEqual(stringAt(deleted.body, "status", "phase"), "Terminating")
        yield* eventually(request("GET", `${path}/pods/p`), ({ code }) => code === 404)
        const refused = yield* request("POST", `${path}/configmaps`, { body: configMap("b") })
        assert.strictEqual(refused.code, 403)
        assert.strictEqual(stringAt(arrayAt(refused.body, "details", "causes")[0], "reason"), "NamespaceTerminating")
        assert.strictEqual((yield* request("GET", path)).code, 200)
        yield* request("PATCH", `${path}/configmaps/a`, { body: { metadata: { finalizers: null } }, ...merge })
        yield* eventually(request("GET", path), ({ code }) => code === 404)
        assert.strictEqual((yield* request("DELETE", "/api/v1/namespaces/default")).code, 403)
      }))

    it.effect("deletes collections by selector", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("many")}/configmaps`
        yield* request("POST", path, { body: configMap("a", {}, { labels: { x: "1" } }) })
        yield* request("POST", path, { body: configMap("b") })
        const reply = yield* request("DELETE", `${path}?labelSelector=x=1`)
        assert.strictEqual(reply.code, 200)
        assert.deepStrictEqual(names((yield* request("GET", path)).body), ["b"])
      }))

    it.effect("keeps events in both of their groups", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const namespace = yield* freshNamespace("events")
        const event = {
          apiVersion: "v1",
          kind: "Event",
          metadata: { name: "e" },
          involvedObject: { kind: "Pod", name: "p", namespace },
          reason: "Started",
          message: "it runs",
          type: "Normal",
          source: { component: "agent" },
          count: 2
        }
        assert.strictEqual(
          (yield* request("POST", `/api/v1/namespaces/${namespace}/events`, { body: event })).code,
          201
        )
        const other = yield* request("GET", `/apis/events.k8s.io/v1/namespaces/${namespace}/events/e`)
        assert.strictEqual(stringAt(other.body, "note"), "it runs")
        assert.strictEqual(stringAt(other.body, "regarding", "name"), "p")
        assert.strictEqual(numberAt(other.body, "deprecatedCount"), 2)
        const found = yield* request(
          "GET",
          `/api/v1/namespaces/${namespace}/events?fieldSelector=involvedObject.name=p,involvedObject.kind=Pod`
        )
        assert.deepStrictEqual(names(found.body), ["e"])
        const misplaced = yield* request("POST", `/api/v1/namespaces/${namespace}/events`, {
          body: { ...event, metadata: { name: "f" }, involvedObject: { ...event.involvedObject, namespace: "other" } }
        })
        assert.strictEqual(misplaced.code, 422)
      }))

    it.effect("guards secrets and immutable data", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const namespace = yield* freshNamespace("secrets")
        const path = `/api/v1/namespaces/${namespace}/secrets`
        const created = yield* request("POST", path, {
          body: { apiVersion: "v1", kind: "Secret", metadata: { name: "s" }, stringData: { a: "b" }, immutable: true }
        })
        assert.deepStrictEqual(at(created.body, "data"), { a: "Yg==" })
        assert.strictEqual(stringAt(created.body, "type"), "Opaque")
        const changed = yield* request("PATCH", `${path}/s`, { body: { stringData: { a: "c" } }, ...merge })
        assert.strictEqual(changed.code, 422)
        assert.include(stringAt(changed.body, "message"), "data: Forbidden: field is immutable when `immutable` is set")
      }))

    it.effect("answers reviews", () =>
      Effect.gen(function*() {
        const { request, token } = yield* TestServer
        const path = "/apis/authentication.k8s.io/v1/tokenreviews"
        const known = yield* request("POST", path, { body: review({ token }) })
        assert.strictEqual(at(known.body, "status", "authenticated"), true)
        assert.strictEqual(
          at((yield* request("POST", path, { body: review({ token: "x" }) })).body, "status", "authenticated"),
          false
        )
        const access = yield* request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
          body: {
            apiVersion: "authorization.k8s.io/v1",
            kind: "SelfSubjectAccessReview",
            spec: { resourceAttributes: { verb: "get", resource: "pods" } }
          }
        })
        assert.strictEqual(at(access.body, "status", "allowed"), true)
      }))

    it.effect("gives metadata only to those who ask for it", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = `/api/v1/namespaces/${yield* freshNamespace("meta")}/configmaps`
        yield* request("POST", path, { body: configMap("a", { k: "v" }) })
        const { body } = yield* request("GET", path, {
          accept: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        })
        assert.strictEqual(stringAt(body, "kind"), "PartialObjectMetadataList")
        assert.deepStrictEqual(Object.keys(objectAt(arrayAt(body, "items")[0])), ["kind", "apiVersion", "metadata"])
      }))
  })
})
