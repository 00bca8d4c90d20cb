/**
 * Reads an image archive (an OCI layout or the output of `docker save`, as one tar) into the content store, and says
 * which images it names. Nothing is unpacked to disk: entries go straight into the store, which checks their digests.
 */
import * as Effect from "effect/Effect"
import * as Tar from "effect/encoding/Tar"
import * as Stream from "effect/Stream"
import { createHash } from "node:crypto"
import * as Path from "node:path/posix"
import type { ContainerdError } from "../ContainerdError.ts"
import { type Blob, type Content, maxDocumentBytes } from "../Content.ts"
import { InvalidImage } from "../ImageErrors.ts"
import * as Documents from "./documents.ts"
import { decode } from "./imageTree.ts"

/** A name in an archive and what it points to. */
export interface ArchivedImage {
  readonly name: string
  readonly target: { readonly digest: string; readonly mediaType: string; readonly sizeBytes: number }
}

/** An archive has a few entries for each layer; more than this is no image. */
const maxEntries = 10_000

/** The largest archive that is read, all images in it together. */
const maxArchiveBytes = 64 * 1024 ** 3

const layoutNames: ReadonlySet<string> = new Set(["oci-layout", "index.json", "manifest.json", "repositories"])
const blobPattern = /^blobs\/sha256\/([a-f0-9]{64})$/

/** What `docker save` writes beside layers and configurations, of no use to us. */
const isDockerNoise = (path: string): boolean => /(^|\/)(VERSION|json)$/.test(path)

interface Entries {
  readonly documents: Map<string, Uint8Array>
  readonly blobs: Map<string, Blob>
  readonly links: Map<string, string>
}

/** The path below the archive's root, or a failure: an archive that points outside of itself is not trusted at all. */
const safePath = (written: string, base = ""): Effect.Effect<string, InvalidImage> => {
  const path = Path.normalize(Path.join(base, written)).replace(/\/$/, "")
  return Path.isAbsolute(written) || written.includes("\0") || path === ".." || path.startsWith("../")
    ? Effect.fail(new InvalidImage({ path: written, problem: "the path leads out of the archive" }))
    : Effect.succeed(path)
}

const readDocument = <E, R>(
  path: string,
  { body, header }: Tar.Entry<E, R>
): Effect.Effect<Uint8Array, E | InvalidImage, R> =>
  header.size > maxDocumentBytes
    ? Effect.fail(new InvalidImage({ path, problem: `it is larger than ${maxDocumentBytes} bytes` }))
    : Effect.map(Stream.runCollect(body), (chunks) => Buffer.concat(chunks))

const digestMismatch = (path: string) => (error: ContainerdError): ContainerdError | InvalidImage =>
  error.isFailedPrecondition ? new InvalidImage({ path, problem: error.details }) : error

/**
 * Stores the archive's blobs under the lease. `givenName` is asked when all was read, and names what the archive does
 * not name itself. Failures of the archive itself are InvalidImage, those of its source E.
 */
export const read = Effect.fnUntraced(function*<E, R>(
  content: Content["Service"],
  leaseId: string,
  archive: Stream.Stream<Uint8Array, E, R>,
  givenName: () => string | undefined
): Effect.fn.Return<ReadonlyArray<ArchivedImage>, E | InvalidImage | ContainerdError, R> {
  const entries: Entries = { documents: new Map(), blobs: new Map(), links: new Map() }
  const seen = new Set<string>()
  let bytes = 0

  const write = (path: string, body: Stream.Stream<Uint8Array, Tar.TarError | Source<E>, R>, expected?: string) =>
    content.write({ ref: `${leaseId}-${seen.size}`, leaseId, body, expected }).pipe(
      Effect.mapError((error) => error._tag === "ContainerdError" ? digestMismatch(path)(error) : error),
      Effect.map((blob) => {
        entries.blobs.set(path, blob)
      })
    )

  const visit = Effect.fnUntraced(function*(entry: Tar.Entry<Tar.TarError | Source<E>, R>) {
    const { header } = entry
    const path = yield* safePath(header.path)
    if (header.type === "Directory" || path === ".") {
      return
    }
    bytes += header.size
    if (seen.size === maxEntries || bytes > maxArchiveBytes) {
      return yield* new InvalidImage({
        path,
        problem: `the archive has more than ${maxEntries} entries or ${maxArchiveBytes} bytes`
      })
    }
    if (seen.has(path)) {
      return yield* new InvalidImage({ path, problem: "the archive has it twice" })
    }
    seen.add(path)
    if (header.type === "Symlink" || header.type === "Hardlink") {
      // docker save links layers that images share.
      const base = header.type === "Symlink" ? Path.dirname(path) : ""
      entries.links.set(path, yield* safePath(header.linkTarget ?? "", base))
    } else if (header.type !== "File") {
      return yield* new InvalidImage({ path, problem: `it is a ${header.type}, which no image archive holds` })
    } else if (layoutNames.has(path)) {
      entries.documents.set(path, yield* readDocument(path, entry))
    } else if (blobPattern.test(path)) {
      yield* write(path, entry.body, `sha256:${Path.basename(path)}`)
    } else if (!isDockerNoise(path)) {
      yield* write(path, entry.body)
    }
  })

  yield* archive.pipe(
    Stream.mapError((error): Source<E> => ({ _tag: "Source", error })),
    Stream.pipeThroughChannel(Tar.decode<Source<E>>()),
    Stream.runForEach(visit),
    Effect.mapError((error) => {
      switch (error._tag) {
        case "Source":
          return error.error
        case "TarError":
          return new InvalidImage({ path: "", problem: `not a whole tar archive: ${error.message}` })
        default:
          return error
      }
    })
  )

  const index = entries.documents.get("index.json")
  if (index !== undefined) {
    return yield* fromLayout(yield* decode(Documents.Index, "index.json")(index), givenName())
  }
  const manifest = entries.documents.get("manifest.json")
  if (manifest !== undefined) {
    return yield* fromDocker(
      content,
      leaseId,
      entries,
      yield* decode(Documents.DockerManifest, "manifest.json")(manifest),
      givenName()
    )
  }
  return yield* new InvalidImage({
    path: "",
    problem: "no image archive: neither index.json (OCI layout) nor manifest.json (docker save) is in it"
  })
})

