/**
 * Images: found by their normalised name, loaded from an archive, pulled by containerd itself, unpacked into snapshots,
 * and resolved to what a sandbox needs of them.
 */
import type { InvalidImageName } from "@fast-sandbox/core/ImageName"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { ContainerdError } from "./ContainerdError.ts"
import type { ImageRunConfig } from "./OciSpec.ts"

/** An image's name, as containerd keeps it (`docker.io/library/alpine:latest`), and the digest that it points to. */
export interface Image {
  readonly name: string
  readonly digest: string
  readonly mediaType: string
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMillis: number
}

/** What a sandbox needs to know of an image, for this machine's platform. */
export interface ResolvedImage {
  readonly name: string
  /** Digest of the manifest that was chosen for the platform. */
  readonly manifestDigest: string
  readonly configDigest: string
  readonly config: ImageRunConfig
  /** The snapshot that holds all its layers, once unpacked. Parent of a sandbox's snapshot. */
  readonly chainId: string
  /** Compressed layers and configuration together. */
  readonly sizeBytes: number
}

/** The image is not on this machine, or not for its platform. Pull or load it first. */
export class ImageNotFound extends Schema.TaggedError<ImageNotFound>()("ImageNotFound", {
  image: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `image ${this.image}: ${this.problem}`
  }
}

/** The archive or the image in it can't be used; nothing of it was kept. `path` is the entry at fault, if one is. */
export class InvalidImage extends Schema.TaggedError<InvalidImage>()("InvalidImage", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return this.path === "" ? this.problem : `${this.path}: ${this.problem}`
  }
}

/** The registry did not give the image. `problem` is containerd's text, which names the registry and its answer. */
export class ImagePullFailed extends Schema.TaggedError<ImagePullFailed>()("ImagePullFailed", {
  image: Schema.String,
  problem: Schema.String,
  /** Whether it may succeed later (a registry that can't be reached), or not (no such image, no permission). */
  retryable: Schema.Boolean
}) {
  override get message(): string {
    return `image ${this.image}: ${this.problem}`
  }
}

/** How far a pull is: bytes of the blobs that are being fetched at this moment. `total` 0 is not known yet. */
export interface PullProgress {
  readonly _tag: "Progress"
  readonly blobs: ReadonlyArray<{ readonly ref: string; readonly offsetBytes: number; readonly totalBytes: number }>
}

/** The end of a pull: the image is here and unpacked. */
export interface Pulled {
  readonly _tag: "Pulled"
  readonly image: ResolvedImage
}

/** Credentials for one pull. */
export interface RegistryCredentials {
  readonly username: string
  readonly password: string
}

/** What may go wrong when an image is asked for by name. */
export type ImageError = InvalidImageName | ImageNotFound | InvalidImage | ContainerdError

/**
 * The images of one containerd namespace. Names are normalised: `alpine`, `docker.io/library/alpine` and `alpine:latest`
 * are one.
 *
 * - `load` reads an OCI layout or `docker save` archive, a file's path or bytes; unpacks every image in it.
 * - `pull` makes containerd's CRI plugin pull (with the node's mirrors and credentials) and unpack; the stream's last
 *   element is {@link Pulled}. CRI works in the namespace `k8s.io` whatever the client's is.
 * - `unpack` makes the layers' snapshots, once however many ask at the same time. Safe to repeat.
 * - `resolve` is cached by digest, so that a repeated resolve costs one call.
 * - `remove` drops the name; containerd collects what nothing uses any more.
 */
export class Images extends Context.Service<Images, {
  readonly list: Effect.Effect<ReadonlyArray<Image>, ContainerdError>
  readonly get: (name: string) => Effect.Effect<Image, InvalidImageName | ImageNotFound | ContainerdError>
  readonly resolve: (name: string) => Effect.Effect<ResolvedImage, ImageError>
  readonly load: <E = never, R = never>(
    archive: string | Stream.Stream<Uint8Array, E, R>
  ) => Effect.Effect<ReadonlyArray<ResolvedImage>, E | ImageError, R>
  readonly pull: (
    name: string,
    options?: { readonly credentials?: RegistryCredentials | undefined }
  ) => Stream.Stream<PullProgress | Pulled, ImageError | ImagePullFailed>
  readonly unpack: (
    name: string,
    options?: { readonly snapshotter?: string | undefined }
  ) => Effect.Effect<ResolvedImage, ImageError>
  readonly isUnpacked: (
    image: ResolvedImage,
    options?: { readonly snapshotter?: string | undefined }
  ) => Effect.Effect<boolean, ContainerdError>
  readonly label: (
    name: string,
    labels: Readonly<Record<string, string>>
  ) => Effect.Effect<void, InvalidImageName | ImageNotFound | ContainerdError>
  readonly remove: (name: string) => Effect.Effect<void, InvalidImageName | ContainerdError>
}>()("@fast-sandbox/containerd/Images") {}
