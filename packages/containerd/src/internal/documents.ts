/** The JSON documents of images, as far as they are read. Formats: the OCI image specification, and `docker save`. */
import * as Schema from "effect/Schema"

const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

/** sha256 only: containerd 1.6 stores nothing else. */
export const Digest = Schema.String.check(Schema.isPattern(/^sha256:[a-f0-9]{64}$/))

export const Descriptor = Schema.Struct({
  mediaType: Schema.optionalKey(Schema.String),
  digest: Digest,
  size: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)),
  annotations: nullable(Schema.Record(Schema.String, Schema.String)),
  platform: nullable(Schema.Struct({
    os: Schema.optionalKey(Schema.String),
    architecture: Schema.optionalKey(Schema.String)
  }))
})
export type Descriptor = typeof Descriptor.Type

/** More than any real index has (one manifest for each platform and its attestations). */
const maxManifests = 256

/** containerd's overlayfs can stack about as many. */
const maxLayers = 512

export const Index = Schema.Struct({
  manifests: Schema.Array(Descriptor).check(Schema.isMaxLength(maxManifests))
})
export type Index = typeof Index.Type

export const Manifest = Schema.Struct({
  config: Descriptor,
  layers: Schema.Array(Descriptor).check(Schema.isMaxLength(maxLayers))
})
export type Manifest = typeof Manifest.Type

export const Config = Schema.Struct({
  os: Schema.optionalKey(Schema.String),
  architecture: Schema.optionalKey(Schema.String),
  config: nullable(Schema.Struct({
    Entrypoint: nullable(Schema.Array(Schema.String)),
    Cmd: nullable(Schema.Array(Schema.String)),
    Env: nullable(Schema.Array(Schema.String)),
    WorkingDir: nullable(Schema.String),
    User: nullable(Schema.String),
    StopSignal: nullable(Schema.String)
  })),
  rootfs: Schema.Struct({ diff_ids: Schema.Array(Digest) })
})
export type Config = typeof Config.Type

/** `manifest.json` of `docker save`. */
export const DockerManifest = Schema.Array(Schema.Struct({
  Config: Schema.String,
  RepoTags: nullable(Schema.Array(Schema.String)),
  Layers: Schema.Array(Schema.String).check(Schema.isMaxLength(maxLayers))
})).check(Schema.isMaxLength(maxManifests))
export type DockerManifest = typeof DockerManifest.Type

const indexTypes: ReadonlySet<string> = new Set([
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json"
])

export const isIndexType = (mediaType: string): boolean => indexTypes.has(mediaType)

const architectures: Readonly<Record<string, string>> = { x64: "amd64", arm64: "arm64" }

/** This machine, in the words of images. */
export const platform = { os: "linux", architecture: architectures[process.arch] ?? process.arch } as const

/** Whether what is declared is for this machine; what declares nothing is. */
export const isForPlatform = (
  declared:
    | {
      readonly os?: string | undefined
      readonly architecture?: string | undefined
    }
    | null
    | undefined
): boolean =>
  (declared?.os ?? platform.os) === platform.os &&
  (declared?.architecture ?? platform.architecture) === platform.architecture
