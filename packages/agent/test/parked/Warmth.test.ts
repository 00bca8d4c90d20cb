import { assert, describe, it } from "@effect/vitest"
import * as Warmth from "@fast-sandbox/agent/parked/Warmth"

const minute = 60_000

/** Asked for, in this order: `[image, at minute]`. */
const asked = (...all: ReadonlyArray<readonly [string, number]>): Warmth.Asked =>
  all.reduce<Warmth.Asked>((before, [image, at]) => Warmth.ask(before, image, at * minute), new Map())

const wanted = (options: Partial<Parameters<typeof Warmth.wanted>[0]>) =>
  Object.fromEntries(
    Warmth.wanted({ warmImages: [], asked: new Map(), nowMillis: 0, room: 100, blanks: 0, ...options })
  )

describe("Warmth", () => {
  it("keeps what the pool names, as far as there is room", () => {
    const warmImages = [{ image: "a", parked: 3 }, { image: "b", parked: 4 }]
    assert.deepStrictEqual(wanted({ warmImages }), { a: 3, b: 4 })
    assert.deepStrictEqual(wanted({ warmImages, room: 5 }), { a: 3, b: 2 })
    assert.deepStrictEqual(wanted({ warmImages, room: 0 }), { a: 0, b: 0 })
    assert.deepStrictEqual(wanted({ warmImages, asked: asked(["c", 0]) }), { a: 3, b: 4 })
  })

  it("leaves to slots without an image what room is left", () => {
    const warmImages = [{ image: "a", parked: 3 }]
    assert.deepStrictEqual(wanted({ warmImages, blanks: 2 }), { a: 3, [Warmth.blank]: 2 })
    assert.deepStrictEqual(wanted({ warmImages, blanks: 2, room: 4 }), { a: 3, [Warmth.blank]: 1 })
    assert.deepStrictEqual(wanted({ warmImages, blanks: 2, room: 3 }), { a: 3 })
    assert.deepStrictEqual(wanted({ blanks: 2, room: 0 }), {})
  })

  it("else keeps what was asked for lately, the more the oftener, and forgets it", () => {
    const often = asked(...Array.from({ length: 30 }, () => ["a", 0] as const))
    assert.deepStrictEqual(wanted({ asked: asked(["a", 0]) }), { a: 2 })
    assert.deepStrictEqual(wanted({ asked: often }), { a: Warmth.maxParkedLately })
    assert.deepStrictEqual(wanted({ asked: often, nowMillis: 2 * minute }), { a: 2 })
    assert.deepStrictEqual(wanted({ asked: often, nowMillis: 11 * minute }), {})
    assert.deepStrictEqual(
      Object.keys(wanted({ asked: asked(...[..."abcdef"].map((image) => [image, 0] as const)) })),
      [
        "f",
        "e",
        "d",
        "c"
      ]
    )
    assert.deepStrictEqual(wanted({ asked: asked(["a", 0], ["b", 0]), room: 3 }), { b: 2, a: 1 })
  })

  it("gives up before it parks, and parks where most are missing", () => {
    const next = (wanted: Record<string, number>, ready: Record<string, number>) =>
      Warmth.next(new Map(Object.entries(wanted)), new Map(Object.entries(ready)))
    assert.deepStrictEqual(next({ a: 1, b: 4 }, { a: 2 }), { _tag: "GiveUp", image: "a" })
    assert.deepStrictEqual(next({ b: 1 }, { gone: 1 }), { _tag: "GiveUp", image: "gone" })
    assert.deepStrictEqual(next({ a: 4, b: 4 }, { a: 2, b: 1 }), { _tag: "Park", image: "b" })
    assert.isUndefined(next({ a: 2, b: 0 }, { a: 2 }))
  })
})
