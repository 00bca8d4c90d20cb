import { assert, describe, it } from "@effect/vitest"
import * as Lines from "../src/Lines.ts"

describe("Lines", () => {
  it("wraps at blanks, and breaks only words that are wider than the line", () => {
    assert.deepStrictEqual(Lines.wrap("one two three", 7), ["one two", "three"])
    assert.deepStrictEqual(Lines.wrap("a /var/lib/fast b", 5), ["a", "/var/", "lib/f", "ast b"])
    assert.deepStrictEqual(Lines.wrap("漢字漢字", 5), ["漢字", "漢字"])
    assert.deepStrictEqual(Lines.wrap("", 5), [""])
    assert.deepStrictEqual(Lines.wrap("one two three", Infinity), ["one two three"])
  })

  it("leaves out the middle of names", () => {
    assert.strictEqual(Lines.shorten("default-pool-agent-qq7wk", 13), "defaul…-qq7wk")
    assert.strictEqual(Lines.shorten("default-pool-agent-qq7wk", 12), "defaul…qq7wk")
    assert.strictEqual(Lines.shorten("web", 3), "web")
  })

  it("makes one line of many, and nothing of what would move the cursor", () =>
    assert.strictEqual(Lines.oneLine(" sh -c\n  a\n\u001b[31mred\u009b\t"), "sh -c; a; ?[31mred?"))
})
