/**
 * One HTTP request and its answer, as Effect, with what decides whether it may be repeated: whether it was put on a
 * connection before it failed.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Http from "node:http"
import type { Connect } from "./Connections.ts"

/** The connection failed. `sent`: at least a part of the request may have reached the server. */
export class TransportError extends Schema.TaggedError<TransportError>()("TransportError", {
  problem: Schema.String,
  sent: Schema.Boolean
}) {}

/** What to send. `path` includes the query. */
export interface HttpRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  readonly path: string
  readonly headers: Record<string, string>
  readonly body?: string | undefined
}

/** The head of an answer, and its body as it comes. */
export interface HttpResponse {
  readonly status: number
  header(name: string): string | undefined
  readonly body: Stream.Stream<Uint8Array, TransportError>
}

/** Chunks (of up to 64 KiB each) that may wait for a slow reader before the connection is no longer read. */
const maxWaitingChunks = 16

/** A connection that is not made (TCP and TLS) within this time is given up. */
const connectTimeoutMillis = 10_000

/** The message of a failure, with those of the addresses that were tried. */
const describe = (error: Error): string =>
  error instanceof AggregateError && error.errors.length > 0
    ? error.errors.map((inner) => inner instanceof Error ? inner.message : String(inner)).join("; ")
    : error.message

/** Calls back when the request is on a connection, and ends it when none is made in time. */
const whenConnected = (request: Http.ClientRequest, isEncrypted: boolean, connected: () => void): void => {
  request.once("socket", (socket) => {
    if (request.reusedSocket || !socket.connecting) return connected()
    const timer = setTimeout(
      () => request.destroy(new Error(`no connection within ${connectTimeoutMillis / 1000} s`)),
      connectTimeoutMillis
    )
    socket.once(isEncrypted ? "secureConnect" : "connect", connected)
    socket.once(isEncrypted ? "secureConnect" : "connect", () => clearTimeout(timer))
    socket.once("close", () => clearTimeout(timer))
  })
}

/**
 * Sends the request and waits for the head of the answer. When the scope closes before the body has been read to its
 * end the request is aborted, which closes its connection; otherwise the connection is kept for the next one.
 */
export const exchange = Effect.fnUntraced(function*(
  connect: Connect,
  { body, headers, method, path }: HttpRequest
): Effect.fn.Return<HttpResponse, TransportError, Scope.Scope> {
  const head = yield* Deferred.make<Omit<HttpResponse, "body">, TransportError>()
  const chunks = yield* Queue.unbounded<Uint8Array, TransportError | Cause.Done>()
  let response: Http.IncomingMessage | undefined
  let sent = false
  let finished = false

  const fail = (error: Error) => {
    finished = true
    const failure = new TransportError({ problem: describe(error), sent })
    Deferred.doneUnsafe(head, Exit.fail(failure))
    Queue.failCauseUnsafe(chunks, Cause.fail(failure))
  }

  const take = (incoming: Http.IncomingMessage) => {
    response = incoming
    incoming.on("data", (chunk: Buffer) => {
      Queue.offerUnsafe(chunks, chunk)
      if (Queue.sizeUnsafe(chunks) >= maxWaitingChunks) incoming.pause()
    })
    incoming.once("error", fail)
    incoming.once("end", () => {
      finished = true
      // The connection is free a tick after this. Whoever sent the next request before that would get another one.
      process.nextTick(() => Queue.endUnsafe(chunks))
    })
    Deferred.doneUnsafe(
      head,
      Exit.succeed({
        status: incoming.statusCode ?? 0,
        header: (name) => {
          const value = incoming.headers[name]
          return Array.isArray(value) ? value[0] : value
        }
      })
    )
  }

  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const request = connect({
        method,
        path,
        // Of a DELETE's body Node says no length by itself.
        headers: body === undefined ? headers : { ...headers, "content-length": Buffer.byteLength(body) }
      })
      whenConnected(request, request.protocol === "https:", () => {
        sent = true
      })
      request.once("response", take)
      request.on("error", fail)
      request.end(body)
      return request
    }),
    (request) =>
      Effect.sync(() => {
        if (!finished) request.destroy()
      })
  )

  const answer = yield* Deferred.await(head)
  return {
    ...answer,
    body: Stream.fromPull(Effect.succeed(
      Effect.tap(Queue.takeAll(chunks), () => Effect.sync(() => response?.resume()))
    ))
  }
})

/** The whole body as text; fails when it is longer than `maxBytes`. */
export const readText = Effect.fnUntraced(function*(
  response: HttpResponse,
  maxBytes: number
): Effect.fn.Return<string, TransportError> {
  const parts: Array<Uint8Array> = []
  let bytes = 0
  yield* Stream.runForEachArray(response.body, (chunks) => {
    for (const chunk of chunks) {
      bytes += chunk.byteLength
      parts.push(chunk)
    }
    return bytes > maxBytes
      ? Effect.fail(new TransportError({ problem: `the answer is longer than ${maxBytes} bytes`, sent: true }))
      : Effect.void
  })
  return Buffer.concat(parts, bytes).toString("utf8")
})
