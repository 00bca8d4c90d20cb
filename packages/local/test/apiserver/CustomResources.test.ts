/**
 * What definitions promise about their objects: schema, defaults, pruning, rules, subresources, server-side apply.
 */
import { assert, describe, layer } from "@effect/vitest"
import type { JsonObject } from "@fast-sandbox/local/apiserver/Json"
import { Effect } from "effect"
import { arrayAt, at, eventually, freshNamespace, numberAt, objectAt, stringAt, TestServer } from "./TestServer.ts"
import { group, widget, widgetDefinition, widgetsPath } from "./WidgetDefinition.ts"

const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

const define = Effect.fnUntraced(function*(plural: string) {
  const { request } = yield* TestServer
  const reply = yield* request("POST", definitions, { body: widgetDefinition(plural) })
  assert.strictEqual(reply.code, 201, reply.text)
  return widgetsPath(yield* freshNamespace(plural), plural)
})

const refusals: ReadonlyArray<readonly [string, JsonObject, string, string]> = [
  ["a missing field", {}, "spec.image", "Required value"],
  [
    "an empty string",
    { image: "" },
    "spec.image",
    "Invalid value: \"\": spec.image in body should be at least 1 chars long"
  ],
  [
    "a wrong type",
    { image: "a", replicas: "x" },
    "spec.replicas",
    "Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\""
  ],
  [
    "a low number",
    { image: "a", replicas: -1 },
    "spec.replicas",
    "Invalid value: -1: spec.replicas in body should be greater than or equal to 0"
  ],
  [
    "a high number",
    { image: "a", replicas: 11 },
    "spec.replicas",
    "Invalid value: 11: spec.replicas in body should be less than or equal to 10"
  ],
  [
    "an unknown choice",
    { image: "a", policy: "Never" },
    "spec.policy",
    "Unsupported value: \"Never\": supported values: \"Manual\", \"Auto\""
  ],
  [
    "a bad date",
    { image: "a", at: "soon" },
    "spec.at",
    "Invalid value: \"soon\": spec.at in body must be of type date-time: \"soon\""
  ],
  [
    "a broken pattern",
    { image: "a", name: "A" },
    "spec.name",
    "Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"
  ],
  ["a long string", { image: "a", name: "abcdefghi" }, "spec.name", "Too long: may not be more than 8 bytes"],
  ["too many items", { image: "a", ports: [1, 2, 3, 4] }, "spec.ports", "Too many: 4: must have at most 3 items"],
  ["an item twice", { image: "a", ports: [1, 1] }, "spec.ports[1]", "Duplicate value: 1"],
  [
    "a bad item",
    { image: "a", ports: [0] },
    "spec.ports[0]",
    "Invalid value: 0: spec.ports[0] in body should be greater than or equal to 1"
  ],
  [
    "a key twice",
    { image: "a", envs: [{ name: "x" }, { name: "x" }] },
    "spec.envs[1]",
    "Duplicate value: {\"name\":\"x\"}"
  ],
  [
    "null that may not be",
    { image: null },
    "spec.image",
    "Invalid value: \"null\": spec.image in body must be of type string: \"null\""
  ],
  [
    "a broken rule",
    { image: "a", minimum: 2, maximum: 1 },
    "spec",
    "Invalid value: \"object\": minimum may not exceed maximum"
  ]
]

