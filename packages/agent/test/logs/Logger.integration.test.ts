import { assert, describe, it } from "@effect/vitest"
import * as LogFile from "@fast-sandbox/agent/logs/LogFile"
import { Duration, Effect, Stream } from "effect"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll } from "vitest"

const native = fileURLToPath(new URL("../../native", import.meta.url))
let out = ""

beforeAll(() => {
  out = mkdtempSync(join(tmpdir(), "fsb-native-"))
  execFileSync("make", ["-s", "-C", native, `OUT=${out}`])
})
afterAll(() => rmSync(out, { recursive: true, force: true }))

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "fsb-logger-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** Starts the logger as containerd's shim does: 3 and 4 are the program's output, 5 is closed when it is ready. */
const start = (dir: string, options: Readonly<Record<string, string>> = {}) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const settings = Object.entries({ dir, "max-bytes": "100000", files: "3", ...options }).flat()
      const child = spawn(`${out}/fsb-logger`, settings, {
        stdio: ["ignore", "ignore", "inherit", "pipe", "pipe", "pipe"]
      })
      const pipes: ReadonlyArray<unknown> = child.stdio
      const ready = pipes[5]
      assert.instanceOf(ready, Readable)
      ready.resume()
      await once(ready, "close")
      return child
    }),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

const input = (child: ChildProcess, fd: 3 | 4) => {
  const pipe = child.stdio[fd]
  assert.instanceOf(pipe, Writable)
  return pipe
}

const exited = (child: ChildProcess) =>
  Effect.promise(async () => child.exitCode ?? Number((await once(child, "exit"))[0]))

const records = (dir: string) =>
  LogFile.read({ directory: dir, ended: Effect.never }).pipe(
    Stream.runCollect,
    Effect.map((batches) =>
      batches.flat().map((record) =>
        `${record.stream} ${record.partial ? "P" : "F"} ${Buffer.from(record.text).toString()}`
      )
    )
  )

describe("fsb-logger", () => {
  it.live("tags and stamps the lines of both streams", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      const child = yield* start(dir)
      input(child, 3).end(`hello\n${"x".repeat(20_000)}\nno line feed`)
      input(child, 4).end("oops\n\n")
      assert.strictEqual(yield* exited(child), 0)
      const lines = yield* records(dir)
      assert.deepStrictEqual(lines.filter((_) => _.startsWith("stdout")), [
        "stdout F hello",
        `stdout P ${"x".repeat(16_384)}`,
        `stdout F ${"x".repeat(20_000 - 16_384)}`,
        "stdout P no line feed"
      ])
      assert.deepStrictEqual(lines.filter((_) => _.startsWith("stderr")), ["stderr F oops", "stderr F "])
    }))

  it.live("rotates by size and keeps the newest files, each of whole records", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      const child = yield* start(dir, { "max-bytes": "10000" })
      const count = 5_000
      input(child, 3).end(Array.from({ length: count }, (_, n) => `line ${n}\n`).join(""))
      input(child, 4).end()
      assert.strictEqual(yield* exited(child), 0)
      const files = readdirSync(dir)
      assert.strictEqual(files.length, 3)
      for (const file of files) {
        assert.isAtMost(statSync(join(dir, file)).size, 10_000)
      }
      const lines = yield* records(dir)
      const first = Number(lines[0]?.split(" ").at(-1))
      assert.deepStrictEqual(lines, Array.from({ length: count - first }, (_, n) => `stdout F line ${first + n}`))
    }))

  it.live("loses no line of what it keeps of a gigabyte", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      const child = yield* start(dir, { "max-bytes": "10000000" })
      const count = 5_000_000
      const program = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn("seq", ["-f", `%.0f ${"x".repeat(200)}`, String(count)], { stdio: ["ignore", "pipe", "inherit"] })
        ),
        (program) => Effect.sync(() => program.kill("SIGKILL"))
      )
      program.stdout.pipe(input(child, 3))
      input(child, 4).end()
      assert.strictEqual(yield* exited(child), 0)
      const lines = yield* records(dir)
      const kept = lines.map((line) => Number(line.split(" ")[2]))
      const first = kept[0] ?? 0
      // Two full files at least, of three.
      assert.isAbove(kept.length, 2 * 10_000_000 / 300)
      assert.deepStrictEqual(kept, Array.from({ length: count - first + 1 }, (_, n) => first + n))
    }), 120_000)

  it.live(
    "takes no more than its rate, loses no line by it, and lets all others go first",
    () =>
      Effect.gen(function*() {
        const dir = yield* directory
        const rate = 4_000_000
        const child = yield* start(dir, { "max-bytes": "10000000", rate: String(rate) })
        assert.strictEqual(readFileSync(`/proc/${child.pid}/stat`, "utf8").split(") ")[1]?.split(" ")[16], "19")
        // Twice as much log as may be written in the first second.
        const count = Math.ceil(2 * rate / 100)
        input(child, 3).end(Array.from({ length: count }, (_, n) => `${String(n).padStart(59)}\n`).join(""))
        input(child, 4).end()
        const [took, code] = yield* Effect.timed(exited(child))
        assert.strictEqual(code, 0)
        assert.isAtLeast(Duration.toMillis(took), 900)
        const lines = yield* records(dir)
        assert.deepStrictEqual(
          lines.map((line) => Number(line.split(" ").at(-1))),
          Array.from({ length: count }, (_, n) => n)
        )
      }),
    30_000
  )

  it.live("writes what is in the pipes before it obeys SIGTERM", () =>
    Effect.gen(function*() {
      const dir = yield* directory
      const child = yield* start(dir)
      yield* Effect.promise(() => new Promise<void>((done) => input(child, 3).write("last words\n", () => done())))
      child.kill("SIGTERM")
      assert.strictEqual(yield* exited(child), 0)
      assert.deepStrictEqual(yield* records(dir), ["stdout F last words"])
    }))

  it.live(
    "drops whole records on a full disk, never blocks, and tells how many were lost",
    () =>
      Effect.gen(function*() {
        const dir = yield* directory
        yield* Effect.acquireRelease(
          Effect.sync(() => execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", dir])),
          () => Effect.sync(() => execFileSync("umount", [dir]))
        )
        const child = yield* start(dir, { "max-bytes": "1000000" })
        const pipe = input(child, 3)
        // The write ends only because the logger goes on reading.
        yield* Effect.promise(() => new Promise<void>((done) => pipe.write("y\n".repeat(500_000), () => done())))
        pipe.end()
        input(child, 4).end()
        assert.strictEqual(yield* exited(child), 0)
        const lines = yield* records(dir)
        assert.isAbove(lines.length, 100)
        assert.isTrue(lines.every((line) => line === "stdout F y" || line.startsWith("stderr F fast-sandbox: ")))
      }),
    30_000
  )

  it("refuses to start without a directory", () => {
    const { status } = execFileSyncStatus(`${out}/fsb-logger`, ["files", "3"])
    assert.strictEqual(status, 2)
  })
})

const execFileSyncStatus = (file: string, args: ReadonlyArray<string>): { readonly status: number } => {
  try {
    execFileSync(file, args)
    return { status: 0 }
  } catch (error) {
    return { status: error instanceof Error && "status" in error ? Number(error.status) : -1 }
  }
}
