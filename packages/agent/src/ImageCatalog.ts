/**
 * The images of the node, ready to start sandboxes from. Watchers see every image that containerd has, whoever loaded
 * it; a create finds what it needs to know of an image in memory.
 *
 * Level-triggered: any event about images leads to one comparison of what containerd lists with what was published.
 */
import { create } from "@bufbuild/protobuf"
import { type ContainerdError, ignoreNotFound } from "@fast-sandbox/containerd/ContainerdError"
import { type Image, Images, type ResolvedImage } from "@fast-sandbox/containerd/Images"
import * as ImageUser from "@fast-sandbox/containerd/ImageUser"
import type { User } from "@fast-sandbox/containerd/OciSpec"
import { RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { type BoundaryError, FailedPrecondition, InvalidArgument } from "@fast-sandbox/core/Errors"
import * as ImageName from "@fast-sandbox/core/ImageName"
import { ImageSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import { AgentConfig } from "./AgentConfig.ts"
import { toBoundary } from "./ContainerdFailure.ts"
import * as StopSignal from "./StopSignal.ts"
import { WatchHub } from "./WatchHub.ts"

/** An image of which a sandbox can be made at once. */
export interface PreparedImage {
  readonly image: ResolvedImage
  readonly user: User
  readonly stopSignal: number
}

/** What a create gets, and whether something slow (unpacking, pulling) was in its way. */
export interface Prepared {
  readonly prepared: PreparedImage
  readonly tier: "prepared" | "cold"
}

/** Documents of this many images are read at the same time. */
const readConcurrency = 4

/** containerd may be restarting while we look; events say when to look again. */
const refreshPolicy = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 5 }))

/**
 * - `prepare` gives what is known of an image; unpacks it when it is not unpacked yet; pulls it only if the agent is
 *   configured so. FAILED_PRECONDITION `ImageNotPresent` otherwise.
 * - `distrust` forgets what was prepared of an image, because it turned out to be wrong; the next create looks again.
 * - `changed` says that containerd's images may have changed.
 * - `refresh` compares and publishes now.
 */
export class ImageCatalog extends Context.Service<ImageCatalog, {
  readonly prepare: (name: string) => Effect.Effect<Prepared, BoundaryError>
  readonly distrust: (image: PreparedImage) => Effect.Effect<void>
  readonly changed: Effect.Effect<void>
  readonly refresh: Effect.Effect<void, ContainerdError>
}>()("@fast-sandbox/agent/ImageCatalog") {
  static readonly layer: Layer.Layer<
    ImageCatalog,
    never,
    AgentConfig | FileSystem.FileSystem | Images | RuntimeProfile | Snapshots | WatchHub
  > = Layer.effect(ImageCatalog, Effect.suspend(() => make))
}

const notPresent = (name: string) =>
  new FailedPrecondition({
    reason: "ImageNotPresent",
    problem: `image ${name} is not on this node; put it there first: fsb-ctl image pull ${name}`
  })

