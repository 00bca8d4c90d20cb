/**
 * Images: found by their normalised name, loaded from an archive, pulled by containerd itself, unpacked into snapshots,
 * and resolved to what a sandbox needs of them.
 */
import * as ImageName from "@fast-sandbox/core/ImageName"
import type { Image as RawImage } from "@fast-sandbox/grpc/gen/containerd/images_pb"
import * as Cache from "effect/Cache"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as RcMap from "effect/RcMap"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import { ContainerdClient, named } from "./ContainerdClient.ts"
import { type ContainerdError, ignoreNotFound, isAlreadyExists, isNotFound } from "./ContainerdError.ts"
import { Content } from "./Content.ts"
import { ImageNotFound, ImagePullFailed, InvalidImage } from "./ImageErrors.ts"
import * as ImageArchive from "./internal/imageArchive.ts"
import * as ImageTree from "./internal/imageTree.ts"
import { toMillis } from "./internal/time.ts"
import { type Lease, Leases } from "./Leases.ts"
import type { ImageRunConfig } from "./OciSpec.ts"
import { defaultSnapshotter, Snapshots, toRawMount } from "./Snapshots.ts"

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
export type ImageError = ImageName.InvalidImageName | ImageNotFound | InvalidImage | ContainerdError

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
  readonly get: (name: string) => Effect.Effect<Image, ImageName.InvalidImageName | ImageNotFound | ContainerdError>
  readonly resolve: (name: string) => Effect.Effect<ResolvedImage, ImageError>
  readonly load: <E = never, R = never>(
    archive: string | Stream.Stream<Uint8Array, E, R>,
    options?: {
      /** Names an image that the archive does not name; asked when the archive was read. */
      readonly givenName?: (() => string | undefined) | undefined
    }
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
  ) => Effect.Effect<void, ImageName.InvalidImageName | ImageNotFound | ContainerdError>
  readonly remove: (name: string) => Effect.Effect<void, ImageName.InvalidImageName | ContainerdError>
}>()("@fast-sandbox/containerd/Images") {
  static readonly layer: Layer.Layer<
    Images,
    never,
    ContainerdClient | Content | Leases | Snapshots | FileSystem.FileSystem
  > = Layer.effect(Images, Effect.suspend(() => make))
}

/** Collections of unowned layers that one unpack lives through: each begins it anew, and its own layers are leased. */
const unpackRetries = 3

/** A load or unpack that takes longer than this was left behind by a crash, and what it stored may go. */
const leaseExpiry = "1 hour"

/** How many images' documents are remembered; each is a few KiB. */
const resolvedCapacity = 512

/** How often a pull looks for progress. */
const progressInterval = "200 millis"

/** The namespace in which containerd's CRI plugin works, whatever its caller says. */
const criNamespace = "k8s.io"

const gcContent = "containerd.io/gc.ref.content"
const gcSnapshot = "containerd.io/gc.ref.snapshot"

