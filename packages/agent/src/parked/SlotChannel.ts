/**
 * The one connection between an agent and a slot's init. Init connects; then nobody can any more, because the socket is
 * closed and removed. From then on the connection stands for the slot: its end is the end of init or, when orders were
 * given, of what init was before it became the program. The agent's end of it closes with its scope.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { closeSync, constants, openSync } from "node:fs"
import { createServer, type Server, type Socket } from "node:net"
import { decode, type Report, slotFiles } from "./Orders.ts"

/** Init could not be awaited, or did not come. */
export class NoInit extends Schema.TaggedError<NoInit>()("NoInit", { problem: Schema.String }) {
  override get message(): string {
    return this.problem
  }
}

/** From the start of its container init needs a millisecond; a machine that is busy with others needs longer. */
const connectsWithin = "10 seconds"

/** An exec takes a fraction of a millisecond; a machine that swaps takes longer. */
const reportsWithinMillis = 10_000

/** Two words, at most twice. Whoever says more is no init of ours. */
const maxReportBytes = 16

/** A slot's init that has connected. */
export interface SlotChannel {
  /** Gives the orders and waits until they are carried out; once. */
  readonly order: (orders: Uint8Array) => Effect.Effect<Report>
  /** Done when the connection has ended, whoever ended it. */
  readonly ended: Effect.Effect<void>
}

/** What a socket's bytes until its end say. */
const reportOf = (socket: Socket): Effect.Effect<Report> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let bytes = 0
    const limit = setTimeout(() => resume(Effect.succeed({ _tag: "Silent" })), reportsWithinMillis)
    const end = () => {
      clearTimeout(limit)
      resume(Effect.succeed(decode(Buffer.concat(chunks))))
    }
    socket.on("data", (chunk) => {
      bytes += chunk.length
      chunks.push(chunk)
      if (bytes > maxReportBytes) {
        socket.destroy()
      }
    })
    socket.once("end", end).once("close", end)
    return Effect.sync(() => clearTimeout(limit))
  })

const channelOf = (socket: Socket, ended: Deferred.Deferred<void>): SlotChannel => ({
  order: (orders) =>
    Effect.suspend(() => {
      if (socket.destroyed) {
        return Effect.succeed<Report>({ _tag: "Died" })
      }
      socket.write(orders)
      return reportOf(socket)
    }),
  ended: Deferred.await(ended)
})

/** Listens in a slot's directory; what is returned waits for init. */
export const listen = Effect.fnUntraced(function*(
  directory: string
): Effect.fn.Return<Effect.Effect<SlotChannel, NoInit>, NoInit, Scope.Scope> {
  const connected = yield* Deferred.make<SlotChannel, NoInit>()
  const ended = yield* Deferred.make<void>()
  const fail = (error: Error) => new NoInit({ problem: `init can't be awaited in ${directory}: ${error.message}` })
  let init: Socket | undefined

  const open = Effect.callback<Server, NoInit>((resume) => {
    // A socket's path has room for 107 bytes, a slot's directory may be deeper: it is named by a descriptor.
    const descriptor = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
    const server = createServer((socket) => {
      server.close()
      init = socket
      // The end of the connection tells the same.
      socket.on("error", () => undefined)
      socket.once("close", () => Deferred.doneUnsafe(ended, Effect.void))
      // Its end is noticed only by who reads.
      socket.resume()
      Deferred.doneUnsafe(connected, Effect.succeed(channelOf(socket, ended)))
    })
    server.maxConnections = 1
    server.once("close", () => closeSync(descriptor))
    server.once("error", (error) => resume(Effect.fail(fail(error))))
    server.listen(
      { path: `/proc/self/fd/${descriptor}/${slotFiles.socket}`, writableAll: true },
      () => resume(Effect.succeed(server))
    )
  })
  yield* Effect.acquireRelease(
    open,
    (server) =>
      Effect.sync(() => {
        server.close()
        init?.destroy()
      })
  )
  return Deferred.await(connected).pipe(
    Effect.timeoutOrElse({
      duration: connectsWithin,
      orElse: () => Effect.fail(new NoInit({ problem: `a slot's init did not connect within ${connectsWithin}` }))
    })
  )
})
