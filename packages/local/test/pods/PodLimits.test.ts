import { assert, it } from "@effect/vitest"
import * as PodLimits from "@fast-sandbox/local/pods/PodLimits"

it("limits what a Pod's container limits", () => {
  assert.deepStrictEqual(PodLimits.resourcesOf({}), {})
  assert.deepStrictEqual(PodLimits.resourcesOf({ resources: { limits: { cpu: "1500m", memory: "256Mi" } } }), {
    cpu: { period: 100_000, quota: 150_000 },
    memory: { limit: 256 * 2 ** 20 }
  })
  assert.deepStrictEqual(PodLimits.resourcesOf({ resources: { limits: { cpu: "1m", memory: "much" } } }), {
    cpu: { period: 100_000, quota: 1000 }
  })
})