describe("custom resources", () => {
  layer(TestServer.layer, { excludeTestServices: true })((it) => {
    it.effect("are established, discovered and gone with their definition", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("doomeds")
        const definition = yield* request("GET", `${definitions}/doomeds.${group}`)
        const conditions = arrayAt(definition.body, "status", "conditions").map((condition) =>
          stringAt(condition, "type")
        )
        assert.deepStrictEqual(conditions, ["NamesAccepted", "Established"])
        assert.deepStrictEqual(at(definition.body, "status", "storedVersions"), ["v1alpha1"])
        const found = yield* request("GET", `/apis/${group}/v1alpha1`)
        const names = arrayAt(found.body, "resources").map((resource) => stringAt(resource, "name"))
        assert.includeMembers(names, ["doomeds", "doomeds/status", "doomeds/scale"])
        assert.strictEqual((yield* request("POST", path, { body: widget("a", { image: "x" }, "doomeds") })).code, 201)
        assert.strictEqual((yield* request("DELETE", `${definitions}/doomeds.${group}`)).code, 200)
        yield* eventually(request("GET", `${definitions}/doomeds.${group}`), ({ code }) => code === 404)
        assert.strictEqual((yield* request("GET", path)).code, 404)
        // Defined again, the old objects are not there.
        assert.strictEqual((yield* request("POST", definitions, { body: widgetDefinition("doomeds") })).code, 201)
        assert.lengthOf(arrayAt((yield* request("GET", path)).body, "items"), 0)
      }))

    it.effect("refuse what the schema forbids, with the field and the real server's words", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("strictones")
        for (const [what, spec, field, message] of refusals) {
          const { body, code } = yield* request("POST", path, { body: widget("x", spec, "strictones") })
          assert.strictEqual(code, 422, what)
          assert.strictEqual(stringAt(body, "reason"), "Invalid", what)
          const cause = arrayAt(body, "details", "causes").find((entry) => stringAt(entry, "field") === field)
          assert.strictEqual(stringAt(cause, "message"), message, `${what}: ${stringAt(body, "message")}`)
          assert.include(stringAt(body, "message"), `Strictone.${group} "x" is invalid: `)
        }
        const { body } = yield* request("POST", path, { body: widget("x", {}, "strictones") })
        assert.strictEqual(stringAt(body, "message"), `Strictone.${group} "x" is invalid: spec.image: Required value`)
        assert.lengthOf(arrayAt((yield* request("GET", path)).body, "items"), 0)
      }))

    it.effect("get defaults, lose unknown fields and keep what the schema lets free", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("defaulteds")
        const spec = {
          image: "a",
          unknown: 1,
          free: { any: { thing: [1] } },
          envs: [{ name: "e", odd: true }],
          port: "http",
          note: null
        }
        const { body, code, headers } = yield* request("POST", path, { body: widget("a", spec, "defaulteds") })
        assert.strictEqual(code, 201)
        assert.deepStrictEqual(at(body, "spec"), {
          image: "a",
          free: { any: { thing: [1] } },
          envs: [{ name: "e", value: "" }],
          port: "http",
          note: null,
          replicas: 1,
          policy: "Manual"
        })
        assert.deepStrictEqual(String(headers["warning"]).split(", ").toSorted(), [
          "299 - \"unknown field \\\"spec.envs[0].odd\\\"\"",
          "299 - \"unknown field \\\"spec.unknown\\\"\""
        ])
        const strict = yield* request("POST", `${path}?fieldValidation=Strict`, {
          body: widget("b", spec, "defaulteds")
        })
        assert.strictEqual(strict.code, 400)
        assert.include(stringAt(strict.body, "message"), "strict decoding error: unknown field \"spec.")
        const ignored = yield* request("POST", `${path}?fieldValidation=Ignore`, {
          body: widget("b", spec, "defaulteds")
        })
        assert.strictEqual(ignored.code, 201)
        assert.isUndefined(ignored.headers["warning"])
      }))

    it.effect("check transition rules on updates only", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("frozens")
        const created = yield* request("POST", path, { body: widget("a", { image: "one" }, "frozens") })
        const metadata = objectAt(created.body, "metadata")
        const changed = yield* request("PUT", `${path}/a`, { body: { ...created.body, spec: { image: "two" } } })
        assert.strictEqual(changed.code, 422)
        assert.strictEqual(
          stringAt(changed.body, "message"),
          `Frozen.${group} "a" is invalid: spec.image: Forbidden: image is immutable`
        )
        const allowed = yield* request("PUT", `${path}/a`, {
          body: { ...created.body, metadata, spec: { image: "one", replicas: 3 } }
        })
        assert.strictEqual(allowed.code, 200)
        assert.strictEqual(numberAt(allowed.body, "metadata", "generation"), 2)
      }))

    it.effect("keep spec and status apart", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("parteds")
        const created = yield* request("POST", path, {
          body: { ...widget("a", { image: "x" }, "parteds"), status: { phase: "Fake" } }
        })
        assert.isUndefined(at(created.body, "status"))
        const status = yield* request("PUT", `${path}/a/status`, {
          body: { ...created.body, spec: { image: "y", replicas: 9 }, status: { phase: "Running" } }
        })
        assert.strictEqual(status.code, 200, status.text)
        assert.strictEqual(stringAt(status.body, "status", "phase"), "Running")
        assert.strictEqual(stringAt(status.body, "spec", "image"), "x")
        assert.strictEqual(numberAt(status.body, "metadata", "generation"), 1)
        const spec = yield* request("PATCH", `${path}/a`, {
          body: { spec: { replicas: 2 }, status: { phase: "Hacked" } },
          contentType: "application/merge-patch+json"
        })
        assert.strictEqual(stringAt(spec.body, "status", "phase"), "Running")
        assert.strictEqual(numberAt(spec.body, "metadata", "generation"), 2)
      }))

    it.effect("scale through their subresource", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("scaleds")
        yield* request("POST", path, { body: widget("a", { image: "x", replicas: 2 }, "scaleds") })
        const scale = yield* request("GET", `${path}/a/scale`)
        assert.strictEqual(stringAt(scale.body, "kind"), "Scale")
        assert.strictEqual(numberAt(scale.body, "spec", "replicas"), 2)
        const put = yield* request("PUT", `${path}/a/scale`, { body: { ...scale.body, spec: { replicas: 5 } } })
        assert.strictEqual(put.code, 200, put.text)
        assert.strictEqual(numberAt(put.body, "spec", "replicas"), 5)
        const patched = yield* request("PATCH", `${path}/a/scale`, {
          body: { spec: { replicas: 6 } },
          contentType: "application/merge-patch+json"
        })
        assert.strictEqual(numberAt(patched.body, "spec", "replicas"), 6)
        assert.strictEqual(numberAt((yield* request("GET", `${path}/a`)).body, "spec", "replicas"), 6)
        const refused = yield* request("PUT", `${path}/a/scale`, {
          body: { ...put.body, metadata: {}, spec: { replicas: 11 } }
        })
        assert.strictEqual(refused.code, 422)
      }))

    it.effect("are selected by the fields that the definition names", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("pickeds")
        yield* request("POST", path, { body: widget("a", { image: "x", policy: "Auto" }, "pickeds") })
        yield* request("POST", path, { body: widget("b", { image: "x" }, "pickeds") })
        const found = yield* request("GET", `${path}?fieldSelector=spec.policy%3DAuto`)
        assert.deepStrictEqual(arrayAt(found.body, "items").map((item) => stringAt(item, "metadata", "name")), ["a"])
        assert.strictEqual((yield* request("GET", `${path}?fieldSelector=spec.image%3Dx`)).code, 400)
      }))

    it.effect("take no strategic merge patch", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("plains")
        yield* request("POST", path, { body: widget("a", { image: "x" }, "plains") })
        const reply = yield* request("PATCH", `${path}/a`, {
          body: {},
          contentType: "application/strategic-merge-patch+json"
        })
        assert.strictEqual(reply.code, 415)
        assert.strictEqual(stringAt(reply.body, "reason"), "UnsupportedMediaType")
      }))

    it.effect("print the definition's columns", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("printeds")
        yield* request("POST", path, { body: widget("a", { image: "x", replicas: 4 }, "printeds") })
        const { body } = yield* request("GET", path, {
          accept: "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        })
        assert.strictEqual(stringAt(body, "kind"), "Table")
        assert.deepStrictEqual(arrayAt(body, "columnDefinitions").map((column) => stringAt(column, "name")), [
          "Name",
          "Phase",
          "Image",
          "Replicas",
          "Age"
        ])
        const cells = arrayAt(arrayAt(body, "rows")[0] ?? null, "cells")
        assert.deepStrictEqual(cells.slice(0, 4), ["a", null, "x", 4])
        assert.strictEqual(stringAt(arrayAt(body, "rows")[0], "object", "kind"), "PartialObjectMetadata")
      }))

    it.effect("are applied: owned by field, conflicting, forced and given up", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("applieds")
        const apply = (manager: string, spec: JsonObject, query = "") =>
          request("PATCH", `${path}/a?fieldManager=${manager}${query}`, {
            body: widget("a", spec, "applieds"),
            contentType: "application/apply-patch+yaml"
          })
        const first = yield* apply("one", {
          image: "x",
          replicas: 2,
          ports: [1, 2],
          envs: [{ name: "A", value: "1" }],
          labels: { a: "1", b: "2" }
        })
        assert.strictEqual(first.code, 201, first.text)
        const entry = arrayAt(first.body, "metadata", "managedFields")[0]
        assert.strictEqual(stringAt(entry, "operation"), "Apply")
        assert.deepStrictEqual(at(entry, "fieldsV1", "f:spec"), {
          "f:envs": { "k:{\"name\":\"A\"}": { ".": {}, "f:name": {}, "f:value": {} } },
          "f:image": {},
          "f:labels": { "f:a": {}, "f:b": {} },
          "f:ports": { "v:1": {}, "v:2": {} },
          "f:replicas": {}
        })
        const again = yield* apply("one", {
          image: "x",
          replicas: 2,
          ports: [1, 2],
          envs: [{ name: "A", value: "1" }],
          labels: { a: "1", b: "2" }
        })
        assert.strictEqual(
          stringAt(again.body, "metadata", "resourceVersion"),
          stringAt(first.body, "metadata", "resourceVersion")
        )
        const conflict = yield* apply("two", { image: "x", replicas: 3 })
        assert.strictEqual(conflict.code, 409)
        assert.strictEqual(
          stringAt(conflict.body, "message"),
          "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas"
        )
        assert.deepStrictEqual(arrayAt(conflict.body, "details", "causes"), [
          { reason: "FieldManagerConflict", message: "conflict with \"one\"", field: ".spec.replicas" }
        ])
        const forced = yield* apply("two", {
          image: "x",
          replicas: 3,
          envs: [{ name: "B", value: "2" }],
          ports: [2, 3]
        }, "&force=true")
        assert.strictEqual(forced.code, 200, forced.text)
        assert.strictEqual(numberAt(forced.body, "spec", "replicas"), 3)
        assert.deepStrictEqual(arrayAt(forced.body, "spec", "ports"), [1, 2, 3])
        assert.deepStrictEqual(arrayAt(forced.body, "spec", "envs").map((env) => stringAt(env, "name")), ["A", "B"])
        // "one" no longer speaks of its env, its port and a label: what only it owned goes.
        const less = yield* apply("one", { image: "x", ports: [2], labels: { a: "1" } })
        assert.strictEqual(less.code, 200, less.text)
        assert.deepStrictEqual(at(less.body, "spec"), {
          image: "x",
          replicas: 3,
          policy: "Manual",
          ports: [2, 3],
          envs: [{ name: "B", value: "2" }],
          labels: { a: "1" }
        })
        assert.strictEqual(
          (yield* request("PATCH", `${path}/a`, {
            body: widget("a", { image: "x" }, "applieds"),
            contentType: "application/apply-patch+yaml"
          })).code,
          422
        )
      }))

    it.effect("record who updated what", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const path = yield* define("trackeds")
        const created = yield* request("POST", path, {
          body: widget("a", { image: "x" }, "trackeds"),
          userAgent: "kubectl/v1"
        })
        assert.strictEqual(stringAt(arrayAt(created.body, "metadata", "managedFields")[0], "manager"), "kubectl")
        yield* request("PATCH", `${path}/a?fieldManager=other`, {
          body: { spec: { replicas: 5 } },
          contentType: "application/merge-patch+json"
        })
        const { body } = yield* request("PATCH", `${path}/a/status?fieldManager=boss`, {
          body: { status: { phase: "Up" } },
          contentType: "application/merge-patch+json"
        })
        const entries = arrayAt(body, "metadata", "managedFields")
        assert.deepStrictEqual(entries.map((entry) => [stringAt(entry, "manager"), stringAt(entry, "subresource")]), [
          ["kubectl", undefined],
          ["other", undefined],
          ["boss", "status"]
        ])
        assert.deepStrictEqual(at(entries[1], "fieldsV1"), { "f:spec": { "f:replicas": {} } })
        assert.isUndefined(at(entries[0], "fieldsV1", "f:spec", "f:replicas"))
        assert.deepStrictEqual(at(entries[2], "fieldsV1"), { "f:status": { "f:phase": {} } })
      }))

    it.effect("are refused as definitions when they contradict themselves", () =>
      Effect.gen(function*() {
        const { request } = yield* TestServer
        const valid = widgetDefinition("oddones")
        const cases: ReadonlyArray<readonly [JsonObject, string]> = [
          [{ ...valid, metadata: { name: "wrong" } }, "metadata.name"],
          [{ ...valid, spec: { ...objectAt(valid, "spec"), scope: "Galaxy" } }, "spec.scope"],
          [{ ...valid, spec: { ...objectAt(valid, "spec"), versions: [] } }, "spec.versions"],
          [
            widgetDefinition("oddones", { bad: {} }),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[bad].type"
          ],
          [
            widgetDefinition("oddones", { bad: { type: "array", items: { type: "string" }, uniqueItems: true } }),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[bad].uniqueItems"
          ],
          [
            widgetDefinition("oddones", { bad: { type: "string", "x-kubernetes-validations": [{ rule: "self +" }] } }),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[bad].x-kubernetes-validations[0].rule"
          ]
        ]
        for (const [body, field] of cases) {
          const reply = yield* request("POST", definitions, { body })
          assert.strictEqual(reply.code, 422, field)
          assert.include(
            arrayAt(reply.body, "details", "causes").map((cause) => stringAt(cause, "field")),
            field,
            reply.text
          )
        }
      }))
  })
})
