import { assert, describe, layer } from "@effect/vitest"
import type { LogsOptions } from "@fast-sandbox/client/Calls"
import * as LogLine from "@fast-sandbox/client/LogLine"
import { Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import { DateTime, Effect, Fiber, FileSystem, Stream } from "effect"
import { dirname } from "node:path"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").slice(0, -1)

const numbers = (count: number): ReadonlyArray<string> => Array.from({ length: count }, (_, n) => String(n + 1))

describe("logs", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("keeps the order, both streams, and the time of every line; after the end, too", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        const before = DateTime.formatIso(yield* DateTime.now)
        const program = "for n in $(seq 1000); do echo $n; done; echo one >&2; echo two >&2; printf unfinished"
        yield* sandboxes.create({ name: "teller", image: "busybox", args: ["sh", "-c", program] })
        yield* sandboxes.wait("teller", { for: terminal })
        const plain = yield* fsbCtl("logs", "teller")
        assert.strictEqual(plain.code, 0, plain.stderr)
        assert.deepStrictEqual(plain.stdout.split("\n"), [...numbers(1000), "unfinished"])
        assert.strictEqual(plain.stderr, "one\ntwo\n")
        const stamped = linesOf(yield* Resources.stdoutOf(fsbCtl("logs", "--timestamps", "--tail", "500", "teller")))
        const times = stamped.map((line) => {
          assert.match(line, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z \d+$/)
          return line.slice(0, 30)
        })
        assert.deepStrictEqual(times, times.toSorted())
        assert.isTrue(times.every((time) => time > before))
        yield* Resources.stdoutOf(fsbCtl("delete", "teller"))
        const gone = yield* fsbCtl("logs", "teller")
        assert.strictEqual(gone.code, 125)
        assert.match(gone.stderr, /teller not found/)
      }))

    it.effect("--tail and --since choose", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        const program = "echo early; while [ ! -e /go ]; do sleep 0.05; [ -e /tmp/waited ] || " +
          "{ sleep 1; touch /tmp/waited /go; }; done; echo late; echo last"
        yield* sandboxes.create({ name: "chosen", image: "busybox", args: ["sh", "-c", program] })
        yield* sandboxes.wait("chosen", { for: terminal })
        const logs = (...args: ReadonlyArray<string>) => Resources.stdoutOf(fsbCtl("logs", "chosen", ...args))
        assert.strictEqual(yield* logs(), "early\nlate\nlast\n")
        assert.strictEqual(yield* logs("--tail", "2"), "late\nlast\n")
        assert.strictEqual(yield* logs("--tail", "0"), "")
        assert.strictEqual(yield* logs("--since", "1h"), "early\nlate\nlast\n")
        const [late = ""] = linesOf(yield* logs("--timestamps", "--tail", "2"))
        assert.strictEqual(yield* logs("--since", late.slice(0, 30)), "late\nlast\n")
        assert.strictEqual(yield* logs("--since", late.slice(0, 30), "--tail", "1"), "last\n")
        const read = (options: LogsOptions) =>
          sandboxes.logs("chosen", options).pipe(Stream.map(LogLine.text), Stream.runCollect)
        const stamps = yield* sandboxes.logs("chosen").pipe(Stream.map(({ time }) => time), Stream.runCollect)
        const [, lateAt] = stamps
        assert.isDefined(lateAt)
        assert.deepStrictEqual(yield* read({ until: lateAt, stream: "stdout" }), ["early"])
        assert.deepStrictEqual(yield* read({ since: lateAt, stream: "stderr" }), [])
        yield* Resources.stdoutOf(fsbCtl("delete", "chosen"))
      }))

    it.effect("-f tells what comes and ends with the program", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const program = "trap 'echo told to end; exit 0' TERM; echo begun; while :; do sleep 0.05; done"
        yield* Resources.stdoutOf(fsbCtl("run", "-d", "followed", "--image", "busybox", "--", "sh", "-c", program))
        const following = yield* Effect.forkChild(fsbCtl("logs", "-f", "followed"))
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* fsbCtl("logs", "followed")).stdout, "begun\n")
        }))
        yield* Resources.stdoutOf(fsbCtl("update", "followed", "--ttl", "0s"))
        const followed = yield* Fiber.join(following)
        assert.deepStrictEqual(followed, { code: 0, stdout: "begun\ntold to end\n", stderr: "" })
        yield* Resources.stdoutOf(fsbCtl("delete", "followed"))
      }))

    it.effect("-f ends when the sandbox is deleted", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        const args = ["sh", "-c", "trap 'exit 0' TERM; echo begun; while :; do sleep 0.05; done"]
        yield* sandboxes.create({ name: "cut", image: "busybox", args })
        const following = yield* Effect.forkChild(fsbCtl("logs", "-f", "cut"))
        yield* eventually(Effect.gen(function*() {
          assert.strictEqual((yield* fsbCtl("logs", "cut")).stdout, "begun\n")
        }))
        yield* Resources.stdoutOf(fsbCtl("delete", "cut"))
        assert.strictEqual((yield* Fiber.join(following)).stdout, "begun\n")
      }))

    it.effect("a reader that stops reading does not hold up the program", () =>
      Effect.gen(function*() {
        const { fsbCtl, home } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        // 30 MB: more than all buffers on the way together, and more than a log keeps.
        const program = "yes 0123456789012345678901234567890123456789 | head -c 30000000; echo; echo done"
        yield* sandboxes.create({ name: "talker", image: "busybox", args: ["sh", "-c", program] })
        const reader = "\"$0\" logs -f talker | { head -c 1; kill -STOP $$; }"
        const stopped = yield* Effect.forkChild(
          LocalStack.run("sh", ["-c", reader, LocalStack.fsbCtlPath], { env: { FSB_HOME: home } })
        )
        assert.strictEqual((yield* sandboxes.wait("talker", { for: terminal })).phase, "Succeeded")
        assert.strictEqual(yield* Resources.stdoutOf(fsbCtl("logs", "--tail", "1", "talker")), "done\n")
        const files = yield* FileSystem.FileSystem
        // Three files of 10 MiB are kept, and no more.
        const counts = new Map<string, number>()
        for (const path of yield* files.readDirectory(`${home}/logs`, { recursive: true })) {
          const { size, type } = yield* files.stat(`${home}/logs/${path}`)
          if (type === "File") {
            assert.isAtMost(Number(size), 10 * 1024 * 1024)
            counts.set(dirname(path), (counts.get(dirname(path)) ?? 0) + 1)
          }
        }
        assert.strictEqual(Math.max(...counts.values()), 3)
        yield* Fiber.interrupt(stopped)
        yield* Resources.stdoutOf(fsbCtl("delete", "talker"))
      }))
  })
})
