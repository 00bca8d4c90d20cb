import { assert, describe, it } from "@effect/vitest"
import * as Operands from "../src/Operands.ts"

describe("Operands", () => {
  for (const [args, count] of [["run a", 0], ["run --", 0], ["run a -- sh -c x", 3], ["run -- a -- b", 3]] as const) {
    it(args, () => assert.strictEqual(Operands.countTrailing(args.split(" ")), count))
  }
})
