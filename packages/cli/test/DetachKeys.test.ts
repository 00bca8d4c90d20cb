import { assert, describe, it } from "@effect/vitest"
import * as DetachKeys from "../src/DetachKeys.ts"

/** What comes of pieces of keys: the text that passes, and `|` where the user leaves. */
const typed = (...pieces: ReadonlyArray<string>): string => {
  const keys = DetachKeys.make()
  return pieces.map((piece) => {
    const { isLeaving, passed } = keys(Buffer.from(piece))
    return `${Buffer.from(passed).toString()}${isLeaving ? "|" : ""}`
  }).join("")
}

describe("DetachKeys", () => {
  it.each([
    [["abc"], "abc"],
    [["ab\x10\x11cd"], "ab|"],
    [["a\x10", "\x11"], "a|"],
    [["a\x10", "b"], "a\x10b"],
    [["\x10\x10\x11"], "\x10|"],
    [["\x11\x10", "\x10", "x"], "\x11\x10\x10x"]
  ])("%j gives %j", (pieces, expected) => {
    assert.strictEqual(typed(...pieces), expected)
  })
})
