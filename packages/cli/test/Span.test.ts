import { assert, describe, it } from "@effect/vitest"
import { Option } from "effect"
import * as Span from "../src/Span.ts"

describe("Span", () => {
  for (
    const [text, millis] of [
      ["90", 90_000],
      ["1.5", 1500],
      ["250ms", 250],
      ["90s", 90_000],
      ["15m", 900_000],
      ["1h30m", 5_400_000],
      ["1d", 86_400_000],
      ["0s", 0]
    ] as const
  ) {
    it(`accepts ${text}`, () => assert.deepStrictEqual(Span.parse(text), Option.some(millis)))
  }
  for (const text of ["", "m", "1x", "-5m", "1 h", "1h30", "soon", "NaN", "Infinity"]) {
    it(`refuses ${JSON.stringify(text)}`, () => assert.isTrue(Option.isNone(Span.parse(text))))
  }
})
