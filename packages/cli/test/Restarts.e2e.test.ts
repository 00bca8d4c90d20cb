import { assert, describe, layer } from "@effect/vitest"
import * as LogLine from "@fast-sandbox/client/LogLine"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { Effect, Fiber, Stream } from "effect"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const creates = 20

/** In every round the kill comes after so many of the creates were answered. */
const killAfterAnswers = [0, 1, 7, 14]

describe("kill -9", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("of an agent: its sandboxes are the same, log on, and keep their slots; an end meanwhile is told", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* Resources.declarePool("kept", { capacity: { poolMin: 1, poolMax: 1 }, maxSandboxesPerPod: 3 })
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* Resources.pool("kept")).status?.ready, 1)
        }))
        const common = { image: "busybox", pool: "kept", terminationGracePeriodSeconds: 0 }
        const ticker = yield* sandboxes.create({
          ...common,
          name: "ticker",
          args: ["sh", "-c", "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.05; done"],
          exposedPorts: [8080]
        })
        const followed: Array<string> = []
        const follower = yield* sandboxes.logs("ticker", { follow: true }).pipe(
          Stream.runForEach((line) => Effect.sync(() => followed.push(LogLine.text(line)))),
          Effect.forkChild
        )
        yield* eventually(Effect.sync(() => assert.isNotEmpty(followed)))
        const pid = yield* Machine.agentProcess(ticker.agentPod)
        yield* sandboxes.create({ ...common, name: "ender", args: ["sh", "-c", "sleep 1; echo bye; exit 4"] })
        // Stopped first, so that the program certainly ends while no agent looks.
        process.kill(pid, "SIGSTOP")
        yield* eventually(Effect.gen(function*() {
          assert.deepStrictEqual(yield* Machine.processesOf("sh", "-c", "sleep 1; echo bye; exit 4"), [])
        }))
        process.kill(pid, "SIGKILL")
        const ended = yield* sandboxes.wait("ender", { for: new Set(["Failed", "Succeeded", "Lost"]) })
        assert.deepInclude(ended, { phase: "Failed", exitCode: 4 })
        assert.notStrictEqual(yield* Machine.agentProcess(ticker.agentPod), pid)
        const { instanceId, phase } = yield* sandboxes.get("ticker")
        assert.deepStrictEqual({ instanceId, phase }, { instanceId: ticker.instanceId, phase: "Running" })
        yield* eventually(
          Effect.map(Machine.containers("ticker"), (all) => assert.deepStrictEqual(all, [ticker.instanceId]))
        )
        const { fsbCtl } = yield* LocalStack.LocalStack
        const before = (yield* Resources.stdoutOf(fsbCtl("logs", "ticker"))).trim().split("\n")
        yield* eventually(Effect.gen(function*() {
          const lines = (yield* Resources.stdoutOf(fsbCtl("logs", "ticker"))).trim().split("\n")
          assert.isAbove(lines.length, before.length)
          assert.deepStrictEqual(lines, lines.map((_, n) => String(n + 1)))
        }))
        assert.strictEqual(yield* Resources.stdoutOf(fsbCtl("logs", "ender")), "bye\n")
        // Who followed meanwhile has missed no line and was told none twice.
        yield* eventually(Effect.sync(() => assert.isAbove(followed.length, before.length)))
        assert.deepStrictEqual(followed, followed.map((_, n) => String(n + 1)))
        yield* Fiber.interrupt(follower)
        // Two slots and every port but one are free.
        const refused = yield* Effect.flip(
          sandboxes.create({ ...common, name: "clash", args: ["sleep", "600"], exposedPorts: [8080] })
        )
        assert.strictEqual(refused._tag, "ResourceExhausted")
        const fill = (name: string) => sandboxes.create({ ...common, name, args: ["sleep", "600"] })
        yield* fill("fills-1")
        yield* fill("fills-2")
        assert.strictEqual((yield* Effect.flip(fill("fills-3")))._tag, "ResourceExhausted")
        yield* Resources.deleteAll("sandbox", "ticker", "ender", "fills-1", "fills-2")
        yield* Resources.deleteAll("sandboxpool", "kept")
      }))

    it.effect("of the stack during creates: what was acknowledged runs once, and nothing runs that is not listed", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        for (const [round, answers] of killAfterAnswers.entries()) {
          const names = Array.from({ length: creates }, (_, n) => `round-${round}-${n}`)
          const acknowledged = new Map<string, string>()
          const creations = yield* Effect.forkChild(Effect.forEach(names, (name, n) =>
            sandboxes.create({
              name,
              image: "busybox",
              args: ["sleep", "600"],
              consistencyMode: n % 2 === 0 ? "fast" : "strong",
              terminationGracePeriodSeconds: 0
            }).pipe(
              Effect.tap(({ instanceId }) => Effect.sync(() => acknowledged.set(name, instanceId))),
              Effect.ignore
            ), { concurrency: "unbounded", discard: true }))
          yield* Effect.sleep("1 millis").pipe(Effect.repeat({ until: () => acknowledged.size >= answers }))
          yield* Machine.killStack
          yield* Resources.stdoutOf(fsbCtl("up", "--detach", "--containerd", "own"))
          // A create whose answer got lost asks again with the same request id.
          yield* Fiber.join(creations)
          assert.isAtLeast(acknowledged.size, answers)
          yield* eventually(Effect.gen(function*() {
            const all = yield* sandboxes.list()
            for (const [name, instanceId] of acknowledged) {
              const found = all.find((sandbox) => sandbox.name === name)
              assert.deepInclude(found, { phase: "Running", instanceId })
            }
            // What came of a create without an answer runs once or not at all, and holds a slot only if it runs.
            const running = all.filter(({ phase }) => phase === "Running").map(({ instanceId }) => instanceId)
              .toSorted()
            assert.deepStrictEqual((yield* Machine.containers()).toSorted(), running)
            // A strong create that was cut off is completed by the controller: nothing stays behind unsettled.
            assert.deepStrictEqual(all.filter(({ phase }) => phase !== "Running").map(({ phase }) => phase), [])
            assert.strictEqual(new Set(all.map(({ name }) => name)).size, all.length)
            assert.strictEqual((yield* Resources.pool("default-pool")).status?.slots?.used, running.length)
          }))
          const all = yield* sandboxes.list()
          yield* Effect.forEach(all, ({ name }) => sandboxes.delete(name), { concurrency: "unbounded" })
          yield* eventually(Effect.gen(function*() {
            assert.deepStrictEqual(yield* Machine.containers(), [])
          }))
        }
      }))
  })
})
