/**
 * Files into and out of running sandboxes, as tar archives. The work is done by `fsb-inside` in the sandbox's own mount
 * namespace, so that it needs nothing of the image and no link leads out of the sandbox.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, FailedPrecondition, Internal, InvalidArgument, NotFound } from "@fast-sandbox/core/Errors"
import { limits } from "@fast-sandbox/core/Sandbox"
import type {
  CopyFromRequest,
  CopyToHeader,
  CopyToRequest,
  DirectCopyRequest,
  DirectCopyResponseSchema
} from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { CopySockets } from "./CopySockets.ts"
import { codes, type Ended, Inside, type Process } from "./Inside.ts"
import { awaitEnd, sandboxEnded, type Target, Targets, whileRunning } from "./Target.ts"

/** What was copied; `bytes` are of the files' content. */
export interface Copied {
  readonly entries: bigint
  readonly bytes: bigint
}

/** What a caller of a direct copy hears. */
export type DirectAnswer = MessageInitShape<typeof DirectCopyResponseSchema>

/**
 * - `put` unpacks the archive that comes with the further requests where the header says.
 * - `get` gives a file or a folder as an archive.
 * - `direct` does either with a socket through which the archive goes by itself.
 */
export class Copies extends Context.Service<Copies, {
  readonly put: (
    header: CopyToHeader,
    requests: Stream.Stream<CopyToRequest, BoundaryError>
  ) => Effect.Effect<Copied, BoundaryError>
  readonly get: (request: CopyFromRequest) => Stream.Stream<Uint8Array, BoundaryError>
  readonly direct: (request: DirectCopyRequest) => Stream.Stream<DirectAnswer, BoundaryError>
}>()("@fast-sandbox/agent/sessions/Copies") {
  static readonly layer: Layer.Layer<Copies, never, CopySockets | Inside | Targets> = Layer.effect(
    Copies,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function*() {
  const inside = yield* Inside
  const sockets = yield* CopySockets
  const targets = yield* Targets

  const preparePut = Effect.fnUntraced(function*(header: CopyToHeader): Effect.fn.Return<Job, BoundaryError> {
    const path = yield* checked(header.path)
    const target = yield* targets.enterable(header.sandbox)
    const { user } = yield* targets.processOf(target)
    const flags = `${header.intoFolder ? "d" : ""}${header.keepOwner ? "o" : ""}`
    const owner = [String(user.uid), String(user.gid)]
    return { path, target, args: ["put", String(target.pid), target.containerId, path, ...owner, flags] }
  })

  const prepareGet = Effect.fnUntraced(function*(request: CopyFromRequest): Effect.fn.Return<Job, BoundaryError> {
    const path = yield* checked(request.path)
    const target = yield* targets.enterable(request.sandbox)
    const flags = request.followLink ? "l" : ""
    return { path, target, args: ["get", String(target.pid), target.containerId, path, flags] }
  })

  /** Waits until everything is in its place; `feed` gives the archive, or never ends where somebody else does. */
  const unpacked = <E>({ path, target }: Job, work: Process, feed: Effect.Effect<void, E>) =>
    Effect.gen(function*() {
      const told = yield* work.output.pipe(Stream.decodeText(), Stream.mkString, Effect.forkScoped)
      const ended = yield* feed.pipe(
        Effect.andThen(work.ended),
        Effect.raceFirst(work.ended),
        Effect.raceFirst(awaitEnd(target))
      )
      yield* successOf(ended, path, target)
      const [entries = "0", bytes = "0"] = (yield* Fiber.join(told)).split(/\s+/)
      return { entries: BigInt(entries), bytes: BigInt(bytes) }
    })

  const packed = ({ path, target }: Job, work: Process) =>
    Effect.flatMap(work.ended, (ended) => successOf(ended, path, target))

  const put = Effect.fn("Copies.put")(
    function*(header: CopyToHeader, requests: Stream.Stream<CopyToRequest, BoundaryError>) {
      const job = yield* preparePut(header)
      const work = yield* inside.start(job.args)
      const feed = Stream.runForEach(requests, ({ part }) =>
        part.case === "data"
          ? work.write(part.value)
          : Effect.fail(
            new InvalidArgument({ field: "data", problem: "every message but the first must carry it" })
          ))
      return yield* unpacked(job, work, Effect.andThen(feed, work.end))
    },
    Effect.scoped
  )

  const get = Effect.fn("Copies.get")(function*(request: CopyFromRequest) {
    const job = yield* prepareGet(request)
    const work = yield* inside.start(job.args)
    return Stream.concat(work.output, Stream.fromEffectDrain(packed(job, work))).pipe(whileRunning(job.target))
  })

  const direct = Effect.fn("Copies.direct")(function*({ part }: DirectCopyRequest) {
    if (part.case === undefined) {
      return yield* new InvalidArgument({ field: "part", problem: "is missing; say what to copy" })
    }
    const job = yield* part.case === "to" ? preparePut(part.value) : prepareGet(part.value)
    const { connection, path } = yield* sockets.open
    const copy = Effect.gen(function*() {
      const socket = yield* Effect.raceFirst(connection, awaitEnd(job.target))
      if (part.case === "to") {
        const work = yield* inside.start(job.args, { stdin: socket })
        return yield* unpacked(job, work, Effect.never)
      }
      const work = yield* inside.start(job.args, { stdout: socket })
      yield* Effect.raceFirst(packed(job, work), awaitEnd(job.target))
      return {}
    })
    return Stream.concat(
      Stream.make<[DirectAnswer]>({ part: { case: "socket", value: { path } } }),
      Stream.map(Stream.fromEffect(Effect.scoped(copy)), (value): DirectAnswer => ({ part: { case: "done", value } }))
    )
  })

  return Copies.of({
    put,
    get: (request) => Stream.unwrap(get(request)),
    direct: (request) => Stream.unwrap(direct(request))
  })
})

/** A copy that is about to be made: of what, and how `fsb-inside` is told. */
interface Job {
  readonly path: string
  readonly target: Target
  readonly args: ReadonlyArray<string>
}

const checked = (path: string): Effect.Effect<string, InvalidArgument> =>
  path.startsWith("/") && path.length <= limits.pathLength && !path.includes("\0")
    ? Effect.succeed(path)
    : Effect.fail(
      new InvalidArgument({
        field: "path",
        problem: `must be absolute and have at most ${limits.pathLength} characters`
      })
    )

const successOf = (
  { code, said }: Ended,
  path: string,
  target: Target
): Effect.Effect<void, BoundaryError> => {
  const problem = said === "" ? `the copy ended with code ${code}` : said
  switch (code) {
    case 0:
      return Effect.void
    case codes.noSuchPath:
      return Effect.fail(new NotFound({ kind: "path", name: path }))
    case codes.noFolder:
      return Effect.fail(new FailedPrecondition({ reason: "NotAFolder", problem: `${path} is no folder` }))
    case codes.gone:
      return Effect.fail(sandboxEnded(target))
    case codes.badArchive:
      return Effect.fail(new InvalidArgument({ field: "data", problem }))
    case codes.failed:
      return Effect.fail(new FailedPrecondition({ reason: "CopyFailed", problem }))
    default:
      return Effect.fail(new Internal({ problem }))
  }
}
