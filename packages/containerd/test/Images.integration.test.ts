import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Content } from "@fast-sandbox/containerd/Content"
import { Images } from "@fast-sandbox/containerd/Images"
import { Leases } from "@fast-sandbox/containerd/Leases"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import * as PrivateContainerd from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Layer, Stream } from "effect"
import * as Tar from "effect/encoding/Tar"
import { createHash } from "node:crypto"

const Private = PrivateContainerd.layer().pipe(Layer.provideMerge(NodeServices.layer))

const small = (name: string, text = name): OciArchive.ImageRecipe => ({
  names: [name],
  layers: [
    [{ _tag: "Directory", path: "etc" }, { _tag: "File", path: "etc/base", content: "base" }],
    [{ _tag: "File", path: "etc/name", content: text }]
  ],
  cmd: ["/bin/true"]
})

const bytesOf = (recipes: ReadonlyArray<OciArchive.ImageRecipe>) =>
  Effect.map(Stream.runCollect(OciArchive.make(recipes)), (chunks) => Buffer.concat(chunks))

interface TarFile {
  readonly path: string
  readonly content: string | Uint8Array
}

const tarOf = (files: ReadonlyArray<TarFile>) =>
  Stream.fromIterable(files.map(({ content, path }) => Tar.file(path, content))).pipe(
    Stream.pipeThroughChannel(Tar.encode<never, unknown, Tar.Entry>())
  )

const filesOf = (bytes: Uint8Array) =>
  Stream.make(bytes).pipe(
    Stream.pipeThroughChannel(Tar.decode<never>()),
    Stream.filter(({ header }) => header.type === "File"),
    Stream.mapEffect(({ body, header }) =>
      Effect.map(Stream.runCollect(body), (chunks) => ({ path: header.path, content: Buffer.concat(chunks) }))
    ),
    Stream.runCollect
  )

/** Everything an image can leave behind. */
const stored = Effect.gen(function*() {
  const content = yield* Content
  return {
    images: (yield* (yield* Images).list).map(({ name }) => name),
    blobs: (yield* content.list).length,
    ingests: (yield* content.ingests).length,
    snapshots: (yield* (yield* Snapshots).list()).length,
    leases: (yield* (yield* Leases).list).length
  }
})

/** Makes containerd's collector run now. */
const collect = Effect.gen(function*() {
  const leases = yield* Leases
  yield* leases.create("collect", { expiresAfter: "1 minute" })
  yield* leases.deleteAndCollect("collect")
})

