import { assert, describe, layer } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

/** What fsb-ctl prints where it has to succeed. */
const fsbCtl = (...args: ReadonlyArray<string>) =>
  Effect.flatMap(LocalStack.LocalStack, (stack) => Resources.stdoutOf(stack.fsbCtl(...args)))

const refused = (...args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const { code, stderr, stdout } = yield* LocalStack.LocalStack.use((stack) => stack.fsbCtl(...args))
    assert.deepStrictEqual([code, stdout], [125, ""])
    assert.strictEqual(stderr.trim().split("\n").length, 1, stderr)
    return stderr
  })

const run = (name: string, ...more: ReadonlyArray<string>) =>
  fsbCtl("run", "-d", "-q", name, "--image", "busybox", ...more)

describe("managing", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("a pool is made, scaled and deleted; one that holds sandboxes is not", () =>
      Effect.gen(function*() {
        assert.strictEqual(
          yield* fsbCtl("pool", "create", "small", "--min", "1", "--max", "1", "--slots", "2"),
          "small\n"
        )
        assert.include(yield* refused("pool", "create", "small"), "already exists")
        assert.include(yield* refused("pool", "create", "worse", "--slots", "0"), "maxSandboxesPerPod")
        yield* eventually(Effect.gen(function*() {
          assert.match(yield* fsbCtl("pool", "list"), /\nsmall +1\/1 +0\/2 /)
        }))
        yield* run("inside", "--pool", "small", "--", "sleep", "600")
        yield* fsbCtl("pool", "scale", "small", "--max", "2", "--min", "2")
        yield* eventually(Effect.gen(function*() {
          assert.match(yield* fsbCtl("pool", "get", "small"), /Agents: +2 ready of 2 wanted \(2-2\)/)
          assert.strictEqual((yield* fsbCtl("agent", "list", "--pool", "small", "-q")).trim().split("\n").length, 2)
        }))
        assert.match(yield* refused("pool", "delete", "small"), /holds 1 sandbox/)
        yield* fsbCtl("delete", "inside", "--force")
        assert.strictEqual(yield* fsbCtl("pool", "delete", "small"), "small\n")
        assert.include(yield* refused("pool", "get", "small"), "not found")
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual(yield* fsbCtl("agent", "list", "--pool", "small", "-q"), "")
        }))
      }), 60_000)

    it.effect("a drained agent takes nothing more, keeps what it has, and is replaced", () =>
      Effect.gen(function*() {
        yield* fsbCtl("pool", "create", "drained", "--min", "1", "--slots", "2")
        const agent = yield* eventually(Effect.gen(function*() {
          const names = (yield* fsbCtl(
            "agent",
            "list",
            "--pool",
            "drained",
            "-o",
            "jsonpath={.items[?(@.status.state==\"Ready\")].metadata.name}"
          )).split(" ")
          assert.match(names[0] ?? "", /^drained-agent-/)
          return names[0] ?? ""
        }))
        yield* run("stays", "--pool", "drained", "--", "sleep", "600")
        assert.strictEqual(yield* fsbCtl("agent", "drain", agent), `${agent}\n`)
        yield* eventually(Effect.gen(function*() {
          const list = yield* fsbCtl("agent", "list", "--pool", "drained")
          assert.match(list, new RegExp(`${agent} +drained +Draining +1/2`))
          assert.match(list, / Ready +0\/2/)
        }))
        yield* run("elsewhere", "--pool", "drained", "--", "sleep", "600")
        assert.notStrictEqual(yield* fsbCtl("get", "elsewhere", "-o", "jsonpath={.status.assignedPod}"), agent)
        assert.strictEqual(yield* fsbCtl("get", "stays", "-o", "jsonpath={.status.phase}"), "Running")
        yield* fsbCtl("delete", "stays", "elsewhere", "--force")
        yield* eventually(Effect.gen(function*() {
          assert.notInclude(yield* fsbCtl("agent", "list", "--pool", "drained"), agent)
        }))
        assert.include(yield* refused("agent", "drain", agent), "not found")
        yield* fsbCtl("pool", "delete", "drained", "--force")
      }), 60_000)

    it.effect("what happened is told: events, describe, conditions", () =>
      Effect.gen(function*() {
        yield* run("story", "--", "sh", "-c", "sleep 1; exit 3")
        assert.strictEqual(yield* fsbCtl("wait", "story", "--timeout", "20s"), "3\n")
        yield* eventually(Effect.gen(function*() {
          const events = yield* fsbCtl("events", "story")
          assert.match(events, /^AGE +TYPE +REASON +OBJECT +MESSAGE\n/)
          assert.match(events, / Warning +Error +sandbox\/story /)
        }))
        const page = yield* fsbCtl("describe", "story")
        assert.match(page, /Reason: +Error.*\nEnded with: +code 3\n/)
        assert.match(page, /\nConditions:\n +TYPE +STATUS /)
        assert.match(page, /\nWhere the time of its start went:\n +[\d.]+ ms [^]* ms {2}#+ /)
        assert.match(page, /\nEvents:\n +AGE [^]* Error /)
        assert.match(yield* refused("wait", "story", "--for", "condition=Ready"), /story is Failed/)
        assert.match(yield* fsbCtl("events", "pool/default-pool", "-o", "name"), /^(pool\/default-pool\n)*$/)
        assert.strictEqual(yield* fsbCtl("prune"), "story\n")
        assert.strictEqual(yield* fsbCtl("prune"), "")
      }), 60_000)

    it.effect("a condition is waited for, and many are deleted at once", () =>
      Effect.gen(function*() {
        for (const name of ["m-1", "m-2"]) {
          yield* run(name, "--", "sleep", "600")
          yield* fsbCtl("update", name, "-l", "many=yes")
        }
        assert.strictEqual(yield* fsbCtl("wait", "m-1", "--for", "condition=Ready", "--timeout", "20s"), "Running\n")
        assert.strictEqual(yield* fsbCtl("list", "-l", "many=yes", "--sort-by", "name", "-q"), "m-1\nm-2\n")
        const [duration, gone] = yield* Effect.timed(fsbCtl("delete", "-l", "many=yes", "--force"))
        // a graceful one waits for the grace period of a program that ignores SIGTERM
        assert.isBelow(Duration.toMillis(duration), 8_000)
        assert.sameMembers(gone.trim().split("\n"), ["m-1", "m-2"])
        assert.match(yield* fsbCtl("version"), /^client (\S+)\nserver \1\n$/)
      }), 60_000)

    it.effect("force goes on without an agent that is silent", () =>
      Effect.gen(function*() {
        yield* run("wedged", "--", "sleep", "600")
        yield* eventually(Effect.map(Resources.status("wedged"), ({ phase }) => assert.strictEqual(phase, "Running")))
        const pid = yield* Machine.agentProcess(yield* fsbCtl("get", "wedged", "-o", "jsonpath={.status.assignedPod}"))
        yield* Effect.acquireUseRelease(
          Effect.sync(() => process.kill(pid, "SIGSTOP")),
          () =>
            Effect.gen(function*() {
              yield* fsbCtl("delete", "wedged", "--force", "--no-wait")
              yield* fsbCtl("wait", "wedged", "--for", "delete", "--timeout", "45s")
            }),
          () => Effect.sync(() => process.kill(pid, "SIGCONT"))
        )
        assert.include(yield* refused("get", "wedged"), "not found")
      }), 90_000)
  })
})
