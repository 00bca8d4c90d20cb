/**
 * One HTTP request and its answer on an undici dispatcher, as Effect. It sits on `dispatch`, undici's lowest level,
 * because only there one sees whether a request was put on a connection before it failed, which decides whether it may
 * be repeated.
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Dispatcher } from "undici"

/** The connection failed. `sent`: at least a part of the request may have reached the server. */
export class TransportError extends Schema.TaggedError<TransportError>()("TransportError", {
  problem: Schema.String,
  sent: Schema.Boolean
}) {}

/** What to send. `path` includes the query. */
export interface HttpRequest {
  readonly origin: string
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

/** The message of a failure, with the causes that undici hides one level down. */
const describe = (error: Error): string =>
  error instanceof AggregateError && error.errors.length > 0
    ? error.errors.map((inner) => inner instanceof Error ? inner.message : String(inner)).join("; ")
    : error.message

/**
 * Sends the request and waits for the head of the answer. When the scope closes before the body has been read to its
 * end the request is aborted, which closes its connection; otherwise the connection returns to the pool.
 */
export const exchange = Effect.fnUntraced(function*(
  dispatcher: Dispatcher,
  request: HttpRequest
): Effect.fn.Return<HttpResponse, TransportError, Scope.Scope> {
  const head = yield* Deferred.make<Omit<HttpResponse, "body">, TransportError>()
  const chunks = yield* Queue.unbounded<Uint8Array, TransportError | Cause.Done>()
  let controller: Dispatcher.DispatchController | undefined
  let finished = false
  let abandoned = false

  const abandon = new Error("the caller went away")
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      abandoned = true
      if (!finished) {
        controller?.abort(abandon)
      }
    })
  )

  const fail = (error: Error) => {
    finished = true
    const failure = new TransportError({ problem: describe(error), sent: controller !== undefined })
    Deferred.doneUnsafe(head, Exit.fail(failure))
    Queue.failCauseUnsafe(chunks, Cause.fail(failure))
  }

  yield* Effect.sync(() => {
    dispatcher.dispatch({
      ...request,
      body: request.body ?? null,
      // Without it undici closes the connection after every DELETE that has a body.
      reset: false,
      headersTimeout: 0,
      bodyTimeout: 0
    }, {
      onRequestStart: (started) => {
        controller = started
        if (abandoned) {
          started.abort(abandon)
        }
      },
      onResponseStart: (_, status, headers) => {
        Deferred.doneUnsafe(
          head,
          Exit.succeed({
            status,
            header: (name) => {
              const value = headers[name]
              return Array.isArray(value) ? value[0] : value
            }
          })
        )
      },
      onResponseData: (started, chunk) => {
        Queue.offerUnsafe(chunks, chunk)
        if (Queue.sizeUnsafe(chunks) >= maxWaitingChunks) {
          started.pause()
        }
      },
      onResponseEnd: () => {
        finished = true
        // undici takes the connection back in an immediate that it schedules after this callback. Whoever sends the
        // next request before that gets another connection, so the end is told behind it.
        queueMicrotask(() => setImmediate(() => Queue.endUnsafe(chunks)))
      },
      onResponseError: (_, error) => fail(error)
    })
  })

  const answer = yield* Deferred.await(head)
  return {
    ...answer,
    body: Stream.fromPull(Effect.succeed(
      Effect.tap(Queue.takeAll(chunks), () => Effect.sync(() => controller?.resume()))
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
