/**
 * Copies to and from sandboxes of this machine: the archive goes through a unix socket between this process and the one
 * that reads or writes the sandbox's files. The call beside it tells where that socket is and how the copy ended.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, type FailedPrecondition, Internal } from "@fast-sandbox/core/Errors"
import type { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import type * as Wire from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as GrpcConnection from "@fast-sandbox/grpc/GrpcConnection"
import * as Pipe from "@fast-sandbox/grpc/Pipe"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import * as Net from "node:net"
import { dirname, normalize } from "node:path"

type Api = Pick<GrpcConnection.GrpcClient<typeof FastPathService, BoundaryError>, "copyDirectly">

/** Both give none where the server, or this user, can do it through calls only; nothing of the archive was read then. */
export interface DirectCopy {
  readonly put: <E, R>(
    header: MessageInitShape<typeof Wire.CopyToHeaderSchema>,
    archive: Stream.Stream<Uint8Array, E, R>
  ) => Effect.Effect<Option.Option<Wire.CopyToResponse>, BoundaryError | E, R>
  readonly get: (
    request: MessageInitShape<typeof Wire.CopyFromRequestSchema>
  ) => Effect.Effect<Option.Option<Stream.Stream<Uint8Array, BoundaryError>>, BoundaryError, Scope.Scope>
}

/** Read ahead while what was read before is worked on: a few reads of the kernel's buffer for a socket. */
const READ_AHEAD_BYTES = 1024 * 1024

/** The socket is not for this user, or not on this machine. */
class Unreachable extends Schema.TaggedError<Unreachable>()("Unreachable", {}) {}

/** Why there is no such copy: agents are elsewhere, the server is older than this client, or the socket is not for us. */
const isElsewhere = (error: BoundaryError | Unreachable): error is FailedPrecondition | Unreachable =>
  error._tag === "Unreachable" ||
  (error._tag === "FailedPrecondition" && (error.reason === "NotLocal" || error.reason === "Unimplemented"))

const connect = (path: string): Effect.Effect<Net.Socket, Unreachable, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket, Unreachable>((resume) => {
      const options = { path, readableHighWaterMark: READ_AHEAD_BYTES }
      const socket = Net.connect(options, () => resume(Effect.succeed(socket)))
      // later on, what breaks shows in how the call ends
      socket.on("error", () => resume(Effect.fail(new Unreachable())))
      return Effect.sync(() => socket.destroy())
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/** For a server at a unix socket; none for any other, because its agents are on other machines. */
export const make = (api: Api, address: string): DirectCopy | undefined => {
  const server = GrpcConnection.unixPathOf(address)
  if (server === undefined) return undefined
  /** A server on another machine, at the end of a tunnel, must not choose where this process connects to. */
  const folder = `${dirname(server)}/`

  /** The socket, and the answer that comes when the copy has ended. */
  const open = Effect.fnUntraced(
    function*(part: NonNullable<MessageInitShape<typeof Wire.DirectCopyRequestSchema>["part"]>) {
      const [first, rest] = yield* Stream.peel(api.copyDirectly({ part }), Sink.head())
      const told = Option.getOrUndefined(first)?.part
      if (told?.case !== "socket") return yield* new Internal({ problem: "the server did not tell the copy's socket" })
      const { path } = told.value
      if (!normalize(path).startsWith(folder)) return yield* new Unreachable()
      const done = Stream.runLast(rest).pipe(Effect.flatMap((last) => {
        const end = Option.getOrUndefined(last)?.part
        return end?.case === "done"
          ? Effect.succeed(end.value)
          : Effect.fail(new Internal({ problem: "the server did not tell how the copy ended" }))
      }))
      return { socket: yield* connect(path), done }
    }
  )

  const opened = (part: Parameters<typeof open>[0]) =>
    Effect.map(open(part), Option.some).pipe(
      Effect.catchIf(isElsewhere, () => Effect.succeed(Option.none<Effect.Success<ReturnType<typeof open>>>()))
    )

  return {
    put: (header, archive) =>
      Effect.scoped(Effect.gen(function*() {
        const way = yield* opened({ case: "to", value: header })
        if (Option.isNone(way)) return Option.none()
        const { done, socket } = way.value
        const sent = Effect.andThen(Pipe.writeAll(socket, archive), Pipe.end(socket))
        return Option.some(yield* Effect.raceFirst(done, Effect.andThen(sent, Effect.never)))
      })),
    get: (request) =>
      Effect.map(
        opened({ case: "from", value: request }),
        Option.map(({ done, socket }) => Stream.concat(Pipe.read(socket), Stream.fromEffectDrain(done)))
      )
  }
}
