import { assert, describe, layer } from "@effect/vitest"
import * as LogLine from "@fast-sandbox/client/LogLine"
import { Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import { DateTime, Duration, Effect, Fiber, Stream } from "effect"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

/** Any instant that is over: to expire by it is to stop now. */
const past = DateTime.makeUnsafe("2020-01-01T00:00:00Z")

/** Runs until it is told to end, and ends at once then. */
const patient = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"]

const slotsUsed = (pool: string) => Effect.map(Resources.pool(pool), ({ status }) => status?.slots?.used)

const remove = Effect.fnUntraced(function*(name: string) {
  const sandboxes = yield* Sandboxes
  yield* sandboxes.delete(name)
  yield* sandboxes.waitForDeletion(name)
})

describe("the life of a sandbox", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect.each(["fast", "strong"] as const)(
      "%s: runs, is the resource's instance, and is gone after delete",
      (mode) =>
        Effect.gen(function*() {
          const { fsbCtl, kubectl } = yield* LocalStack.LocalStack
          const args = ["run", "-d", "life", "--image", "busybox", "--mode", mode, "--", ...patient]
          yield* Resources.stdoutOf(fsbCtl(...args))
          const { metadata, spec, status } = yield* eventually(Effect.tap(Resources.sandbox("life"), ({ status }) =>
            Effect.sync(() =>
              assert.strictEqual(status?.phase, "Running")
            )))
          assert.strictEqual(spec.consistencyMode, mode)
          assert.include(metadata.finalizers ?? [], "sandbox.fast.io/cleanup")
          yield* eventually(Effect.map(Machine.containers("life"), (all) =>
            assert.deepStrictEqual(all, [status?.sandboxID ?? ""])))
          assert.strictEqual(yield* Resources.stdoutOf(fsbCtl("delete", "life")), "life\n")
          assert.deepStrictEqual(yield* Machine.containers("life"), [])
          const gone = yield* kubectl("get", "sandbox", "life")
          assert.strictEqual(gone.code, 1)
          assert.include(gone.stderr, "NotFound")
        })
    )

    it.effect("a delete during create wins, in both modes and at any moment", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        for (const consistencyMode of ["fast", "strong"] as const) {
          for (let pauseMillis = 0; pauseMillis <= 60; pauseMillis += 6) {
            const creation = yield* Effect.forkChild(Effect.result(
              sandboxes.create({
                name: "fleeting",
                image: "busybox",
                args: patient,
                consistencyMode,
                terminationGracePeriodSeconds: 0
              })
            ))
            yield* Effect.sleep(`${pauseMillis} millis`)
            // The name may not be taken yet; the delete that counts is the first one that was accepted.
            yield* sandboxes.delete("fleeting").pipe(
              Effect.retry({ times: 1000, while: ({ _tag }) => _tag === "NotFound" })
            )
            yield* Fiber.join(creation)
            yield* sandboxes.waitForDeletion("fleeting")
            yield* eventually(Effect.gen(function*() {
              assert.deepStrictEqual(yield* Machine.containers("fleeting"), [])
            }))
            assert.deepStrictEqual(yield* sandboxes.list(), [])
          }
        }
      }))

    it.effect("deleting what is not there says so and breaks nothing", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        assert.strictEqual((yield* Effect.flip(sandboxes.delete("nobody")))._tag, "NotFound")
        yield* sandboxes.create({ name: "bystander", image: "busybox", args: patient })
        const { code, stderr, stdout } = yield* fsbCtl("delete", "nobody", "bystander")
        assert.strictEqual(code, 125)
        assert.strictEqual(stdout, "bystander\n")
        assert.match(stderr, /nobody not found/)
        // Twice at once: whoever comes second hears that it is going or gone.
        yield* sandboxes.create({ name: "twice", image: "busybox", args: patient })
        const deletions = yield* Effect.forEach([1, 2], () => Effect.result(sandboxes.delete("twice")), {
          concurrency: "unbounded"
        })
        assert.isTrue(deletions.some(({ _tag }) => _tag === "Success"))
        assert.isTrue(deletions.every((one) => one._tag === "Success" || one.failure._tag === "NotFound"))
        yield* sandboxes.waitForDeletion("twice")
      }))

    it.effect("two resets at once are two new instances at most, and never two at the same time", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const first = yield* sandboxes.create({ name: "hasty", image: "busybox", args: patient })
        yield* Effect.forEach([1, 2], () => sandboxes.reset("hasty"), { concurrency: "unbounded", discard: true })
        yield* eventually(Effect.gen(function*() {
          assert.isAtMost((yield* Machine.containers("hasty")).length, 1)
          const { metadata, spec, status } = yield* Resources.sandbox("hasty")
          assert.strictEqual(status?.phase, "Running")
          assert.strictEqual(status?.acceptedResetRevision, spec.resetRevision)
          assert.strictEqual(status?.observedGeneration, metadata.generation)
          assert.notStrictEqual(status?.sandboxID, first.instanceId)
          assert.oneOf(status?.restarts, [1, 2])
          assert.deepStrictEqual(yield* Machine.containers("hasty"), [status?.sandboxID ?? ""])
        }))
        yield* remove("hasty")
      }))

    it.effect("a program that closes its output runs on, and what it wrote before stays readable", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* sandboxes.create({
          name: "mute",
          image: "busybox",
          args: ["sh", "-c", `echo before; exec >&- 2>&-; ${patient[2]}`]
        })
        const lines = sandboxes.logs("mute").pipe(Stream.map(LogLine.text), Stream.runCollect)
        yield* eventually(Effect.gen(function*() {
          assert.deepStrictEqual(yield* lines, ["before"])
        }))
        assert.strictEqual((yield* sandboxes.get("mute")).phase, "Running")
        yield* remove("mute")
      }))

    it.effect("a program that ends shows how, frees its slot and can be deleted", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        yield* Resources.declarePool("single", { capacity: { poolMin: 1, poolMax: 1 }, maxSandboxesPerPod: 1 })
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* Resources.pool("single")).status?.ready, 1)
        }))
        // With one slot the second one runs only when the first one's is free again.
        for (
          const { args, is } of [
            { args: ["true"], is: { phase: "Succeeded", exitCode: 0, reason: "Completed" } },
            { args: ["sh", "-c", "exit 3"], is: { phase: "Failed", exitCode: 3, reason: "Error" } }
          ] as const
        ) {
          const name = is.phase.toLowerCase()
          yield* sandboxes.create({ name, image: "busybox", pool: "single", args })
          yield* sandboxes.wait(name, { for: terminal })
          yield* eventually(Effect.gen(function*() {
            assert.deepInclude(yield* Resources.status(name), is)
            assert.strictEqual(yield* slotsUsed("single"), 0)
          }))
        }
        assert.strictEqual(yield* Resources.stdoutOf(fsbCtl("wait", "failed")), "3\n")
        yield* Resources.stdoutOf(fsbCtl("delete", "succeeded", "failed"))
        yield* Resources.deleteAll("sandboxpool", "single")
      }))

    it.effect("a program that takes more memory than it may is OOMKilled", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* sandboxes.create({
          name: "greedy",
          image: "busybox",
          args: ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M"],
          resources: { memory: "32Mi" }
        })
        const ended = yield* sandboxes.wait("greedy", { for: terminal })
        assert.deepInclude(ended, { phase: "Failed", reason: "OOMKilled", signal: 9 })
        yield* remove("greedy")
      }))

    it.effect("a program that handles SIGTERM has the last word in its log", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* sandboxes.create({
          name: "polite",
          image: "busybox",
          args: ["sh", "-c", "trap 'echo last words; exit 5' TERM; echo ready; while :; do sleep 0.05; done"]
        })
        const lines = yield* sandboxes.logs("polite", { follow: true }).pipe(
          Stream.map(LogLine.text),
          Stream.tap((text) => text === "ready" ? sandboxes.update("polite", { expireTime: past }) : Effect.void),
          Stream.runCollect
        )
        assert.deepStrictEqual(lines, ["ready", "last words"])
        assert.deepInclude(yield* sandboxes.wait("polite", { for: terminal }), { phase: "Expired", exitCode: 5 })
        yield* remove("polite")
      }))

    it.effect("a program that ignores SIGTERM is gone after its grace period, with signal 9, children and all", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const stubborn = "trap '' TERM; (trap '' TERM; (trap '' TERM; sleep 4321) & sleep 4322) & sleep 4323"
        yield* sandboxes.create({
          name: "stubborn",
          image: "busybox",
          args: ["sh", "-c", `${stubborn}; wait`],
          terminationGracePeriodSeconds: 1
        })
        yield* eventually(Effect.gen(function*() {
          for (const seconds of ["4321", "4322", "4323"]) {
            assert.lengthOf(yield* Machine.processesOf("sleep", seconds), 1)
          }
        }))
        const [took, ended] = yield* sandboxes.update("stubborn", { expireTime: past }).pipe(
          Effect.andThen(sandboxes.wait("stubborn", { for: terminal })),
          Effect.timed
        )
        assert.deepInclude(ended, { phase: "Expired", signal: 9 })
        assert.isAtLeast(Duration.toMillis(took), 1000)
        for (const seconds of ["4321", "4322", "4323"]) {
          assert.deepStrictEqual(yield* Machine.processesOf("sleep", seconds), [])
        }
        yield* eventually(Effect.map(Machine.zombies, (all) => assert.deepStrictEqual(all, [])))
        yield* remove("stubborn")
      }))

    it.effect("--ttl: it stops at its expiry, stays as Expired without a slot, and a reset after a later expiry revives it", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        yield* Resources.declarePool("short", { capacity: { poolMin: 1, poolMax: 1 }, maxSandboxesPerPod: 1 })
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* Resources.pool("short")).status?.ready, 1)
        }))
        const args = ["run", "-d", "brief", "--image", "busybox", "--pool", "short", "--ttl", "1s", "--", ...patient]
        yield* Resources.stdoutOf(fsbCtl(...args))
        const expired = yield* sandboxes.wait("brief", { for: new Set(["Expired"]) })
        yield* eventually(Effect.gen(function*() {
          const status = yield* Resources.status("brief")
          assert.strictEqual(status.phase, "Expired")
          assert.deepInclude(status.conditions?.find(({ type }) => type === "Expired"), { status: "True" })
          assert.strictEqual(yield* slotsUsed("short"), 0)
        }))
        // A later expiry alone revives nothing.
        yield* Resources.stdoutOf(fsbCtl("update", "brief", "--ttl", "10m"))
        assert.strictEqual((yield* sandboxes.get("brief")).phase, "Expired")
        yield* Resources.stdoutOf(fsbCtl("reset", "brief"))
        const revived = yield* sandboxes.wait("brief", { for: new Set(["Running"]) })
        assert.notStrictEqual(revived.instanceId, expired.instanceId)
        yield* eventually(Effect.gen(function*() {
          yield* eventually(
            Effect.map(Machine.containers("brief"), (all) => assert.deepStrictEqual(all, [revived.instanceId]))
          )
        }))
        yield* remove("brief")
        yield* Resources.deleteAll("sandboxpool", "short")
      }))

    it.effect("expireTime: a second ahead in a manifest, and taken back before it comes", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const soon = DateTime.formatIso(DateTime.add(yield* DateTime.now, { seconds: 1 }))
        const spec = { image: "busybox", poolRef: "default-pool", args: patient }
        yield* Resources.declareSandbox("dated", { ...spec, expireTime: soon })
        const later = DateTime.add(yield* DateTime.now, { seconds: 3 })
        yield* sandboxes.create({ name: "spared", image: "busybox", args: patient, expireTime: later })
        yield* sandboxes.update("spared", { expireTime: "never" })
        yield* sandboxes.wait("dated", { for: new Set(["Expired"]) })
        yield* eventually(Effect.gen(function*() {
          assert.isAbove(DateTime.toEpochMillis(yield* DateTime.now), DateTime.toEpochMillis(later))
        }))
        assert.strictEqual((yield* sandboxes.get("spared")).phase, "Running")
        assert.strictEqual((yield* Resources.sandbox("spared")).spec.expireTime, undefined)
        yield* remove("dated")
        yield* remove("spared")
      }))
  })
})
