import { assert, describe, it } from "@effect/vitest"
import * as Age from "../src/Age.ts"

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

describe("Age", () => {
  for (
    const [millis, text] of [
      [-5 * SECOND, "0s"],
      [0, "0s"],
      [999, "0s"],
      [119 * SECOND, "119s"],
      [120 * SECOND, "2m"],
      [125 * SECOND, "2m5s"],
      [10 * MINUTE, "10m"],
      [179 * MINUTE, "179m"],
      [3 * HOUR, "3h"],
      [3 * HOUR + 7 * MINUTE, "3h7m"],
      [47 * HOUR, "47h"],
      [4 * DAY + 5 * HOUR, "4d5h"],
      [100 * DAY, "100d"],
      [750 * DAY, "2y20d"]
    ] as const
  ) {
    it(`${millis} ms is ${text}`, () => assert.strictEqual(Age.format(millis), text))
  }
})
