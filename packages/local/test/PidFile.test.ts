import { NodeFileSystem } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import * as PidFile from "@fast-sandbox/local/PidFile"
import { Effect, FileSystem, Option } from "effect"

const directory = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  return yield* files.makeTempDirectoryScoped()
})

describe("PidFile", () => {
  it.live("is held by one stack at a time and gone afterwards", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const dir = `${yield* directory}/run`
      const path = `${dir}/stack.pid`
      yield* Effect.scoped(Effect.gen(function*() {
        yield* PidFile.hold(path)
        const owner = yield* PidFile.read(path)
        assert.strictEqual(Option.getOrThrow(owner).pid, process.pid)
        const error = yield* Effect.flip(Effect.scoped(PidFile.hold(path)))
        assert.strictEqual(error._tag, "AlreadyRunning")
        assert.isTrue(yield* files.exists(path))
      }))
      assert.deepStrictEqual(yield* files.readDirectory(dir), [])
    }).pipe(Effect.provide(NodeFileSystem.layer)))

  it.live.each([
    { what: "of a process that is gone", text: JSON.stringify({ pid: 4_194_304, startedAtTicks: "1" }) },
    { what: "of an earlier process with the same id", text: JSON.stringify({ pid: process.pid, startedAtTicks: "1" }) },
    { what: "that is half written", text: "{\"pid\":" }
  ])("takes over a file $what", ({ text }) =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const path = `${yield* directory}/stack.pid`
      yield* files.writeFileString(path, text)
      assert.isTrue(Option.isNone(yield* PidFile.read(path)))
      yield* Effect.scoped(PidFile.hold(path))
    }).pipe(Effect.provide(NodeFileSystem.layer)))
})
