import { assert, it } from "@effect/vitest"
import { RecentSet } from "../src/RecentSet.ts"

it("keeps the latest members", () => {
  const set = new RecentSet<string>(2)
  for (const member of ["a", "b", "b", "c"]) {
    set.add(member)
  }
  assert.deepStrictEqual(["a", "b", "c"].map((member) => set.has(member)), [false, true, true])
})
