/**
 * Ends HTTP/2 streams whose call is over but whose caller goes on sending, or never says that it is done. grpc-js leaves
 * them open: they would count as calls for ever, and a stranger could fill a server's memory with refused ones.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as DiagnosticsChannel from "node:diagnostics_channel"
import * as Http2 from "node:http2"

/** A caller that got its answer has this long to end its own half, in milliseconds: a round trip around the world. */
const LINGER_MILLIS = 1_000

/** Node tells of every stream that a server of this process takes. */
const CHANNEL = "http2.server.stream.start"

const isServerStream = (value: unknown): value is Http2.ServerHttp2Stream =>
  typeof value === "object" && value !== null && "close" in value && "once" in value && "readableEnded" in value

const watched = new WeakSet<Http2.ServerHttp2Stream>()

const onStart = (message: unknown): void => {
  if (typeof message !== "object" || message === null || !("stream" in message)) return
  const { stream } = message
  if (!isServerStream(stream) || watched.has(stream)) return
  watched.add(stream)
  stream.once("finish", () => {
    if (stream.readableEnded || stream.closed) return
    const timer = setTimeout(() => stream.close(Http2.constants.NGHTTP2_NO_ERROR), LINGER_MILLIS)
    stream.once("close", () => clearTimeout(timer))
  })
}

/** Watches the streams of this process for the lifetime of the scope. */
export const end: Effect.Effect<void, never, Scope.Scope> = Effect.asVoid(Effect.acquireRelease(
  // a function of its own: servers come and go independently of each other
  Effect.sync(() => {
    const listener = (message: unknown) => onStart(message)
    DiagnosticsChannel.subscribe(CHANNEL, listener)
    return listener
  }),
  (listener) => Effect.sync(() => DiagnosticsChannel.unsubscribe(CHANNEL, listener))
))
