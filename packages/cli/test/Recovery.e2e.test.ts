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

describe("recovery", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("AutoRecreate starts a failing program again, after pauses that grow", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* sandboxes.create({
          name: "failing",
          image: "busybox",
          args: ["sh", "-c", "exit 1"],
          failurePolicy: "AutoRecreate"
        })
        const pauses = new Map<number, number>()
        const ids = new Set<string>()
        yield* eventually(Effect.gen(function*() {
          const { recovery, restarts, sandboxID } = yield* Resources.status("failing")
          if (sandboxID !== undefined) ids.add(sandboxID)
          if (recovery?.nextAt !== undefined) {
            pauses.set(recovery.attempt, Date.parse(recovery.nextAt) - Date.parse(recovery.since))
          }
          assert.isAtLeast(restarts ?? 0, 2)
          assert.isTrue(pauses.has(3))
        }))
        const [first = 0, second = 0, third = 0] = [1, 2, 3].map((attempt) => pauses.get(attempt))
        assert.isTrue(500 < first && first < second && second < third, `${first}, ${second}, ${third}`)
        assert.isAtLeast(ids.size, 3)
        yield* Resources.deleteAll("sandbox", "failing")
      }))

    it.effect("the loss of an agent: AutoRecreate runs elsewhere, Manual stays Lost until its reset", () =>
      Effect.gen(function*() {
        const { kubectl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        yield* Resources.declarePool("lossy", { capacity: { poolMin: 1, poolMax: 2 }, maxSandboxesPerPod: 5 })
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* Resources.pool("lossy")).status?.ready, 1)
        }))
        const healing = yield* sandboxes.create({
          ...sleeper,
          name: "healing",
          pool: "lossy",
          failurePolicy: "AutoRecreate"
        })
        const waiting = yield* sandboxes.create({ ...sleeper, name: "waiting", pool: "lossy" })
        yield* Resources.stdoutOf(kubectl("delete", "pod", healing.agentPod, "--force", "--grace-period=0"))
        const healed = yield* eventually(
          Effect.tap(sandboxes.get("healing"), ({ instanceId, phase }) =>
            Effect.sync(() => {
              assert.strictEqual(phase, "Running")
              assert.notStrictEqual(instanceId, healing.instanceId)
            }))
        )
        assert.notStrictEqual(healed.agentPod, healing.agentPod)
        assert.strictEqual(healed.restarts, 1)
        const lost = yield* sandboxes.wait("waiting", { for: new Set(["Lost"]) })
        assert.deepInclude(lost, { reason: "AgentLost", instanceId: waiting.instanceId })
        // What ran on the lost agent is reaped; never two of one.
        yield* eventually(Effect.gen(function*() {
          assert.deepStrictEqual(yield* Machine.containers("healing"), [healed.instanceId])
          assert.deepStrictEqual(yield* Machine.containers("waiting"), [])
        }))
        assert.strictEqual((yield* sandboxes.get("waiting")).phase, "Lost")
        yield* sandboxes.reset("waiting")
        const back = yield* sandboxes.wait("waiting", { for: new Set(["Running"]) })
        assert.notStrictEqual(back.instanceId, waiting.instanceId)
        yield* Resources.deleteAll("sandbox", "healing", "waiting")
        yield* Resources.deleteAll("sandboxpool", "lossy")
      }))

    it.effect("a short silence of an agent recreates nothing, a long one does, and its return ends the old instance", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* Resources.declarePool("silent", { capacity: { poolMin: 2, poolMax: 2 }, maxSandboxesPerPod: 2 })
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* Resources.pool("silent")).status?.ready, 2)
        }))
        const first = yield* sandboxes.create({
          ...sleeper,
          name: "held",
          pool: "silent",
          failurePolicy: "AutoRecreate",
          recoveryTimeoutSeconds: 12
        })
        const pid = yield* Machine.agentProcess(first.agentPod)
        const silence = <A, E, R>(during: Effect.Effect<A, E, R>) =>
          Effect.acquireUseRelease(
            Effect.sync(() => process.kill(pid, "SIGSTOP")),
            () => during,
            () => Effect.sync(() => process.kill(pid, "SIGCONT"))
          )
        yield* silence(sandboxes.waitForCondition("held", { type: "Ready", status: "Unknown" }))
        const back = yield* sandboxes.waitForCondition("held", { type: "Ready", status: "True" })
        assert.deepInclude(back, { phase: "Running", instanceId: first.instanceId, restarts: 0 })
        const second = yield* silence(eventually(
          Effect.tap(sandboxes.get("held"), ({ instanceId, phase }) =>
            Effect.sync(() => {
              assert.strictEqual(phase, "Running")
              assert.notStrictEqual(instanceId, first.instanceId)
            }))
        ))
        assert.notStrictEqual(second.agentPod, first.agentPod)
        yield* eventually(
          Effect.map(Machine.containers("held"), (all) => assert.deepStrictEqual(all, [second.instanceId]))
        )
        assert.deepInclude(yield* sandboxes.get("held"), {
          phase: "Running",
          instanceId: second.instanceId,
          restarts: 1
        })
        yield* Resources.deleteAll("sandbox", "held")
        yield* Resources.deleteAll("sandboxpool", "silent")
      }))

    it.effect("a change of resetRevision gives one new instance, to the millisecond", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const { instanceId: first } = yield* sandboxes.create({ ...sleeper, name: "reset" })
        let previous = first
        const revisions = ["2026-01-01T00:00:00.001Z", "2026-01-01T00:00:00.002Z", "2025-01-01T00:00:00Z"]
        for (const [index, resetRevision] of revisions.entries()) {
          yield* Resources.patchSpec("sandbox", "reset", { resetRevision })
          const status = yield* eventually(Effect.tap(Resources.status("reset"), (status) =>
            Effect.sync(() => {
              assert.strictEqual(status.phase, "Running")
              assert.strictEqual(status.acceptedResetRevision, resetRevision)
            })))
          assert.notStrictEqual(status.sandboxID, previous)
          assert.strictEqual(status.restarts, index + 1)
          previous = status.sandboxID ?? ""
          // The same revision once more is no reset.
          yield* Resources.patchSpec("sandbox", "reset", { resetRevision })
          yield* eventually(Effect.map(Machine.containers("reset"), (all) => assert.deepStrictEqual(all, [previous])))
        }
        assert.strictEqual((yield* Resources.status("reset")).sandboxID, previous)
        yield* Resources.deleteAll("sandbox", "reset")
      }))
  })
})
