import { assert, describe, it } from "@effect/vitest"
import { hasKey, withKey } from "../src/ConfigStore.ts"

describe("ConfigStore", () => {
  it("sets and removes by path, and leaves no empty objects", () => {
    const one = withKey({ namespace: "a" }, ["contexts", "x", "kubernetes", "port"], "7")
    assert.deepStrictEqual(one, { namespace: "a", contexts: { x: { kubernetes: { port: 7 } } } })
    assert.isTrue(hasKey(one, ["contexts", "x"]))
    assert.isFalse(hasKey(one, ["contexts", "y", "endpoint"]))
    assert.isFalse(hasKey(one, ["constructor"]))
    assert.deepStrictEqual(withKey(one, ["contexts", "x", "kubernetes", "port"], undefined), { namespace: "a" })
    assert.deepStrictEqual(withKey({ endpoint: "a:1" }, ["endpoint"], "b:2"), { endpoint: "b:2" })
  })
})
