/**
 * The agent's gRPC service: `agent.v1.AgentService`. Requests are checked here, at the edge; behind it everything is
 * taken as right.
 */
import type { Timestamp } from "@bufbuild/protobuf/wkt"
import { Images } from "@fast-sandbox/containerd/Images"
import * as RuntimeProfile from "@fast-sandbox/containerd/RuntimeProfile"
import { UserNamespaces } from "@fast-sandbox/containerd/UserNamespaces"
import { type BoundaryError, FailedPrecondition, Internal, InvalidArgument, NotFound } from "@fast-sandbox/core/Errors"
import {
  AgentService,
  type CreateRequest,
  type LoadImageRequest,
  type LogsRequest,
  LogStream
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"

import { maxWarmImages } from "@fast-sandbox/core/SandboxPool"
import { version } from "@fast-sandbox/core/Version"
import { AgentConfig } from "./AgentConfig.ts"
import { toBoundary } from "./ContainerdFailure.ts"
import * as CreateValidation from "./CreateValidation.ts"
import { LogDirectory } from "./LogDirectory.ts"
import * as LogFile from "./logs/LogFile.ts"
import type { LogRecord, LogStreamName } from "./logs/LogRecord.ts"
import { SandboxNetwork } from "./network/SandboxNetwork.ts"
import { BlankSlots } from "./parked/BlankSlots.ts"
import { ParkedSlots } from "./parked/ParkedSlots.ts"
import { SandboxRuntime } from "./SandboxRuntime.ts"
import { Slots } from "./Slots.ts"
import { type Identity, WatchHub } from "./WatchHub.ts"

/** How often the sender of an image hears how much has arrived. */
const progressInterval = "200 millis"

/**
 * From how much on it does. Less is loaded before anybody could read about it; and of a file that is no archive nothing
 * is heard but that.
 */
const progressFromBytes = 1024 * 1024

/** What an archive is called until its images are known, when its sender gave it no name. */
const namelessArchive = "archive"

const invalid = (field: string, problem: string): InvalidArgument => new InvalidArgument({ field, problem })

const checked = (request: CreateRequest): Effect.Effect<CreateRequest, InvalidArgument> => {
  const problem = CreateValidation.problemOf(request)
  return problem === undefined ? Effect.succeed(request) : Effect.fail(problem)
}

const nanosPerSecond = 1_000_000_000n

const toNanos = (timestamp: Timestamp | undefined): bigint | undefined =>
  timestamp === undefined ? undefined : timestamp.seconds * nanosPerSecond + BigInt(timestamp.nanos)

const fromNanos = (nanos: bigint) => ({
  seconds: nanos / nanosPerSecond,
  nanos: Number(nanos % nanosPerSecond)
})

const streamNames: ReadonlyMap<LogStream, LogStreamName> = new Map([
  [LogStream.STDOUT, "stdout"],
  [LogStream.STDERR, "stderr"]
])

const toLine = ({ partial, stream, text, timeNanos }: LogRecord) => ({
  time: fromNanos(timeNanos),
  stream: stream === "stdout" ? LogStream.STDOUT : LogStream.STDERR,
  text,
  partial
})

const logs = (request: LogsRequest): Stream.Stream<
  { readonly lines: Array<ReturnType<typeof toLine>> },
  BoundaryError,
  LogDirectory | SandboxRuntime
> =>
  Stream.unwrap(Effect.gen(function*() {
    const directory = yield* LogDirectory
    const { containerId, ended } = yield* SandboxRuntime.use((runtime) => runtime.output(request.instanceId))
    const path = directory.pathOf(containerId)
    if (directory.format === "plain") {
      return yield* new FailedPrecondition({
        reason: "NoLogger",
        problem: `the node has no logger; the output is in plain files in ${path} on the node`
      })
    }
    return LogFile.read({
      directory: path,
      ended,
      follow: request.follow,
      tailLines: request.tailLines === undefined ? undefined : Number(request.tailLines),
      sinceNanos: toNanos(request.since),
      untilNanos: toNanos(request.until),
      stream: request.stream === undefined ? undefined : streamNames.get(request.stream)
    }).pipe(
      Stream.mapError((error): BoundaryError => new Internal({ problem: error.message })),
      Stream.map((records) => ({ lines: records.map(toLine) }))
    )
  }))

const pullImage = (image: string) =>
  Stream.unwrap(Effect.map(Images, (images) =>
    images.pull(image).pipe(
      Stream.map((progress) =>
        progress._tag === "Pulled"
          ? { image: progress.image.name, status: "done", digest: progress.image.manifestDigest }
          : {
            image,
            status: "transferring",
            currentBytes: BigInt(progress.blobs.reduce((sum, blob) => sum + blob.offsetBytes, 0)),
            totalBytes: BigInt(progress.blobs.reduce((sum, blob) => sum + blob.totalBytes, 0))
          }
      ),
      Stream.mapError(toBoundary)
    )))

/** Whoever brings an image is about to use it. */
const expected = <A extends { readonly image: string; readonly status: string }, E, R>(
  progress: Stream.Stream<A, E, R>
): Stream.Stream<A, E, R | ParkedSlots> =>
  Stream.tap(
    progress,
    ({ image, status }) => status === "done" ? ParkedSlots.use((parked) => parked.expect(image)) : Effect.void
  )

/** The bytes of the archive behind the header. */
const archiveOf = (
  requests: Stream.Stream<LoadImageRequest, BoundaryError>,
  onHeader: (name: string) => void
): Stream.Stream<Uint8Array, BoundaryError> =>
  requests.pipe(
    Stream.mapEffect(({ part }): Effect.Effect<Uint8Array, BoundaryError> => {
      switch (part.case) {
        case "header":
          return Effect.sync(() => {
            onHeader(part.value.name)
            return new Uint8Array()
          })
        case "data":
          return Effect.succeed(part.value)
        default:
          return Effect.fail(invalid("part", "must be the header or data"))
      }
    }),
    Stream.filter((bytes) => bytes.length > 0)
  )

const loadImage = (requests: Stream.Stream<LoadImageRequest, BoundaryError>) =>
  Stream.unwrap(Effect.map(Images, (images) => {
    let name: string | undefined
    let receivedBytes = 0
    const archive = archiveOf(requests, (given) => {
      name = given || undefined
    }).pipe(Stream.tap((bytes) =>
      Effect.sync(() => {
        receivedBytes += bytes.length
      })
    ))
    const progress = Stream.tick(progressInterval).pipe(
      Stream.filter(() => receivedBytes >= progressFromBytes),
      Stream.map(() => ({
        image: name ?? namelessArchive,
        status: "transferring",
        currentBytes: BigInt(receivedBytes)
      }))
    )
    const loaded = Stream.fromIterableEffect(images.load(archive, { givenName: () => name })).pipe(
      Stream.map((image) => ({
        image: image.name,
        status: "done",
        currentBytes: BigInt(receivedBytes),
        totalBytes: BigInt(receivedBytes),
        digest: image.manifestDigest
      })),
      Stream.mapError(toBoundary)
    )
    return Stream.merge(loaded, progress, { haltStrategy: "left" })
  }))

/** Who this agent is, for its watchers. */
const identity: Effect.Effect<
  Identity,
  never,
  AgentConfig | BlankSlots | LogDirectory | RuntimeProfile.RuntimeProfile | SandboxNetwork | UserNamespaces
> = Effect.gen(
  function*() {
    const settings = yield* AgentConfig
    const { format } = yield* LogDirectory
    const { optimisations, runtime } = yield* RuntimeProfile.RuntimeProfile
    const { range, reason } = yield* UserNamespaces
    const { notes } = yield* SandboxNetwork
    return {
      agentUid: settings.podUid,
      agentName: settings.podName,
      nodeName: settings.nodeName,
      version: version,
      address: settings.podIp,
      runtimeProblem: runtime.problem ?? "",
      runtimeNotes: [
        runtime.problem ?? `${runtime.name} ${runtime.version} at ${runtime.path}`,
        ...optimisations.map(({ isOn, name, reason }) => `${name} ${isOn ? "on" : "off"}: ${reason}`),
        `userNamespace ${range === undefined ? "off" : "on"}: ${reason}`,
        yield* (yield* BlankSlots).note,
        `logger ${format === "records" ? "on" : "off: output goes to plain files"}`,
        ...notes
      ]
    }
  }
)

/** The service with its handlers. */
export const service = GrpcService.make(AgentService, {
  create: Effect.fnUntraced(function*(request) {
    yield* checked(request)
    return { instance: yield* SandboxRuntime.use((runtime) => runtime.create(request)) }
  }),
  bind: ({ instanceId, resourceUid }) =>
    Effect.as(SandboxRuntime.use((runtime) => runtime.bind(instanceId, resourceUid)), {}),
  stop: ({ gracePeriodSeconds, instanceId }) =>
    SandboxRuntime.use((runtime) => runtime.stop(instanceId, gracePeriodSeconds)).pipe(
      Effect.map((instance) => ({ instance }))
    ),
  delete: ({ gracePeriodSeconds, instanceId }) =>
    SandboxRuntime.use((runtime) => runtime.delete(instanceId, gracePeriodSeconds)).pipe(
      Effect.andThen(Slots.use(({ capacity }) => capacity)),
      Effect.map((capacity) => ({ capacity }))
    ),
  list: () =>
    SandboxRuntime.use((runtime) => runtime.list).pipe(Effect.map((instances) => ({ instances: [...instances] }))),
  logs,
  watch: () =>
    Stream.unwrap(Effect.gen(function*() {
      const hub = yield* WatchHub
      return hub.watch(yield* identity)
    })).pipe(Stream.map((event) => ({ event }))),
  pullImage: ({ image }) => expected(pullImage(image)),
  loadImage: (requests) => expected(loadImage(requests)),
  removeImage: ({ image }) =>
    Images.use((images) => Effect.andThen(images.get(image), images.remove(image))).pipe(
      Effect.catchTag("ImageNotFound", ({ image }) => Effect.fail(new NotFound({ kind: "image", name: image }))),
      Effect.mapError(toBoundary),
      Effect.as({})
    ),
  warm: ({ warm }) => {
    const images = warm?.images ?? []
    return images.length > maxWarmImages
      ? Effect.fail(invalid("warm.images", `must not have more than ${maxWarmImages} items`))
      : Effect.as(
        ParkedSlots.use((parked) => parked.keepWarm(images.map(({ image, parked }) => ({ image, parked })))),
        {}
      )
  }
})
