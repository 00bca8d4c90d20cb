import { assert, describe, it } from "@effect/vitest"
import * as Help from "../src/Help.ts"

describe("Help", () => {
  it("wraps at blanks and keeps long words whole", () => {
    assert.deepStrictEqual(Help.wrap("one two three", 7), ["one two", "three"])
    assert.deepStrictEqual(Help.wrap("a incomprehensibilities b", 5), ["a", "incomprehensibilities", "b"])
    assert.deepStrictEqual(Help.wrap("", 5), [""])
  })
})
