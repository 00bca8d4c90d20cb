/**
 * gRPC calls below any library: the bytes that the test wants, and the status that the server gives.
 */
import { Effect } from "effect"
import * as Http2 from "node:http2"
import { connect } from "node:net"

/** Longer than any call takes that is told to end after a second. */
const patience = "10 seconds"

const headerBytes = 5

/** A message as it stands in a request. */
export const frame = (message: Uint8Array): Buffer => {
  const bytes = Buffer.alloc(headerBytes + message.length)
  bytes.writeUInt32BE(message.length, 1)
  bytes.set(message, headerBytes)
  return bytes
}

/** A connection to a unix socket. */
export const session = (socket: string) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      Http2.connect("http://localhost", { createConnection: () => connect(socket) }).on("error", () => {})
    ),
    (session) => Effect.sync(() => session.destroy())
  )

/** The status of a call; -1 when the server gave none in its time. */
export const status = (session: Http2.ClientHttp2Session, path: string, body: Uint8Array): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      "grpc-timeout": "1S",
      te: "trailers"
    })
    const look = (headers: Http2.IncomingHttpHeaders) => {
      const found = headers["grpc-status"]
      if (found !== undefined) resume(Effect.succeed(Number(found)))
    }
    stream.on("response", look).on("trailers", look).on("error", () => {}).on("close", () => resume(Effect.succeed(-1)))
    stream.resume()
    stream.end(body)
    return Effect.sync(() => stream.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.succeed(-1) }))
