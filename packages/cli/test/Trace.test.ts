import { assert, it } from "@effect/vitest"
import { format } from "../src/Trace.ts"

it("calls that overlap count once", () => {
  const calls = [
    { name: "A", beganAt: 50, endedAt: 70 },
    { name: "B", beganAt: 60, endedAt: 80 },
    { name: "C", beganAt: 90, endedAt: 95 }
  ]
  assert.strictEqual(
    format(calls, { beganAt: 40, endedAt: 100 }),
    "    40.0 ms  start of fsb-ctl\n    20.0 ms  A (call)\n    20.0 ms  B (call)\n     5.0 ms  C (call)\n" +
      "    25.0 ms  fsb-ctl itself\n   100.0 ms  all of it (calls overlap)\n"
  )
  assert.match(format(calls.slice(0, 1), { beganAt: 40, endedAt: 100 }), /ms {2}all of it\n$/)
})
