/** Image archives of strangers: whole ones, broken ones, and ones that want more than to be an image. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Content } from "@fast-sandbox/containerd/Content"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { Effect, Exit, Layer, Schema, Stream } from "effect"
import * as Tar from "effect/encoding/Tar"
import { createHash } from "node:crypto"
import * as Documents from "../src/internal/documents.ts"
import * as ImageArchive from "../src/internal/imageArchive.ts"
import { decode } from "../src/internal/imageTree.ts"

/** Takes every blob and keeps none. */
const content = Layer.mock(Content)({
  write: ({ body }) =>
    Effect.map(Stream.runCollect(body), (chunks) => {
      const bytes = Buffer.concat(chunks)
      return { digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}`, sizeBytes: bytes.length }
    })
})

const readStream = <E>(archive: Stream.Stream<Uint8Array, E>) =>
  Effect.flatMap(Content, (store) => ImageArchive.read(store, "lease", archive, () => "given:1")).pipe(
    Effect.provide(content)
  )

const read = (bytes: Uint8Array) => readStream(Stream.make(bytes))

const archive = OciArchive.make([{
  names: ["docker.io/library/a:1"],
  layers: [[{ _tag: "File", path: "a", content: "b" }]]
}]).pipe(Stream.runCollect, Effect.map((chunks) => Buffer.concat(chunks)))

const tarOf = (...entries: ReadonlyArray<Tar.Entry>) =>
  Stream.fromIterable(entries).pipe(
    Stream.pipeThroughChannel(Tar.encode<never, unknown, Tar.Entry>()),
    Stream.runCollect,
    Effect.map((chunks) => Buffer.concat(chunks))
  )

const Change = Schema.Struct({
  at: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 20_000 })),
  byte: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))
})

/** Answers; a defect fails the test. */
const assertAnswers = <A, E>(exit: Exit.Exit<A, E>) =>
  assert.isTrue(Exit.isSuccess(exit) || !exit.cause.reasons.some(({ _tag }) => _tag === "Die"))

describe("image archives", () => {
  it.effect.prop(
    "with any bytes changed or cut off are read or refused",
    [Schema.Array(Change), Change],
    ([changes, end]) =>
      Effect.gen(function*() {
        const bytes = Buffer.from(yield* archive)
        for (const { at, byte } of changes) {
          bytes[at % bytes.length] = byte
        }
        assertAnswers(yield* Effect.exit(read(bytes)))
        assertAnswers(yield* Effect.exit(read(bytes.subarray(0, end.at % bytes.length))))
      }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect("that lead out of themselves are refused", () =>
    Effect.gen(function*() {
      const index = Tar.file("index.json", "{\"manifests\":[]}")
      for (
        const entry of [
          Tar.file("../../etc/passwd", "x"),
          Tar.file("blobs/../../x", "x"),
          Tar.symlink("blobs/link", "/etc/passwd"),
          Tar.symlink("blobs/link", "../../etc/passwd")
        ]
      ) {
        const error = yield* Effect.flip(read(yield* tarOf(entry, index)))
        assert.strictEqual(error._tag, "InvalidImage")
        assert.include(error.message, "leads out of the archive")
      }
      const twice = yield* Effect.flip(read(yield* tarOf(index, index)))
      assert.include(twice.message, "twice")
      const bomb = Tar.file("index.json", "x".repeat(9 * 1024 * 1024))
      assert.include((yield* Effect.flip(read(yield* tarOf(bomb)))).message, "larger than")
      // Refused by what its header says.
      const zeros = Buffer.alloc(65_536)
      const huge = Stream.make(Tar.fileStream("layer.tar", 65 * 2 ** 30, Stream.forever(Stream.make(zeros)))).pipe(
        Stream.pipeThroughChannel(Tar.encode<never, unknown, Tar.Entry>())
      )
      assert.include((yield* Effect.flip(readStream(huge))).message, `or ${64 * 2 ** 30} bytes`)
      const many = Array.from({ length: 10_001 }, (_, n) => Tar.file(`f${n}`, ""))
      assert.include((yield* Effect.flip(read(yield* tarOf(...many)))).message, "more than 10000 entries")
    }))

  it.effect.prop(
    "with configurations of any JSON are read or refused",
    [Schema.Json],
    ([json]) =>
      Effect.gen(function*() {
        const bytes = Buffer.from(JSON.stringify(json))
        for (const schema of [Documents.Config, Documents.Index, Documents.Manifest, Documents.DockerManifest]) {
          assertAnswers(yield* Effect.exit(decode(schema, "document")(bytes)))
        }
      })
  )
})
