import { assert, describe, it } from "@effect/vitest"
import { Redacted, Result } from "effect"
import * as Config from "../src/Config.ts"

const resolve = (...sources: ReadonlyArray<Config.Source>) => Result.getOrThrow(Config.resolve(sources, "/home"))

describe("Config", () => {
  it("without any source it is this machine", () =>
    assert.deepInclude(resolve(), {
      server: { value: "unix:/home/run/fastpath.sock", from: "default" },
      namespace: { value: "default", from: "default" },
      token: undefined
    }))

  it("the first source that says something decides, value by value", () => {
    const settings = resolve(
      { name: "flags", namespace: "a" },
      { name: "environment", endpoint: "e:1", namespace: "b" },
      { name: "file", endpoint: "f:1", editor: "vi" }
    )
    assert.deepStrictEqual([settings.server, settings.namespace, settings.editor], [
      { value: "e:1", from: "environment" },
      { value: "a", from: "flags" },
      { value: "vi", from: "file" }
    ])
  })

  it("a source's own word goes before its context's, and both before later sources", () => {
    const contexts = { prod: { endpoint: "prod:1", namespace: "p", token: "t" } }
    const settings = resolve(
      { name: "flags", context: "prod", namespace: "mine" },
      { name: "environment", endpoint: "e:1" },
      { name: "file", contexts }
    )
    assert.strictEqual(settings.server.value, "prod:1")
    assert.strictEqual(settings.namespace.value, "mine")
    assert.strictEqual(settings.token === undefined ? "" : Redacted.value(settings.token.value), "t")
  })

  it("a context of the near file hides one of the far file", () => {
    const settings = resolve(
      { name: "flags", context: "x" },
      { name: "near", contexts: { x: { endpoint: "near:1" } } },
      { name: "far", contexts: { x: { endpoint: "far:1" }, y: { endpoint: "y:1" } } }
    )
    assert.strictEqual(settings.server.value, "near:1")
  })

  it("an unknown context is told with the known ones", () => {
    const result = Config.resolve([{ name: "flags", context: "x" }, { name: "f", contexts: { a: {}, b: {} } }], "/")
    assert.isTrue(Result.isFailure(result))
    if (Result.isFailure(result)) assert.match(result.failure.message, /"x" \(named by flags\); choose one of a, b/)
  })

  it("empty variables say nothing", () =>
    assert.deepStrictEqual(Config.fromEnvironment({ FSB_ENDPOINT: "", FSB_NAMESPACE: "n" }), {
      name: "environment",
      namespace: "n"
    }))

  for (
    const [text, says] of [
      ["{", /^f\.json.* is not JSON/],
      ["{\n\n\"endpoint\": 1,,}", /^f\.json:3 is not JSON/],
      ["{\"endpoint\": 1}", /^f\.json is no configuration: .*endpoint/s],
      ["{\"endpont\": \"a:1\"}", /^f\.json is no configuration: endpont: /],
      ["{\"contexts\": {\"a\": {\"kubernetes\": {\"port\": 0}}}}", /: contexts\.a\.kubernetes\.port: /],
      ["[]", /^f\.json is no configuration/]
    ] as const
  ) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      const result = Config.parse("f.json", text)
      assert.isTrue(Result.isFailure(result))
      if (Result.isFailure(result)) assert.match(result.failure.message, says)
    })
  }
})
