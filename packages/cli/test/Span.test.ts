import { assert, describe, it } from "@effect/vitest"
import { DateTime, Option } from "effect"
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

  it("takes dates for what they are, and nothing else for a date", () => {
    const iso = (text: string) => Option.map(Span.parseDate(text), DateTime.formatIso)
    assert.deepStrictEqual(iso("2026-12-31T23:59:59+01:00"), Option.some("2026-12-31T22:59:59.000Z"))
    assert.deepStrictEqual(iso("2026-12-31"), Option.some("2026-12-31T00:00:00.000Z"))
    for (const text of ["", "-1", "5", "tomorrow", "2026-13-01", "2026-12-31T25:00:00Z", "12/31/2026"]) {
      assert.isTrue(Option.isNone(Span.parseDate(text)), text)
    }
  })
})