const make = Effect.gen(function*() {
  const client = yield* ContainerdClient
  const { options: rawOptions, raw } = client
  const content = yield* Content
  const leases = yield* Leases
  const snapshots = yield* Snapshots
  const fileSystem = yield* FileSystem.FileSystem

  const find = (name: string): Effect.Effect<Image, ImageNotFound | ContainerdError> =>
    raw.images.get({ name }, rawOptions.call).pipe(
      named("Images.get"),
      Effect.map(({ image }) => fromRaw(image)),
      Effect.catchIf(
        isNotFound,
        () =>
          Effect.fail(new ImageNotFound({ image: name, problem: "it is not on this machine; pull or load it first" }))
      )
    )

  const get = Effect.fn("Images.get")((name: string) => Effect.flatMap(ImageName.normalize(name), find))

  // Keyed by digest and media type, because what a digest stands for never changes.
  const trees = yield* Cache.makeWith(
    (key: string) => {
      const [digest = "", mediaType = ""] = key.split(" ")
      return ImageTree.read(content, digest, { digest, mediaType })
    },
    { capacity: resolvedCapacity, timeToLive: (exit) => Exit.isSuccess(exit) ? "1 day" : "0 millis" }
  )

  const treeOf = (image: Image) =>
    Cache.get(trees, `${image.digest} ${image.mediaType}`).pipe(
      Effect.mapError((error) =>
        error._tag === "ImageNotFound" ? new ImageNotFound({ image: image.name, problem: error.problem }) : error
      )
    )

  const resolve = Effect.fn("Images.resolve")(function*(name: string) {
    const image = yield* get(name)
    return toResolved(image.name, yield* treeOf(image))
  })

  // On failure what was stored is collected at once; after a crash the lease expires.
  const leased = <A, E, R>(use: (lease: Lease) => Effect.Effect<A, E, R>): Effect.Effect<A, E | ContainerdError, R> =>
    Effect.acquireUseRelease(
      Effect.suspend(() => leases.create(`fast-sandbox-${randomUUID()}`, { expiresAfter: leaseExpiry })),
      use,
      (lease, exit) =>
        (Exit.isSuccess(exit) ? leases.delete(lease.id) : leases.deleteAndCollect(lease.id)).pipe(
          ignoreNotFound,
          Effect.ignore({ log: "Warn" })
        )
    )

  const unpacking = yield* RcMap.make({ lookup: (_key: string) => Semaphore.make(1) })

  const hasSnapshot = (key: string, snapshotter: string) =>
    snapshots.stat(key, { snapshotter }).pipe(
      Effect.as(true),
      Effect.catchIf(isNotFound, () => Effect.succeed(false))
    )

  const unpackLayer = Effect.fnUntraced(function*(layer: {
    readonly descriptor: ImageTree.ImageTree["manifest"]["layers"][number]
    readonly diffId: string
    readonly chainId: string
    readonly parent: string
    readonly snapshotter: string
    readonly leaseId: string
  }) {
    const { chainId, descriptor, leaseId, snapshotter } = layer
    const key = `unpack-${yield* Effect.sync(() => randomUUID())}`
    yield* Effect.gen(function*() {
      const mounts = yield* snapshots.prepare(key, layer.parent, { snapshotter, leaseId })
      const { applied } = yield* raw.diff.apply({
        diff: { mediaType: descriptor.mediaType ?? "", digest: descriptor.digest, size: BigInt(descriptor.size) },
        mounts: mounts.map(toRawMount)
      }, { ...rawOptions.apply, metadata: rawOptions.leased(leaseId).metadata }).pipe(
        named("Diff.apply"),
        Effect.catchIf(
          (error) => !error.isUnavailable,
          (error) => Effect.fail(new InvalidImage({ path: descriptor.digest, problem: error.details }))
        )
      )
      if (applied?.digest !== layer.diffId) {
        return yield* new InvalidImage({
          path: descriptor.digest,
          problem: `the layer unpacks to ${applied?.digest}, the configuration says ${layer.diffId}`
        })
      }
      yield* snapshots.commit(chainId, key, { snapshotter, leaseId })
    }).pipe(
      Effect.onError(() => snapshots.remove(key, { snapshotter, leaseId }).pipe(ignoreNotFound, Effect.ignore)),
      // Somebody else (another agent, the kubelet) was faster.
      Effect.catchIf(isAlreadyExists, () => Effect.void)
    )
  })

  const unpackTree = Effect.fnUntraced(function*(tree: ImageTree.ImageTree, snapshotter: string, leaseId: string) {
    const diffIds = tree.config.rootfs.diff_ids
    const chain = ImageTree.chainIds(diffIds)
    const last = chain.at(-1)
    for (const [position, descriptor] of tree.manifest.layers.entries()) {
      const chainId = chain[position] ?? ""
      if (!(yield* hasSnapshot(chainId, snapshotter))) {
        yield* unpackLayer({
          descriptor,
          diffId: diffIds[position] ?? "",
          chainId,
          parent: chain[position - 1] ?? "",
          snapshotter,
          leaseId
        })
      }
    }
    if (last !== undefined) {
      // From here on the snapshots live as long as the image's configuration.
      yield* content.label(tree.manifest.config.digest, { [`${gcSnapshot}.${snapshotter}`]: last })
    }
  })

  const unpackOnce = Effect.fnUntraced(function*(tree: ImageTree.ImageTree, snapshotter: string, leaseId: string) {
    const semaphore = yield* RcMap.get(unpacking, `${snapshotter} ${tree.manifest.config.digest}`)
    yield* semaphore.withPermits(1)(unpackTree(tree, snapshotter, leaseId)).pipe(
      // A layer that was there and belonged to nobody may be collected before the next one is put on it.
      Effect.retry({ times: unpackRetries, while: (error) => error._tag === "ContainerdError" && isNotFound(error) })
    )
  }, Effect.scoped)

  const isUnpacked = Effect.fn("Images.isUnpacked")((
    image: ResolvedImage,
    options?: { readonly snapshotter?: string | undefined }
  ) =>
    image.chainId === ""
      ? Effect.succeed(true)
      : hasSnapshot(image.chainId, options?.snapshotter ?? defaultSnapshotter)
  )

  const unpack = Effect.fn("Images.unpack")(function*(
    name: string,
    options?: { readonly snapshotter?: string | undefined }
  ) {
    const image = yield* get(name)
    const tree = yield* treeOf(image)
    const resolved = toResolved(image.name, tree)
    if (!(yield* isUnpacked(resolved, options))) {
      yield* leased(({ id }) => unpackOnce(tree, options?.snapshotter ?? defaultSnapshotter, id))
    }
    return resolved
  })

  // Every blob must be there and as large as it was said to be, before anything is made of them.
  const checkBlob = (descriptor: { readonly digest: string; readonly size: number }) =>
    content.info(descriptor.digest).pipe(
      Effect.catchIf(isNotFound, () =>
        Effect.fail(
          new InvalidImage({ path: descriptor.digest, problem: "the image refers to it, but it is missing" })
        )),
      Effect.flatMap(({ sizeBytes }) =>
        sizeBytes === descriptor.size ? Effect.void : Effect.fail(
          new InvalidImage({
            path: descriptor.digest,
            problem: `it has ${sizeBytes} bytes, the image says ${descriptor.size}`
          })
        )
      )
    )

  const isStored = (digest: string) =>
    content.info(digest).pipe(Effect.as(true), Effect.catchIf(isNotFound, () => Effect.succeed(false)))

  const admit = Effect.fnUntraced(function*(archived: ImageArchive.ArchivedImage, leaseId: string) {
    const name = yield* ImageName.normalize(archived.name)
    const { target } = archived
    yield* checkBlob({ digest: target.digest, size: target.sizeBytes })
    const tree = yield* ImageTree.read(content, name, target)
    yield* Effect.forEach([tree.manifest.config, ...tree.manifest.layers], checkBlob, { discard: true })
    for (const { children, digest } of tree.indexes) {
      // Archives hold one platform's part of an index that names many.
      const stored = yield* Effect.filter(children, (child) => isStored(child.digest))
      yield* content.label(digest, references(stored.map((child, position) => [`m.${position}`, child.digest])))
    }
    yield* content.label(
      tree.manifestDescriptor.digest,
      references([
        ["config", tree.manifest.config.digest],
        ...tree.manifest.layers.map(({ digest }, position) => [`l.${position}`, digest] as const)
      ])
    )
    yield* unpackOnce(tree, defaultSnapshotter, leaseId)
    const image = {
      name,
      labels: {},
      target: { mediaType: target.mediaType, digest: target.digest, size: BigInt(target.sizeBytes) }
    }
    yield* raw.images.create({ image }, rawOptions.call).pipe(
      named("Images.create"),
      Effect.catchIf(
        isAlreadyExists,
        () =>
          raw.images.update({ image, updateMask: { paths: ["target"] } }, rawOptions.call).pipe(named("Images.update"))
      )
    )
    return toResolved(name, tree)
  })

  const load = Effect.fn("Images.load")(function*<E, R>(
    archive: string | Stream.Stream<Uint8Array, E, R>,
    options?: { readonly givenName?: (() => string | undefined) | undefined }
  ) {
    const bytes: Stream.Stream<Uint8Array, E | InvalidImage, R> = typeof archive === "string"
      ? fileSystem.stream(archive).pipe(
        Stream.mapError((error) => new InvalidImage({ path: archive, problem: error.message }))
      )
      : archive
    return yield* leased((lease) =>
      ImageArchive.read(content, lease.id, bytes, options?.givenName ?? (() => undefined)).pipe(
        Effect.flatMap((archived) => Effect.forEach(archived, (image) => admit(image, lease.id)))
      )
    )
  })

  const pull: Images["Service"]["pull"] = (name, options) =>
    Stream.unwrap(Effect.gen(function*() {
      const image = yield* ImageName.normalize(name)
      if (client.namespace !== criNamespace) {
        return Stream.fail(
          new ImagePullFailed({
            image,
            problem: `containerd pulls into its namespace ${criNamespace} only, this client works in ` +
              `${client.namespace}; load the image from an archive`,
            retryable: false
          })
        )
      }
      const pulling = raw.cri.pullImage({
        image: { image },
        ...(options?.credentials === undefined ? {} : { auth: { ...options.credentials } })
      }, rawOptions.pull).pipe(
        Effect.mapError((error) =>
          new ImagePullFailed({ image, problem: error.details, retryable: isRetryable(error) })
        ),
        Effect.andThen(unpack(image)),
        Effect.map((image): Pulled => ({ _tag: "Pulled", image }))
      )
      const progress = Stream.tick(progressInterval).pipe(
        Stream.mapEffect(() => content.ingests),
        Stream.map((blobs): PullProgress => ({ _tag: "Progress", blobs }))
      )
      return Stream.merge(Stream.fromEffect(pulling), progress, { haltStrategy: "left" }).pipe(
        // Progress that was asked for at the same moment must not come after the end.
        Stream.takeUntil((step) => step._tag === "Pulled")
      )
    }))

  const list = raw.images.list({}, rawOptions.call).pipe(
    named("Images.list"),
    Effect.map(({ images }) => images.map(fromRaw).filter((image) => !isAlias(image)))
  )

  const remove = Effect.fn("Images.remove")(function*(name: string) {
    const normal = yield* ImageName.normalize(name)
    const { images } = yield* raw.images.list({}, rawOptions.call).pipe(named("Images.list"))
    const all = images.map(fromRaw)
    const removed = all.find((image) => image.name === normal)
    if (removed === undefined) {
      return
    }
    const same = all.filter((image) => image.digest === removed.digest && image.name !== normal)
    const names = same.every(isAlias) ? [normal, ...same.map((image) => image.name)] : [normal]
    yield* Effect.forEach(
      names,
      (name) => raw.images.delete({ name }, rawOptions.call).pipe(named("Images.delete"), ignoreNotFound),
      { discard: true }
    )
  })

  return Images.of({
    list: Effect.withSpan(list, "Images.list"),
    get,
    resolve,
    load,
    pull,
    unpack,
    isUnpacked,
    label: Effect.fn("Images.label")(function*(name, labels) {
      const image = yield* get(name)
      yield* raw.images.update({
        image: { name: image.name, labels: { ...labels } },
        updateMask: { paths: Object.keys(labels).map((key) => `labels.${key}`) }
      }, rawOptions.call).pipe(named("Images.label"))
    }),
    remove
  })
})