/** A failure of the archive's source, kept apart from those of its content. */
interface Source<E> {
  readonly _tag: "Source"
  readonly error: E
}

const containerdName = "io.containerd.image.name"
const ociRefName = "org.opencontainers.image.ref.name"
const manifestType = "application/vnd.oci.image.manifest.v1+json"

// The specification lets the reference be a bare tag, which names no image.
const nameOf = (descriptor: Documents.Descriptor): string | undefined => {
  const reference = descriptor.annotations?.[ociRefName]
  return descriptor.annotations?.[containerdName] ??
    (reference !== undefined && /[/:]/.test(reference) ? reference : undefined)
}

const fromLayout = Effect.fnUntraced(function*(
  { manifests }: Documents.Index,
  givenName: string | undefined
): Effect.fn.Return<ReadonlyArray<ArchivedImage>, InvalidImage> {
  const images = new Map<string, ArchivedImage>()
  for (const descriptor of manifests) {
    const name = nameOf(descriptor) ?? givenName
    // One name with a manifest for each platform: ours counts, or the first, which then fails with a reason.
    if (name !== undefined && (!images.has(name) || Documents.isForPlatform(descriptor.platform))) {
      images.set(name, {
        name,
        target: {
          digest: descriptor.digest,
          mediaType: descriptor.mediaType ?? manifestType,
          sizeBytes: descriptor.size
        }
      })
    }
  }
  return images.size > 0 ? [...images.values()] : yield* new InvalidImage({
    path: "index.json",
    problem: `no image in it has a name; annotate one with ${containerdName}`
  })
})

const dockerManifestType = "application/vnd.docker.distribution.manifest.v2+json"
const dockerConfigType = "application/vnd.docker.container.image.v1+json"
const dockerLayerType = "application/vnd.docker.image.rootfs.diff.tar"

/** `docker save` has no manifest with digests, so one is made. Its layers are plain tars. */
const fromDocker = Effect.fnUntraced(function*(
  content: Content["Service"],
  leaseId: string,
  entries: Entries,
  images: Documents.DockerManifest,
  givenName: string | undefined
): Effect.fn.Return<ReadonlyArray<ArchivedImage>, InvalidImage | ContainerdError> {
  const find = Effect.fnUntraced(function*(written: string) {
    const path = yield* safePath(written)
    const blob = entries.blobs.get(entries.links.get(path) ?? path)
    return blob ?? (yield* new InvalidImage({ path, problem: "manifest.json names it, but it is missing" }))
  })
  const archived: Array<ArchivedImage> = []
  for (const image of images) {
    const config = yield* find(image.Config)
    const layers = yield* Effect.forEach(image.Layers, find)
    const manifest = Buffer.from(JSON.stringify({
      schemaVersion: 2,
      mediaType: dockerManifestType,
      config: { mediaType: dockerConfigType, digest: config.digest, size: config.sizeBytes },
      layers: layers.map(({ digest, sizeBytes }) => ({ mediaType: dockerLayerType, digest, size: sizeBytes }))
    }))
    const digest = `sha256:${createHash("sha256").update(manifest).digest("hex")}`
    yield* content.write({ ref: `${leaseId}-${digest}`, leaseId, expected: digest, body: Stream.make(manifest) })
    const tags = image.RepoTags ?? []
    for (const name of tags.length === 0 && givenName !== undefined ? [givenName] : tags) {
      archived.push({ name, target: { digest, mediaType: dockerManifestType, sizeBytes: manifest.length } })
    }
  }
  return archived.length > 0
    ? archived
    : yield* new InvalidImage({ path: "manifest.json", problem: "no image in it has a name; save it by its tag" })
})
