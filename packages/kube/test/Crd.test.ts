import { assert, describe, it } from "@effect/vitest"
import * as Crd from "@fast-sandbox/kube/Crd"
import { files } from "@fast-sandbox/kube/CrdFiles"
import * as FastSandboxCrds from "@fast-sandbox/kube/FastSandboxCrds"
import { Effect, Schema } from "effect"
import { readFile } from "node:fs/promises"

class Shared extends Schema.Class<Shared>("Shared")({ x: Schema.String }) {}

interface Tree {
  readonly children: ReadonlyArray<Tree>
}

const Tree: Schema.Codec<Tree> = Schema.Struct({
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
}).annotate({ identifier: "Tree" })

describe("Crd", () => {
  const table: ReadonlyArray<readonly [string, Schema.Top, unknown]> = [
    ["text", Schema.NonEmptyString.annotate({ description: "d" }), {
      type: "string",
      minLength: 1,
      description: "d"
    }],
    ["patterns", Schema.String.check(Schema.isPattern(/^a$/u)), { type: "string", pattern: "^a$" }],
    ["integers without bounds", Schema.Int, { type: "integer", format: "int64" }],
    ["bounds", Schema.Int.check(Schema.isGreaterThan(0), Schema.isLessThanOrEqualTo(9)), {
      type: "integer",
      format: "int64",
      minimum: 0,
      exclusiveMinimum: true,
      maximum: 9
    }],
    ["numbers", Schema.Number, { type: "number" }],
    ["literals", Schema.Literals(["a", "b"]), { type: "string", enum: ["a", "b"] }],
    ["defaults", Schema.Boolean.annotate({ default: true }), { type: "boolean", default: true }],
    ["null", Schema.NullOr(Schema.String), { type: "string", nullable: true }],
    ["int or string", Schema.Union([Schema.Int, Schema.String]), { "x-kubernetes-int-or-string": true }],
    ["sets", Schema.Array(Schema.Int).check(Schema.isUnique(), Schema.isMaxLength(3)), {
      type: "array",
      items: { type: "integer", format: "int64" },
      maxItems: 3,
      "x-kubernetes-list-type": "set"
    }],
    ["maps", Schema.Record(Schema.String, Schema.String), {
      type: "object",
      additionalProperties: { type: "string" }
    }],
    ["anything", Schema.Unknown, { "x-kubernetes-preserve-unknown-fields": true }],
    ["objects of anything", Schema.Record(Schema.String, Schema.Unknown), {
      type: "object",
      "x-kubernetes-preserve-unknown-fields": true
    }],
    [
      "references, in place",
      Schema.Struct({ one: Shared, two: Schema.optionalKey(Shared) }),
      {
        type: "object",
        properties: {
          one: { type: "object", properties: { x: { type: "string" } }, required: ["x"] },
          two: { type: "object", properties: { x: { type: "string" } }, required: ["x"] }
        },
        required: ["one"]
      }
    ],
    [
      "rules",
      Schema.Struct({ a: Schema.String }).annotate({ "x-kubernetes-validations": [{ rule: "self.a != ''" }] }),
      {
        type: "object",
        properties: { a: { type: "string" } },
        required: ["a"],
        "x-kubernetes-validations": [{ rule: "self.a != ''" }]
      }
    ]
  ]
  for (const [name, schema, expected] of table) {
    it(`expresses ${name}`, () => assert.deepStrictEqual(Crd.structuralSchema(schema), expected))
  }

  it("names the place of what it can't express", () => {
    assert.throws(
      () =>
        Crd.structuralSchema(
          Schema.Struct({ a: Schema.Array(Schema.Union([Schema.Boolean, Schema.String])) })
        ),
      ".a[]: not a structural schema"
    )
    assert.throws(() => Crd.structuralSchema(Tree), "contains itself")
  })

  it.effect("the files in infra/crds are current; if not, run npm run generate:crds", () =>
    Effect.gen(function*() {
      for (const [name, content] of files(FastSandboxCrds.all)) {
        const file = new URL(`../../../infra/crds/${name}`, import.meta.url)
        assert.strictEqual(yield* Effect.promise(() => readFile(file, "utf8")), content)
      }
    }))
})