const references = (digests: ReadonlyArray<readonly [suffix: string, digest: string]>) =>
  Object.fromEntries(digests.map(([suffix, digest]) => [`${gcContent}.${suffix}`, digest]))

const toResolved = (name: string, { config, manifest, manifestDescriptor }: ImageTree.ImageTree): ResolvedImage => ({
  name,
  manifestDigest: manifestDescriptor.digest,
  configDigest: manifest.config.digest,
  config: ImageTree.runConfig(config),
  chainId: ImageTree.chainIds(config.rootfs.diff_ids).at(-1) ?? "",
  sizeBytes: manifest.layers.reduce((sum, layer) => sum + layer.size, manifest.config.size)
})

const fromRaw = (raw: RawImage | undefined): Image => ({
  name: raw?.name ?? "",
  digest: raw?.target?.digest ?? "",
  mediaType: raw?.target?.mediaType ?? "",
  labels: raw?.labels ?? {},
  createdAtMillis: toMillis(raw?.createdAt)
})

// containerd's CRI plugin names each image by its digests too. Those follow the name that people use.
const isAlias = ({ name }: Image): boolean => name.startsWith("sha256:") || name.includes("@sha256:")

// containerd passes a registry's answer on as text, with the code UNKNOWN for nearly everything.
const isRetryable = ({ code, details }: { readonly code: string; readonly details: string }): boolean =>
  code !== "NOT_FOUND" && code !== "INVALID_ARGUMENT" && code !== "UNIMPLEMENTED" &&
  !/not found|denied|unauthorized|40[0134]|no match for platform|invalid|unknown service/i.test(details)
