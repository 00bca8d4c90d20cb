/**
 * Builds OCI image archives from files given as data, as a stream of tar bytes, in memory. The same input gives the same
 * bytes, so the same digests.
 */
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import { constants, zstdCompressSync } from "node:zlib"
import { platform } from "./internal/documents.ts"

/** A file of the image. Paths have no leading slash; parents must come first. */
export type ImageFile =
  | { readonly _tag: "File"; readonly path: string; readonly content: string | Uint8Array; readonly mode?: number }
  | { readonly _tag: "Directory"; readonly path: string; readonly mode?: number }
  | { readonly _tag: "Symlink"; readonly path: string; readonly target: string }

/** How programs of the image run. Absent means the image says nothing about it. */
export interface ImageDefaults {
  readonly entrypoint?: ReadonlyArray<string> | undefined
  readonly cmd?: ReadonlyArray<string> | undefined
  readonly env?: ReadonlyArray<string> | undefined
  readonly workingDir?: string | undefined
  readonly user?: string | undefined
  readonly stopSignal?: string | undefined
  readonly labels?: Readonly<Record<string, string>> | undefined
}

/** A layer whose bytes are made: for layers that several images share, which are then made once. */
export interface Layer {
  readonly _tag: "Layer"
  readonly mediaType: string
  readonly blob: Blob
  /** The digest of the uncompressed bytes, and how many they are. */
  readonly diffId: string
  readonly uncompressedBytes: number
}

/** `layers` has the lowest first, as files or made by {@link layer}. `names` are full (`docker.io/library/app:1`). */
export interface ImageRecipe extends ImageDefaults {
  readonly names: ReadonlyArray<string>
  readonly layers: ReadonlyArray<ReadonlyArray<ImageFile> | Layer>
}

/** Every time stamp in an archive: what makes it reproducible. */
const epoch = new Date(0)

const executable = 0o755
const regular = 0o644

const toEntry = (file: ImageFile): Tar.Entry => {
  switch (file._tag) {
    case "File":
      return Tar.file(file.path, file.content, { mode: file.mode ?? regular, mtime: epoch })
    case "Directory":
      return Tar.directory(`${file.path}/`, { mode: file.mode ?? executable, mtime: epoch })
    case "Symlink":
      return Tar.symlink(file.path, file.target, { mtime: epoch })
  }
}

const tar = (entries: Iterable<Tar.Entry>): Stream.Stream<Uint8Array, Tar.TarError> =>
  Stream.fromIterable(entries).pipe(Stream.pipeThroughChannel(Tar.encode<never, unknown, Tar.Entry>()))

/** Bytes under their digest. */
export interface Blob {
  readonly digest: string
  readonly bytes: Uint8Array
}

const toBlob = (bytes: Uint8Array): Blob => ({
  digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}`,
  bytes
})

const toJson = (value: unknown): Blob => toBlob(Buffer.from(JSON.stringify(value)))

const describe = (mediaType: string, { bytes, digest }: Blob) => ({ mediaType, digest, size: bytes.length })

const toDefaults = (recipe: ImageRecipe) => ({
  ...(recipe.entrypoint === undefined ? {} : { Entrypoint: recipe.entrypoint }),
  ...(recipe.cmd === undefined ? {} : { Cmd: recipe.cmd }),
  ...(recipe.env === undefined ? {} : { Env: recipe.env }),
  ...(recipe.workingDir === undefined ? {} : { WorkingDir: recipe.workingDir }),
  ...(recipe.user === undefined ? {} : { User: recipe.user }),
  ...(recipe.stopSignal === undefined ? {} : { StopSignal: recipe.stopSignal }),
  ...(recipe.labels === undefined ? {} : { Labels: recipe.labels })
})

const layerType = "application/vnd.oci.image.layer.v1.tar"

/** Node's binary takes 2 s at this level and is 30% of its size then; gzip takes 4 s for 35%. */
const zstdLevel = 9

const compress = {
  none: { suffix: "", pack: (bytes: Buffer): Uint8Array => bytes },
  zstd: {
    suffix: "+zstd",
    pack: (bytes: Buffer): Uint8Array =>
      zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: zstdLevel } })
  }
} as const

/** Makes a layer. Compressed ones are read by containerd since 1.5. Fails when a path can't be written into a tar. */
export const layer = Effect.fn("OciArchive.layer")(function*(
  files: ReadonlyArray<ImageFile>,
  compression: keyof typeof compress
): Effect.fn.Return<Layer, Tar.TarError> {
  const bytes = Buffer.concat(yield* Stream.runCollect(tar(files.map(toEntry))))
  const { pack, suffix } = compress[compression]
  const { digest: diffId } = toBlob(bytes)
  return {
    _tag: "Layer",
    mediaType: `${layerType}${suffix}`,
    blob: toBlob(pack(bytes)),
    diffId,
    uncompressedBytes: bytes.length
  }
})

const isLayer = (layer: ReadonlyArray<ImageFile> | Layer): layer is Layer => "_tag" in layer

/** The images of an archive, with all blobs: what a registry serves too. */
export interface BuiltImage {
  readonly manifest: Blob
  readonly blobs: ReadonlyArray<Blob>
}

const manifestType = "application/vnd.oci.image.manifest.v1+json"

/** Builds one image in memory. Fails only when a path can't be written into a tar. */
export const build = Effect.fn("OciArchive.build")(function*(
  recipe: ImageRecipe
): Effect.fn.Return<BuiltImage, Tar.TarError> {
  const layers = yield* Effect.forEach(
    recipe.layers,
    (files) => isLayer(files) ? Effect.succeed(files) : layer(files, "none")
  )
  const config = toJson({
    created: epoch.toISOString(),
    ...platform,
    config: toDefaults(recipe),
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) }
  })
  const manifest = toJson({
    schemaVersion: 2,
    mediaType: manifestType,
    config: describe("application/vnd.oci.image.config.v1+json", config),
    layers: layers.map(({ blob, mediaType }) => describe(mediaType, blob))
  })
  const unique = new Map([...layers.map(({ blob }) => blob), config, manifest].map((blob) => [blob.digest, blob]))
  return { manifest, blobs: [...unique.values()] }
})

/** The bytes of an OCI layout tar that holds the images. */
export const make = (recipes: ReadonlyArray<ImageRecipe>): Stream.Stream<Uint8Array, Tar.TarError> =>
  Stream.unwrap(Effect.gen(function*() {
    const images = yield* Effect.forEach(
      recipes,
      (recipe) => Effect.map(build(recipe), (built) => ({ names: recipe.names, ...built }))
    )
    const blobs = new Map(images.flatMap((image) => image.blobs.map((blob) => [blob.digest, blob] as const)))
    const index = {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: images.flatMap(({ manifest, names }) =>
        names.map((name) => ({
          ...describe(manifestType, manifest),
          platform,
          annotations: { "io.containerd.image.name": name }
        }))
      )
    }
    const files: ReadonlyArray<ImageFile> = [
      { _tag: "File", path: "oci-layout", content: JSON.stringify({ imageLayoutVersion: "1.0.0" }) },
      { _tag: "File", path: "index.json", content: JSON.stringify(index) },
      { _tag: "Directory", path: "blobs" },
      { _tag: "Directory", path: "blobs/sha256" },
      ...[...blobs.values()].map(({ bytes, digest }): ImageFile => ({
        _tag: "File",
        path: `blobs/sha256/${digest.slice("sha256:".length)}`,
        content: bytes
      }))
    ]
    return tar(files.map(toEntry))
  }))