const make = Effect.gen(function*() {
  const { pullOnCreate } = yield* AgentConfig
  const { snapshotter } = yield* RuntimeProfile
  const files = yield* FileSystem.FileSystem
  const hub = yield* WatchHub
  const images = yield* Images
  const snapshots = yield* Snapshots

  // Digests by name, as published; and what was prepared, by name and digest.
  const published = new Map<string, string>()
  const ready = new Map<string, PreparedImage>()

  // Reads the image's own passwd file through a view that is dropped again: nothing has to be mounted for it.
  const userOf = Effect.fnUntraced(function*({ chainId, config }: ResolvedImage) {
    if (config.user === "") {
      return { uid: 0, gid: 0 }
    }
    const key = yield* Effect.sync(() => `user-${randomUUID()}`)
    return yield* Effect.acquireUseRelease(
      snapshots.view(key, chainId, { snapshotter }),
      (mounts) =>
        ImageUser.resolveUser(ImageUser.layerDirectories(mounts), config.user).pipe(
          Effect.provideService(FileSystem.FileSystem, files)
        ),
      () => snapshots.remove(key, { snapshotter }).pipe(ignoreNotFound, Effect.ignore({ log: "Warn" }))
    )
  })

  const remember = Effect.fnUntraced(function*(image: ResolvedImage) {
    const user = yield* userOf(image).pipe(
      Effect.catchTag(
        "UnknownUser",
        (error) => Effect.fail(new FailedPrecondition({ reason: "UnknownUser", problem: error.message }))
      )
    )
    const prepared = { image, user, stopSignal: StopSignal.parse(image.config.stopSignal) }
    ready.set(image.name, prepared)
    return prepared
  })

  const pull = (name: string) =>
    images.pull(name).pipe(
      Stream.runLast,
      Effect.andThen(images.resolve(name)),
      Effect.mapError((error): BoundaryError =>
        error._tag === "ImagePullFailed"
          ? new FailedPrecondition({ reason: "ImagePullFailed", problem: error.message })
          : toBoundary(error)
      )
    )

  const prepareCold = Effect.fnUntraced(function*(name: string): Effect.fn.Return<Prepared, BoundaryError> {
    const found = yield* images.resolve(name).pipe(
      Effect.map((image) => ({ image, wasPulled: false })),
      Effect.catchTag("ImageNotFound", () =>
        pullOnCreate
          ? Effect.map(pull(name), (image) => ({ image, wasPulled: true }))
          : Effect.fail(notPresent(name))),
      Effect.mapError(toBoundary)
    )
    const isUnpacked = yield* images.isUnpacked(found.image, { snapshotter }).pipe(Effect.mapError(toBoundary))
    const image = isUnpacked
      ? found.image
      : yield* images.unpack(name, { snapshotter }).pipe(Effect.mapError(toBoundary))
    const prepared = yield* remember(image).pipe(Effect.mapError(toBoundary))
    return { prepared, tier: isUnpacked && !found.wasPulled ? "prepared" : "cold" }
  })

  const prepare = Effect.fnUntraced(function*(
    wanted: string
  ): Effect.fn.Return<Prepared, BoundaryError> {
    const name = yield* ImageName.normalize(wanted).pipe(
      Effect.mapError(({ problem }) => new InvalidArgument({ field: "spec.image", problem }))
    )
    const known = ready.get(name)
    return known === undefined ? yield* prepareCold(name) : { prepared: known, tier: "prepared" }
  })

  const prepareAhead = Effect.fnUntraced(function*(image: ResolvedImage) {
    if (yield* images.isUnpacked(image, { snapshotter })) {
      yield* remember(image)
    }
  })

  const publish = Effect.fnUntraced(function*({ digest, name }: Image) {
    // An image of another platform, or one that is half there, is listed but can't be run.
    const resolved = yield* Effect.option(images.resolve(name))
    published.set(name, digest)
    ready.delete(name)
    hub.publishUnsafe({
      case: "imageAdded",
      value: create(ImageSchema, {
        name,
        digest,
        sizeBytes: BigInt(resolved._tag === "Some" ? resolved.value.sizeBytes : 0)
      })
    })
    if (resolved._tag === "Some") {
      yield* prepareAhead(resolved.value).pipe(
        Effect.catch((error) => Effect.logInfo("an image can't be prepared", { image: name, error: error.message }))
      )
    }
  })

  const refresh = Effect.fn("ImageCatalog.refresh")(function*() {
    const listed = yield* images.list
    const names = new Set(listed.map(({ name }) => name))
    for (const name of published.keys()) {
      if (!names.has(name)) {
        published.delete(name)
        ready.delete(name)
        hub.publishUnsafe({ case: "imageRemoved", value: { name } })
      }
    }
    yield* Effect.forEach(
      listed.filter(({ digest, name }) => published.get(name) !== digest),
      publish,
      { concurrency: readConcurrency, discard: true }
    )
  })

  // One place is enough: whatever happened since the last look is seen by the next one.
  const wakes = yield* Queue.sliding<void>(1)
  yield* Queue.take(wakes).pipe(
    Effect.andThen(refresh()),
    Effect.retry(refreshPolicy),
    Effect.catch((error) => Effect.logWarning("images could not be listed", error.message)),
    Effect.forever,
    Effect.forkScoped
  )

  return ImageCatalog.of({
    prepare,
    distrust: ({ image }) => Effect.sync(() => ready.delete(image.name)),
    changed: Effect.asVoid(Queue.offer(wakes, undefined)),
    refresh: refresh()
  })
})
