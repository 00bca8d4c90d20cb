/** Reads an image's documents out of the content store, from a target down to its layers. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { createHash } from "node:crypto"
import type { ContainerdError } from "../ContainerdError.ts"
import type { Content } from "../Content.ts"
import { ImageNotFound, InvalidImage } from "../ImageErrors.ts"
import type { ImageRunConfig } from "../OciSpec.ts"
import * as Documents from "./documents.ts"

/** An image for this platform. */
export interface ImageTree {
  readonly manifestDescriptor: Documents.Descriptor
  readonly manifest: Documents.Manifest
  readonly config: Documents.Config
  /** The indexes that were passed on the way, outermost first, with the children of each. */
  readonly indexes: ReadonlyArray<{ readonly digest: string; readonly children: ReadonlyArray<Documents.Descriptor> }>
}

const decoder = new TextDecoder()

/** Decodes a JSON document; what is wrong becomes the problem of `path`. */
export const decode = <S extends Schema.ConstraintCodec<unknown, unknown>>(schema: S, path: string) => {
  const fromJson = Schema.decodeUnknownEffect(Schema.fromJsonString(schema))
  return (bytes: Uint8Array): Effect.Effect<S["Type"], InvalidImage> =>
    Effect.suspend(() => fromJson(decoder.decode(bytes))).pipe(
      Effect.mapError((error) => new InvalidImage({ path, problem: error.message }))
    )
}

/** How deep indexes may refer to indexes. The specification knows one level; some tools write two. */
const maxIndexDepth = 3

/** Finds the manifest for this platform below `target`, and reads it and its configuration. */
export const read = Effect.fnUntraced(function*(
  content: Content["Service"],
  image: string,
  target: { readonly digest: string; readonly mediaType: string }
): Effect.fn.Return<ImageTree, ImageNotFound | InvalidImage | ContainerdError> {
  const document = (digest: string) =>
    content.read(digest).pipe(
      Effect.catchTag(
        "BlobTooLarge",
        (error) => Effect.fail(new InvalidImage({ path: digest, problem: error.message }))
      ),
      Effect.catchTag("ContainerdError", (error) =>
        Effect.fail(
          error.isNotFound
            ? new InvalidImage({ path: digest, problem: "the image refers to it, but it is missing" })
            : error
        ))
    )
  const indexes: Array<ImageTree["indexes"][number]> = []
  let current: Documents.Descriptor = { digest: target.digest, mediaType: target.mediaType, size: 0 }
  for (let depth = 0; Documents.isIndexType(current.mediaType ?? ""); depth++) {
    if (depth === maxIndexDepth) {
      return yield* new InvalidImage({ path: current.digest, problem: "its indexes refer to one another too deeply" })
    }
    const { manifests } = yield* decode(Documents.Index, current.digest)(yield* document(current.digest))
    const chosen = manifests.find((child) => Documents.isForPlatform(child.platform))
    indexes.push({ digest: current.digest, children: manifests })
    if (chosen === undefined) {
      return yield* new ImageNotFound({
        image,
        problem: `it has no manifest for ${Documents.platform.os}/${Documents.platform.architecture}`
      })
    }
    current = chosen
  }
  const manifestBytes = yield* document(current.digest)
  const manifest = yield* decode(Documents.Manifest, current.digest)(manifestBytes)
  const config = yield* decode(Documents.Config, manifest.config.digest)(yield* document(manifest.config.digest))
  if (!Documents.isForPlatform(config)) {
    return yield* new ImageNotFound({
      image,
      problem: `it is for ${config.os ?? "?"}/${config.architecture ?? "?"}, this machine is ` +
        `${Documents.platform.os}/${Documents.platform.architecture}`
    })
  }
  if (config.rootfs.diff_ids.length !== manifest.layers.length) {
    return yield* new InvalidImage({
      path: manifest.config.digest,
      problem: `it names ${config.rootfs.diff_ids.length} layers, the manifest ${manifest.layers.length}`
    })
  }
  return {
    manifestDescriptor: { ...current, size: manifestBytes.length },
    manifest,
    config,
    indexes
  }
})

/** The chain id of each layer: the name of the snapshot that holds it and all below it. */
export const chainIds = (diffIds: ReadonlyArray<string>): ReadonlyArray<string> => {
  const chain: Array<string> = []
  for (const diffId of diffIds) {
    const parent = chain.at(-1)
    chain.push(
      parent === undefined ? diffId : `sha256:${createHash("sha256").update(`${parent} ${diffId}`).digest("hex")}`
    )
  }
  return chain
}

/** How the image runs. */
export const runConfig = ({ config }: Documents.Config): ImageRunConfig => ({
  entrypoint: config?.Entrypoint ?? [],
  cmd: config?.Cmd ?? [],
  env: config?.Env ?? [],
  workingDir: config?.WorkingDir ?? "",
  user: config?.User ?? "",
  stopSignal: config?.StopSignal ?? ""
})
