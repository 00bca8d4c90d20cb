import { assert, describe, it } from "@effect/vitest"
import * as LogFile from "@fast-sandbox/agent/logs/LogFile"
import * as LogRecord from "@fast-sandbox/agent/logs/LogRecord"
import { Deferred, Effect, Fiber, Option, Queue, Stream } from "effect"
import { appendFile, mkdtemp, rm, unlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"

const directory = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "fsb-log-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
)

const line = (second: number, stream: string, text: string, completeness = "F"): string =>
  `2026-11-23T20:00:${String(second).padStart(2, "0")}.000000001Z ${stream} ${completeness} ${text}\n`

const texts = (stream: Stream.Stream<ReadonlyArray<LogRecord.LogRecord>, LogFile.LogReadError>) =>
  stream.pipe(
    Stream.runCollect,
    Effect.map((batches) => batches.flat().map((record) => Buffer.from(record.text).toString()))
  )

const write = (path: string, text: string) => Effect.promise(() => writeFile(path, text))

describe("LogRecord", () => {
  it("reads a record", () => {
    const record = Option.getOrThrow(LogRecord.parse(Buffer.from(line(2, "stderr", "a b", "P").trimEnd())))
    assert.strictEqual(record.timeNanos, BigInt(Date.UTC(2026, 10, 23, 20, 0, 2)) * 1_000_000n + 1n)
    assert.strictEqual(record.stream, "stderr")
    assert.isTrue(record.partial)
    assert.strictEqual(Buffer.from(record.text).toString(), "a b")
  })

  it.each(["", "hello", line(1, "stdlog", "x").trimEnd(), line(1, "stdout", "x", "Q").trimEnd(), "x".repeat(60)])(
    "passes over %j",
    (text) => assert.isTrue(Option.isNone(LogRecord.parse(Buffer.from(text))))
  )
})

describe("LogFile", () => {
  it.live("reads across rotated files in order", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      yield* write(`${dir}/00000009.log`, line(1, "stdout", "a") + line(2, "stderr", "b"))
      yield* write(`${dir}/00000010.log`, line(3, "stdout", "c"))
      const options = { directory: dir, ended: Effect.never }
      assert.deepStrictEqual(yield* texts(LogFile.read(options)), ["a", "b", "c"])
      assert.deepStrictEqual(yield* texts(LogFile.read({ ...options, tailLines: 2 })), ["b", "c"])
      assert.deepStrictEqual(yield* texts(LogFile.read({ ...options, tailLines: 0 })), [])
      assert.deepStrictEqual(yield* texts(LogFile.read({ ...options, stream: "stdout", tailLines: 1 })), ["c"])
      const second = BigInt(Date.UTC(2026, 10, 23, 20, 0, 2)) * 1_000_000n
      assert.deepStrictEqual(yield* texts(LogFile.read({ ...options, sinceNanos: second })), ["b", "c"])
      assert.deepStrictEqual(yield* texts(LogFile.read({ ...options, untilNanos: second })), ["a"])
    }))

  it.live("ends at once when nothing was written", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      assert.deepStrictEqual(yield* texts(LogFile.read({ directory: dir, ended: Effect.never })), [])
      assert.deepStrictEqual(yield* texts(LogFile.read({ directory: `${dir}/gone`, ended: Effect.never })), [])
    }))

  it.live("follows a writer over a rotation until it has ended", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      const ended = yield* Deferred.make<void>()
      const seen = yield* Queue.unbounded<string>()
      yield* write(`${dir}/00000001.log`, line(1, "stdout", "a"))
      const follower = yield* LogFile.read({ directory: dir, ended: Deferred.await(ended), follow: true, tailLines: 1 })
        .pipe(
          Stream.runForEach((records) =>
            Queue.offerAll(seen, records.map((record) => Buffer.from(record.text).toString()))
          ),
          Effect.forkChild
        )
      assert.strictEqual(yield* Queue.take(seen), "a")
      // A record that is written in two halves is one record.
      const whole = line(2, "stdout", "b")
      yield* Effect.promise(() => appendFile(`${dir}/00000001.log`, whole.slice(0, 20)))
      yield* Effect.promise(() => appendFile(`${dir}/00000001.log`, whole.slice(20)))
      assert.strictEqual(yield* Queue.take(seen), "b")
      yield* write(`${dir}/00000002.log`, line(3, "stdout", "c"))
      assert.strictEqual(yield* Queue.take(seen), "c")
      yield* Effect.promise(() => appendFile(`${dir}/00000002.log`, line(4, "stdout", "d")))
      yield* Deferred.succeed(ended, undefined)
      yield* Fiber.join(follower)
      assert.strictEqual(yield* Queue.take(seen), "d")
    }), 10_000)

  it.live("goes on with the oldest file that is left when it was too slow", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      for (const number of [1, 2, 3]) {
        yield* write(`${dir}/0000000${number}.log`, line(number, "stdout", String(number)))
      }
      const slow = LogFile.read({ directory: dir, ended: Effect.never }).pipe(
        Stream.tap(() => Effect.promise(() => unlink(`${dir}/00000002.log`).catch(() => undefined)))
      )
      assert.deepStrictEqual(yield* texts(slow), ["1", "3"])
    }))
})
