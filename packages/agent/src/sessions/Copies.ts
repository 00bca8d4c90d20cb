/**
 * Files into and out of running sandboxes, as tar archives. The work is done by `fsb-inside` in the sandbox's own mount
 * namespace, so that it needs nothing of the image and no link leads out of the sandbox.
 */
import { type BoundaryError, FailedPrecondition, Internal, InvalidArgument, NotFound } from "@fast-sandbox/core/Errors"
import { limits } from "@fast-sandbox/core/Sandbox"
import type { CopyFromRequest, CopyToHeader, CopyToRequest } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { codes, type Ended, Inside } from "./Inside.ts"
import { awaitEnd, sandboxEnded, type Target, Targets, whileRunning } from "./Target.ts"

/** What was copied; `bytes` are of the files' content. */
export interface Copied {
  readonly entries: bigint
  readonly bytes: bigint
}

/**
 * - `put` unpacks the archive that comes with the further requests where the header says.
 * - `get` gives a file or a folder as an archive.
 */
export class Copies extends Context.Service<Copies, {
  readonly put: (
    header: CopyToHeader,
    requests: Stream.Stream<CopyToRequest, BoundaryError>
  ) => Effect.Effect<Copied, BoundaryError>
  readonly get: (request: CopyFromRequest) => Stream.Stream<Uint8Array, BoundaryError>
}>()("@fast-sandbox/agent/sessions/Copies") {
  static readonly layer: Layer.Layer<Copies, never, Inside | Targets> = Layer.effect(
    Copies,
    Effect.gen(function*() {
      const inside = yield* Inside
      const targets = yield* Targets

      const put = Effect.fn("Copies.put")(
        function*(header: CopyToHeader, requests: Stream.Stream<CopyToRequest, BoundaryError>) {
          const path = yield* checked(header.path)
          const target = yield* targets.enterable(header.sandbox)
          const { user } = yield* targets.processOf(target)
          const flags = `${header.intoFolder ? "d" : ""}${header.keepOwner ? "o" : ""}`
          const work = yield* inside.start([
            "put",
            String(target.pid),
            target.containerId,
            path,
            String(user.uid),
            String(user.gid),
            flags
          ])
          const feed = Stream.runForEach(requests, ({ part }) =>
            part.case === "data"
              ? work.write(part.value)
              : Effect.fail(
                new InvalidArgument({ field: "data", problem: "every message but the first must carry it" })
              ))
          const told = yield* work.output.pipe(Stream.decodeText(), Stream.mkString, Effect.forkScoped)
          const ended = yield* feed.pipe(
            Effect.andThen(work.end),
            Effect.andThen(work.ended),
            Effect.raceFirst(work.ended),
            Effect.raceFirst(awaitEnd(target))
          )
          yield* successOf(ended, path, target)
          const [entries = "0", bytes = "0"] = (yield* Fiber.join(told)).split(/\s+/)
          return { entries: BigInt(entries), bytes: BigInt(bytes) }
        },
        Effect.scoped
      )

      const get = Effect.fn("Copies.get")(function*(request: CopyFromRequest) {
        const path = yield* checked(request.path)
        const target = yield* targets.enterable(request.sandbox)
        const work = yield* inside.start([
          "get",
          String(target.pid),
          target.containerId,
          path,
          request.followLink ? "l" : ""
        ])
        const end = Stream.fromEffectDrain(
          Effect.flatMap(work.ended, (ended) => successOf(ended, path, target))
        )
        return Stream.concat(work.output, end).pipe(whileRunning(target))
      })

      return Copies.of({ put, get: (request) => Stream.unwrap(get(request)) })
    })
  )
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
