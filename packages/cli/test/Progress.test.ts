import { assert, describe, it } from "@effect/vitest"
import * as Progress from "../src/Progress.ts"

describe("Progress", () => {
  for (
    const [bytes, text] of [[0, "0B"], [999, "999B"], [1000, "1.0kB"], [3_400_000, "3.4MB"], [123_456_789, "123MB"], [
      5e15,
      "5000TB"
    ]] as const
  ) {
    it(`${bytes} bytes are ${text}`, () => assert.strictEqual(Progress.formatBytes(bytes), text))
  }
})