layer(Private, { excludeTestServices: true, timeout: "60 seconds" })("Images", (it) => {
  it.effect("loads an OCI layout, from a stream and from a file, and knows it by all its names", () =>
    Effect.gen(function*() {
      const images = yield* Images
      const fileSystem = yield* FileSystem.FileSystem
      const recipe = { ...small("docker.io/library/demo:latest"), env: ["A=1"], user: "app", stopSignal: "SIGINT" }
      const [loaded] = yield* images.load(OciArchive.make([recipe]))
      for (const name of ["demo", "demo:latest", "docker.io/library/demo"]) {
        assert.deepStrictEqual(yield* images.resolve(name), loaded)
      }
      assert.deepStrictEqual(loaded?.config, {
        entrypoint: [],
        cmd: ["/bin/true"],
        env: ["A=1"],
        workingDir: "",
        user: "app",
        stopSignal: "SIGINT"
      })
      assert.isTrue(loaded !== undefined && (yield* images.isUnpacked(loaded)))
      const path = yield* fileSystem.makeTempFileScoped()
      yield* fileSystem.writeFile(path, yield* bytesOf([recipe]))
      assert.deepStrictEqual(yield* images.load(path), loaded === undefined ? [] : [loaded])
      yield* collect
      // What the image refers to survives the collector.
      assert.deepStrictEqual(yield* stored, {
        images: ["docker.io/library/demo:latest"],
        blobs: 4,
        ingests: 0,
        snapshots: 2,
        leases: 0
      })
      const snapshots = yield* Snapshots
      yield* snapshots.remove(loaded?.chainId ?? "")
      assert.isFalse(loaded !== undefined && (yield* images.isUnpacked(loaded)))
      yield* Effect.all([images.unpack("demo"), images.unpack("demo"), images.unpack("demo")], {
        concurrency: "unbounded"
      })
      assert.isTrue(loaded !== undefined && (yield* images.isUnpacked(loaded)))
      yield* images.remove("demo")
      yield* images.remove("demo")
      assert.strictEqual((yield* Effect.flip(images.resolve("demo")))._tag, "ImageNotFound")
      yield* collect
      assert.deepStrictEqual(yield* stored, { images: [], blobs: 0, ingests: 0, snapshots: 0, leases: 0 })
    }))

  it.effect("loads what docker save writes, with layers that are links", () =>
    Effect.gen(function*() {
      const images = yield* Images
      const layerTar = Buffer.concat(yield* Stream.runCollect(tarOf([{ path: "hello", content: "world" }])))
      const config = JSON.stringify({
        os: "linux",
        architecture: process.arch === "arm64" ? "arm64" : "amd64",
        config: { Cmd: ["/hello"], Entrypoint: null },
        rootfs: {
          type: "layers",
          diff_ids: Array.from({ length: 2 }, () => `sha256:${createHash("sha256").update(layerTar).digest("hex")}`)
        }
      })
      const manifest = [{ Config: "c.json", RepoTags: ["saved:1"], Layers: ["a/layer.tar", "b/layer.tar"] }]
      const [loaded] = yield* images.load(
        Stream.fromIterable([
          Tar.file("c.json", config),
          Tar.directory("a/"),
          Tar.file("a/VERSION", "1.0"),
          Tar.file("a/json", "{}"),
          Tar.file("a/layer.tar", layerTar),
          Tar.directory("b/"),
          Tar.symlink("b/layer.tar", "../a/layer.tar"),
          Tar.file("manifest.json", JSON.stringify(manifest))
        ]).pipe(Stream.pipeThroughChannel(Tar.encode<never, unknown, Tar.Entry>()))
      )
      assert.strictEqual(loaded?.name, "docker.io/library/saved:1")
      assert.deepStrictEqual(loaded?.config.cmd, ["/hello"])
      yield* images.remove("saved:1")
      yield* collect
      assert.strictEqual((yield* stored).blobs, 0)
    }))

  it.effect("gives the caller's name to an image that its archive does not name", () =>
    Effect.gen(function*() {
      const images = yield* Images
      const files = yield* filesOf(yield* bytesOf([small("docker.io/library/named:latest")]))
      const nameless = tarOf(files.map((file) =>
        file.path === "index.json"
          ? {
            path: file.path,
            content: Buffer.from(file.content).toString().replaceAll("io.containerd.image.name", "x")
          }
          : file
      ))
      const [loaded] = yield* images.load(nameless, { givenName: () => "given:1" })
      assert.strictEqual(loaded?.name, "docker.io/library/given:1")
      yield* images.remove("given:1")
      yield* collect
      assert.strictEqual((yield* stored).blobs, 0)
    }))

  it.effect("refuses a broken archive with its reason and keeps nothing of it", () =>
    Effect.gen(function*() {
      const images = yield* Images
      const bytes = yield* bytesOf([small("docker.io/library/broken:latest")])
      const files = yield* filesOf(bytes)
      const without = (pattern: RegExp) => tarOf(files.filter(({ path }) => !pattern.test(path)))
      const changed = (pattern: RegExp, change: (content: string) => string) =>
        tarOf(files.map((file) =>
          pattern.test(file.path) ? { path: file.path, content: change(Buffer.from(file.content).toString()) } : file
        ))
      const layerFile = files.find(({ content, path }) =>
        path.startsWith("blobs") && content.length > 1024
      )
      const cases: ReadonlyArray<readonly [string, Stream.Stream<Uint8Array, Tar.TarError>, RegExp]> = [
        ["empty", Stream.empty, /neither index.json/],
        ["no tar", Stream.make(Buffer.alloc(4096, "x")), /not a whole tar/],
        ["cut in a header", Stream.make(bytes.subarray(0, 700)), /not a whole tar/],
        ["cut in a layer", Stream.make(bytes.subarray(0, Math.floor(bytes.length * 0.7))), /not a whole tar/],
        ["no layer", without(new RegExp(layerFile?.path ?? "")), /missing/],
        ["another layer", changed(new RegExp(layerFile?.path ?? ""), (text) => `${text}x`), /digest/],
        ["no index", without(/index\.json/), /neither index.json/],
        ["no name", changed(/index\.json/, (text) => text.replaceAll("io.containerd.image.name", "x")), /has a name/],
        ["bad name", changed(/index\.json/, (text) => text.replaceAll("library/broken", "../Broken")), /image name/],
        ["wrong size", changed(/index\.json/, (text) => text.replace(/"size":\d+/, "\"size\":1")), /bytes/],
        ["bad digest", changed(/index\.json/, (text) => text.replace(/sha256:[0-9a-f]/, "sha256:../")), /digest/],
        ["bad json", changed(/index\.json/, () => "{"), /index.json/],
        ["climbs out", tarOf([{ path: "../../etc/passwd", content: "x" }]), /out of the archive/],
        ["climbs out within", tarOf([{ path: "blobs/../../x", content: "x" }]), /out of the archive/],
        ["is absolute", tarOf([{ path: "/etc/passwd", content: "x" }]), /out of the archive/],
        [
          "has it twice",
          tarOf([{ path: "index.json", content: "{}" }, { path: "./index.json", content: "{}" }]),
          /twice/
        ],
        [
          "links out",
          Stream.make(Tar.symlink("a/layer.tar", "../../../etc/passwd")).pipe(
            Stream.pipeThroughChannel(Tar.encode<never, unknown, Tar.Entry>())
          ),
          /out of the archive/
        ]
      ]
      for (const [title, archive, problem] of cases) {
        const error = yield* Effect.flip(images.load(archive))
        assert.include(["InvalidImage", "InvalidImageName"], error._tag, title)
        assert.match(error.message, problem, title)
        assert.deepStrictEqual(
          yield* stored,
          { images: [], blobs: 0, ingests: 0, snapshots: 0, leases: 0 },
          title
        )
      }
    }))

  it.effect("passes a failure of the archive's source on, and keeps nothing when interrupted", () =>
    Effect.gen(function*() {
      const images = yield* Images
      const bytes = yield* bytesOf([small("docker.io/library/half:latest")])
      const half = Stream.make(bytes.subarray(0, Math.floor(bytes.length / 2)))
      const error = yield* Effect.flip(images.load(half.pipe(Stream.concat(Stream.fail("the cable" as const)))))
      assert.strictEqual(error, "the cable")
      const result = yield* images.load(half.pipe(Stream.concat(Stream.never))).pipe(Effect.timeoutOption("300 millis"))
      assert.strictEqual(result._tag, "None")
      assert.deepStrictEqual(yield* stored, { images: [], blobs: 0, ingests: 0, snapshots: 0, leases: 0 })
    }))

  it.effect("builds the same bytes twice", () =>
    Effect.gen(function*() {
      const recipe = yield* TestImages.busybox
      const first = yield* bytesOf([recipe])
      assert.isTrue(first.equals(yield* bytesOf([recipe])))
    }))

  it.effect("refuses names that are none, and images that are not there", () =>
    Effect.gen(function*() {
      const images = yield* Images
      assert.strictEqual((yield* Effect.flip(images.get("UPPER")))._tag, "InvalidImageName")
      assert.strictEqual((yield* Effect.flip(images.unpack("nothing")))._tag, "ImageNotFound")
      const failure = yield* Effect.flip(Stream.runDrain(images.pull("localhost:1/app")))
      assert.deepInclude({ ...failure }, { _tag: "ImagePullFailed", retryable: false })
    }))
})
