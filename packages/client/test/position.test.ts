import { assert, describe, it } from "@effect/vitest"
import type { LogLine } from "@fast-sandbox/client/LogLine"
import * as Position from "../src/internal/position.ts"

const line = (time: string): LogLine => ({ time, stream: "stdout", bytes: new Uint8Array(), partial: false })

describe("position", () => {
  it("counts the lines of one time stamp", () => {
    const at = ["1", "2", "2"].map(line).reduce<Position.Position | undefined>(Position.advance, undefined)
    assert.deepStrictEqual(at, { time: "2", told: 2 })
  })

  it("passes over what was told, also between lines of one time stamp", () => {
    const again = ["2", "2", "2", "3"].map(line).filter(Position.isNew({ time: "2", told: 2 }))
    assert.deepStrictEqual(again.map(({ time }) => time), ["2", "3"])
  })

  it("at the beginning everything is new", () =>
    assert.strictEqual(["1", "1"].map(line).filter(Position.isNew(undefined)).length, 2))
})
