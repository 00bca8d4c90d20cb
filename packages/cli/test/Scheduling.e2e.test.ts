import { assert, describe, layer } from "@effect/vitest"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { Effect } from "effect"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const sleeper = { image: "busybox", args: ["sleep", "600"], terminationGracePeriodSeconds: 0 }

const readyPool = Effect.fnUntraced(function*(name: string, agents: number) {
  yield* Resources.declarePool(name, { capacity: { poolMin: agents, poolMax: agents }, maxSandboxesPerPod: 3 })
  yield* eventually(Effect.gen(function*() {
    assert.strictEqual((yield* Resources.pool(name)).status?.ready, agents)
  }))
})

describe("scheduling", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("refuses a port that the only agent has given away, until it is free again", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* readyPool("one", 1)
        const first = yield* sandboxes.create({ ...sleeper, name: "first", pool: "one", exposedPorts: [8080] })
        assert.lengthOf(first.endpoints, 1)
        assert.match(first.endpoints[0] ?? "", /:8080$/)
        const second = { ...sleeper, name: "second", pool: "one", exposedPorts: [8080] }
        assert.strictEqual((yield* Effect.flip(sandboxes.create(second)))._tag, "ResourceExhausted")
        yield* sandboxes.create({ ...sleeper, name: "other", pool: "one", exposedPorts: [8081] })
        assert.deepStrictEqual((yield* sandboxes.list()).map(({ name }) => name).toSorted(), ["first", "other"])
        yield* sandboxes.delete("first")
        yield* sandboxes.waitForDeletion("first")
        yield* sandboxes.create(second)
        yield* Resources.deleteAll("sandbox", "second", "other")
        yield* Resources.deleteAll("sandboxpool", "one")
      }))

    it.effect("gives the same port to two agents, and to no third sandbox", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* readyPool("two", 2)
        const results = yield* Effect.forEach(["a", "b", "c"], (name) =>
          Effect.result(sandboxes.create({ ...sleeper, name, pool: "two", exposedPorts: [8080] })), {
          concurrency: "unbounded"
        })
        const created = results.flatMap((result) =>
          result._tag === "Success" ? [result.success] : []
        )
        assert.lengthOf(created, 2)
        assert.strictEqual(new Set(created.map(({ agentPod }) => agentPod)).size, 2)
        assert.strictEqual(new Set(created.flatMap(({ endpoints }) => endpoints)).size, 2)
        yield* eventually(Effect.map(Machine.containers(), (all) => assert.lengthOf(all, 2)))
        yield* Resources.deleteAll("sandbox", ...created.map(({ name }) => name))
        yield* Resources.deleteAll("sandboxpool", "two")
      }))

    it.effect("never uses a pool of another namespace", () =>
      Effect.gen(function*() {
        const { fsbCtl, kubectl, kubectlApply } = yield* LocalStack.LocalStack
        yield* Resources.stdoutOf(kubectl("create", "namespace", "elsewhere"))
        const args = ["-n", "elsewhere", "run", "-d", "stranger", "--image", "busybox", "--", "sleep", "600"]
        const refused = yield* fsbCtl(...args)
        assert.strictEqual(refused.code, 125)
        assert.include(refused.stderr, "default-pool")
        const spec = { ...sleeper, poolRef: "default-pool" }
        yield* Resources.stdoutOf(kubectlApply(Resources.sandboxManifest("stranger", spec, "elsewhere")))
        yield* Resources.stdoutOf(
          kubectl("wait", "-n", "elsewhere", "--for=condition=Scheduled=false", "sandbox/stranger", "--timeout=20s")
        )
        assert.deepStrictEqual(yield* Machine.containers(), [])
        yield* Resources.stdoutOf(kubectl("delete", "sandbox", "-n", "elsewhere", "stranger", "--timeout=20s"))
        yield* Resources.stdoutOf(kubectl("delete", "namespace", "elsewhere", "--timeout=20s"))
      }))

    it.effect("leaves a sandbox of an unknown pool Pending, says why, and starts it when the pool comes", () =>
      Effect.gen(function*() {
        const { kubectl } = yield* LocalStack.LocalStack
        yield* Resources.declareSandbox("early", { ...sleeper, poolRef: "coming" })
        yield* Resources.stdoutOf(
          kubectl("wait", "--for=condition=Scheduled=false", "sandbox/early", "--timeout=20s")
        )
        const { conditions, phase } = yield* Resources.status("early")
        assert.strictEqual(phase, "Pending")
        const scheduled = conditions?.find(({ type }) => type === "Scheduled")
        assert.strictEqual(scheduled?.reason, "PoolNotFound")
        assert.include(scheduled?.message, "coming")
        yield* Resources.declarePool("coming", { capacity: { poolMax: 1 } })
        yield* Resources.stdoutOf(
          kubectl("wait", "--for=jsonpath={.status.phase}=Running", "sandbox/early", "--timeout=30s")
        )
        yield* Resources.deleteAll("sandbox", "early")
        yield* Resources.deleteAll("sandboxpool", "coming")
      }))
  })
})
