/** Archives of a sandbox that wants to write where nobody asked it to. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema, Stream } from "effect"
import * as Tar from "effect/encoding/Tar"
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Unpack from "../src/copy/Unpack.ts"

/** A home with a file that must stay as it is, and a folder in it to copy into. */
const home = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "fsb-unpack-"))
    writeFileSync(`${path}/.profile`, "mine")
    mkdirSync(`${path}/target`)
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

const unpackBytes = (target: string, archive: Stream.Stream<Uint8Array>, source = "/tmp/asked") =>
  Unpack.unpack(archive, { source, target, keepOwner: false, onBytes: () => Effect.void })

const archiveOf = (entries: ReadonlyArray<Tar.Entry>) =>
  Stream.fromIterable(entries).pipe(
    Stream.pipeThroughChannel(Tar.encode<never, unknown, Tar.Entry>()),
    Stream.orDie
  )

/** What was asked for is `/tmp/asked`, unless said otherwise. */
const unpack = (target: string, entries: ReadonlyArray<Tar.Entry>, source?: string) =>
  unpackBytes(target, archiveOf(entries), source)

const whole = archiveOf([
  Tar.directory("asked"),
  Tar.file("asked/file", "x".repeat(600)),
  Tar.symlink("asked/link", "file"),
  Tar.hardlink("asked/same", "asked/file")
]).pipe(Stream.runCollect, Effect.map((chunks) => Buffer.concat(chunks)))

const Position = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5000 }))

const Change = Schema.Struct({
  at: Position,
  byte: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
})

describe("an archive that a sandbox gave", () => {
  it.effect.each<readonly [string, ReadonlyArray<Tar.Entry>]>([
    ["climbs", [Tar.file("asked/../../.profile", "theirs")]],
    ["climbs at once", [Tar.file("../.profile", "theirs")]],
    ["has another name than was asked for", [Tar.file(".profile", "theirs")]],
    ["is the content of a folder where the folder was asked for", [
      Tar.directory("."),
      Tar.file("./.profile", "theirs")
    ]],
    ["has a second topmost entry", [Tar.directory("asked"), Tar.file(".profile", "theirs")]],
    ["writes through a link of its own", [
      Tar.directory("asked"),
      Tar.symlink("asked/out", "../.."),
      Tar.file("asked/out/.profile", "theirs")
    ]],
    ["is a link that it writes through", [Tar.symlink("asked", ".."), Tar.file("asked/.profile", "theirs")]],
    ["links to what is not its own", [Tar.directory("asked"), Tar.hardlink("asked/hard", "../.profile")]],
    ["links through a link", [
      Tar.directory("asked"),
      Tar.symlink("asked/soft", "../../.profile"),
      Tar.hardlink("asked/hard", "asked/soft")
    ]]
  ])("%s: refused, and nothing is changed", ([, entries]) =>
    Effect.gen(function*() {
      const path = yield* home
      for (const target of [path, `${path}/target`, `${path}/new`]) {
        const error = yield* Effect.flip(unpack(target, entries))
        assert.include(error.message, "leads out of the target")
        assert.strictEqual(readFileSync(`${path}/.profile`, "utf8"), "mine")
        assert.deepStrictEqual(readdirSync(path).toSorted(), [".profile", "target"])
        assert.deepStrictEqual(readdirSync(`${path}/target`), [])
      }
    }).pipe(Effect.scoped))

  it.effect.prop(
    "with any bytes changed or cut off is unpacked or refused, and changes nothing beside it",
    [Schema.Array(Change), Position],
    ([changes, end]) =>
      Effect.gen(function*() {
        const path = yield* home
        const bytes = Buffer.from(yield* whole)
        for (const { at, byte } of changes) bytes[at % bytes.length] = byte
        for (const archive of [bytes, bytes.subarray(0, end % bytes.length)]) {
          const exit = yield* Effect.exit(unpackBytes(`${path}/target`, Stream.make(archive)))
          assert.isTrue(Exit.isSuccess(exit) || !exit.cause.reasons.some(({ _tag }) => _tag === "Die"))
          assert.deepStrictEqual(readdirSync(path).toSorted(), [".profile", "target"])
          assert.strictEqual(readFileSync(`${path}/.profile`, "utf8"), "mine")
          assert.deepStrictEqual(readdirSync(`${path}/target`).filter((name) => name !== "asked"), [])
        }
      }).pipe(Effect.scoped)
  )

  it.effect("gets the name that was asked for, without the bits that change the user", () =>
    Effect.gen(function*() {
      const path = yield* home
      const tree = [Tar.directory("asked"), Tar.file("asked/tool", "x", { mode: 0o6755 })]
      for (const source of ["/tmp/asked", "/tmp/asked/", "/asked"]) {
        yield* unpack(`${path}/target`, tree, source)
        assert.strictEqual(lstatSync(`${path}/target/asked/tool`).mode & 0o7777, 0o755)
        rmSync(`${path}/target/asked`, { recursive: true })
      }
      yield* unpack(`${path}/new`, tree)
      assert.isTrue(existsSync(`${path}/new/tool`))
      yield* unpack(`${path}/target`, [Tar.directory("."), Tar.file("./tool", "x")], "/tmp/asked/.")
      yield* unpack(`${path}/all`, [Tar.directory("."), Tar.file("./tool", "x")], "/")
      assert.deepStrictEqual([readdirSync(`${path}/target`), readdirSync(`${path}/all`)], [["tool"], ["tool"]])
    }).pipe(Effect.scoped))
})
