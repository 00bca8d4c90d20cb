import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { IntegerSet } from "../../src/registry/internal/IntegerSet.ts"

const Step = Schema.Struct({
  add: Schema.Boolean,
  member: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40_000 }))
})
const Steps = Schema.Array(Step).check(Schema.isMaxLength(200))

describe("IntegerSet", () => {
  it.prop("is a set whose members come in order", [Steps], ([steps]) => {
    const set = new IntegerSet()
    const model = new Set<number>()
    for (const { add, member } of steps) {
      if (add) {
        set.add(member)
        model.add(member)
      } else {
        set.delete(member)
        model.delete(member)
      }
      assert.strictEqual(set.has(member), add)
    }
    const members: Array<number> = []
    for (let at = set.next(0); at !== -1; at = set.next(at + 1)) {
      members.push(at)
    }
    assert.deepStrictEqual(members, [...model].toSorted((left, right) => left - right))
    assert.strictEqual(set.size, model.size)
  })

  it("keeps what it has when it grows by levels", () => {
    const set = new IntegerSet()
    for (const member of [31, 32, 1023, 1024, 40_000]) {
      set.add(member)
    }
    assert.deepStrictEqual(
      [set.next(0), set.next(32), set.next(33), set.next(1024), set.next(1025), set.next(40_001)],
      [
        31,
        32,
        1023,
        1024,
        40_000,
        -1
      ]
    )
  })
})
