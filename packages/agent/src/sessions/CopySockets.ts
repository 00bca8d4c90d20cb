/**
 * Unix sockets that take one connection each: a copy's archive goes through one of them between the caller's process and
 * `fsb-inside`, and neither the controller nor the agent reads a byte of it. They exist only where the agent's callers
 * are on the same machine, which is where it listens at a unix socket itself.
 */
import { DeadlineExceeded, FailedPrecondition, Internal } from "@fast-sandbox/core/Errors"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as PlatformError from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import { randomBytes } from "node:crypto"
import { createServer, type Socket } from "node:net"
import { dirname } from "node:path"
import { AgentConfig } from "../AgentConfig.ts"

/** A caller that was told of its socket connects at once. */
const connectTime = "10 seconds"

/** Whoever may enter the folder may connect: the agent's own user. */
const directoryMode = 0o700

/** Only tells sockets apart. More would not fit into a socket's path below a folder of usual length. */
const nameBytes = 4

/** A socket that waits for its one caller. */
export interface CopySocket {
  readonly path: string
  /** The connection, of which nothing was read. */
  readonly connection: Effect.Effect<Socket, DeadlineExceeded>
}

/** `open` gives a fresh one, which goes with the scope. FailedPrecondition `NotLocal` where callers are elsewhere. */
export class CopySockets extends Context.Service<CopySockets, {
  readonly open: Effect.Effect<CopySocket, FailedPrecondition | Internal, Scope.Scope>
}>()("@fast-sandbox/agent/sessions/CopySockets") {
  static readonly layer: Layer.Layer<CopySockets, PlatformError.PlatformError, AgentConfig | FileSystem.FileSystem> =
    Layer.effect(CopySockets, Effect.suspend(() => make))
}

const notLocal = new FailedPrecondition({
  reason: "NotLocal",
  problem: "this agent's callers are not on its machine; copy through calls"
})

const openIn = (directory: string) =>
  Effect.gen(function*() {
    const path = `${directory}/${randomBytes(nameBytes).toString("hex")}`
    const connected = yield* Deferred.make<Socket>()
    let taken: Socket | undefined
    const server = createServer({ pauseOnConnect: true }, (socket) => {
      if (taken !== undefined) return socket.destroy()
      taken = socket
      server.close()
      // what breaks shows at the process that gets the connection
      socket.on("error", () => {})
      Deferred.doneUnsafe(connected, Effect.succeed(socket))
    })
    yield* Effect.acquireRelease(
      Effect.callback<void, Internal>((resume) => {
        server.once("error", ({ message }) =>
          resume(Effect.fail(new Internal({ problem: `a socket for the copy could not be made: ${message}` }))))
        server.listen(path, () =>
          resume(Effect.void))
      }),
      () =>
        Effect.sync(() => {
          server.close()
          taken?.destroy()
        })
    )
    return {
      path,
      connection: Deferred.await(connected).pipe(Effect.timeoutOrElse({
        duration: connectTime,
        orElse: () =>
          Effect.fail(new DeadlineExceeded({ operation: "the connection to the copy's socket" }))
      }))
    }
  })

const make = Effect.gen(function*() {
  const { listen } = yield* AgentConfig
  if (listen._tag === "Tcp") return CopySockets.of({ open: Effect.fail(notLocal) })
  const files = yield* FileSystem.FileSystem
  const directory = `${dirname(listen.path)}/copies`
  // of an earlier life, too
  const remove = files.remove(directory, { recursive: true, force: true })
  yield* remove
  yield* Effect.acquireRelease(
    files.makeDirectory(directory, { recursive: true, mode: directoryMode }),
    () => Effect.ignore(remove, { log: "Warn" })
  )
  return CopySockets.of({ open: openIn(directory) })
})
