/**
 * One call of the API, whatever it is about: credentials, time limits, repetition of what is safe, errors by cause,
 * metrics, spans and the trace header.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import type { KubeConfig } from "../KubeConfig.ts"
import { KubeError, type KubeErrorReason, MalformedResponse, Timeout, Unauthorized, Unavailable } from "../KubeError.ts"
import * as Connections from "./Connections.ts"
import { exchange, type HttpResponse, readText, type TransportError } from "./HttpExchange.ts"
import { type Query, withQuery } from "./Paths.ts"
import { reasonOf } from "./Status.ts"

/** Largest answer that is taken in as a whole. A page of 500 objects of etcd's largest size would be 750 MiB. */
const maxAnswerBytes = 256 * 1024 * 1024

/** The server may ask for a longer pause than is sensible to wait inside of one call. */
const maxRetryAfter = Duration.seconds(30)

/** Repeats what is certain not to have happened, and reads whose connection broke; at most four times. */
const retryPolicy = Schedule.exponential("50 millis", 2).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 4 }),
  Schedule.setInputType<KubeError>(),
  Schedule.while(({ input: { method, reason } }) =>
    reason._tag === "TooManyRequests" || (reason._tag === "Unavailable" && (!reason.sent || method === "GET"))
  ),
  Schedule.modifyDelay(({ duration, input: { reason } }) =>
    Effect.succeed(
      reason._tag === "TooManyRequests"
        ? Duration.min(Duration.millis(reason.retryAfterMillis), maxRetryAfter)
        : duration
    )
  )
)

const userAgent = "fast-sandbox"

const calls = Metric.counter("fsb_kube_client_calls_total", {
  description: "Calls of the Kubernetes API, by verb, kind and outcome",
  incremental: true
})

const durations = Metric.histogram("fsb_kube_client_call_duration_seconds", {
  description: "Duration of calls of the Kubernetes API, with their repetitions, by verb and kind",
  boundaries: Metric.exponentialBoundaries({ start: 0.001, factor: 2, count: 16 })
})

/** What is asked of the API. `kind` and `name` are for errors, metrics and spans. */
export interface Call {
  readonly verb: string
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE"
  readonly path: string
  readonly query?: Query | undefined
  readonly body?: unknown
  readonly contentType?: string | undefined
  readonly headers?: { readonly [name: string]: string } | undefined
  readonly kind?: string | undefined
  readonly name?: string | undefined
}

/** The call failed for this reason. */
export const failure = (call: Call, reason: KubeErrorReason): KubeError =>
  new KubeError({
    method: call.method,
    path: call.path,
    ...(call.kind === undefined ? {} : { kind: call.kind }),
    ...(call.name === undefined ? {} : { name: call.name }),
    reason
  })

/** The connection failed. */
export const unavailable = (call: Call, { problem, sent }: TransportError): KubeError =>
  failure(call, new Unavailable({ problem, sent }))

/** The answer makes no sense. */
export const malformed = (call: Call, problem: string): KubeError => failure(call, new MalformedResponse({ problem }))

/** The answer as JSON. */
export const parseJson = (call: Call, text: string): Effect.Effect<unknown, KubeError> =>
  Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: () => malformed(call, "the answer is not JSON")
  })

const text = (call: Call, response: HttpResponse): Effect.Effect<string, KubeError> =>
  readText(response, maxAnswerBytes).pipe(Effect.mapError((error) => unavailable(call, error)))

const observed = (call: Call) => <A, R>(effect: Effect.Effect<A, KubeError, R>): Effect.Effect<A, KubeError, R> => {
  const attributes = { verb: call.verb, kind: call.kind ?? "" }
  return effect.pipe(
    Effect.tap(() => Metric.update(Metric.withAttributes(calls, { ...attributes, code: "OK" }), 1)),
    Effect.tapError((error) =>
      Metric.update(Metric.withAttributes(calls, { ...attributes, code: error.reason._tag }), 1)
    ),
    Effect.trackDuration(Metric.withAttributes(durations, attributes), Duration.toSeconds),
    Effect.withSpan(`KubeClient.${call.verb}`, {
      kind: "client",
      attributes: {
        "http.request.method": call.method,
        "url.path": call.path,
        "kube.kind": call.kind,
        "kube.name": call.name
      }
    })
  )
}

/** https://www.w3.org/TR/trace-context/#traceparent-header */
const traceparent = (span: Tracer.Span): string =>
  `00-${span.traceId.padStart(32, "0")}-${span.spanId}-${span.sampled ? "01" : "00"}`

/** Makes calls to one server. Connections close with the scope. */
export const make = Effect.fnUntraced(function*(
  config: KubeConfig["Service"],
  requestTimeout: Duration.Duration
): Effect.fn.Return<
  {
    /** A whole call: attempts, each with its time limit, until one counts. */
    readonly answer: <A>(
      call: Call,
      read: (text: string, response: HttpResponse) => Effect.Effect<A, KubeError>
    ) => Effect.Effect<A, KubeError>
    /** One attempt up to the head of a successful answer, whose body is read while the scope is open. */
    readonly open: (call: Call) => Effect.Effect<HttpResponse, KubeError, Scope.Scope>
  },
  never,
  Scope.Scope
> {
  const url = new URL(config.cluster.server)
  const prefix = url.pathname.replace(/\/+$/, "")
  const connectWith = yield* Connections.make(config.cluster)

  /** One attempt, up to the head of a successful answer. */
  const send = Effect.fnUntraced(function*(call: Call): Effect.fn.Return<HttpResponse, KubeError, Scope.Scope> {
    const credentials = yield* config.credentials.pipe(
      Effect.mapError((error) => failure(call, new Unauthorized({ problem: error.message })))
    )
    const span = yield* Effect.option(Effect.currentSpan)
    const response = yield* exchange(connectWith(credentials.certificate), {
      method: call.method,
      path: withQuery(prefix + call.path, call.query ?? {}),
      headers: {
        accept: "application/json",
        "user-agent": userAgent,
        ...(call.body === undefined ? {} : { "content-type": call.contentType ?? "application/json" }),
        ...(Option.isSome(span) ? { traceparent: traceparent(span.value) } : {}),
        ...credentials.headers,
        ...call.headers
      },
      body: call.body === undefined ? undefined : JSON.stringify(call.body)
    }).pipe(Effect.mapError((error) => unavailable(call, error)))
    if (response.status < 400) {
      return response
    }
    const body = yield* text(call, response)
    return yield* failure(call, reasonOf(response.status, body, response.header("retry-after")))
  })

  const inTime = (call: Call) =>
    Effect.timeoutOrElse({
      duration: requestTimeout,
      orElse: () =>
        Effect.fail(failure(call, new Timeout({ problem: `no answer within ${Duration.format(requestTimeout)}` })))
    })

  const answer = <A>(
    call: Call,
    read: (text: string, response: HttpResponse) => Effect.Effect<A, KubeError>
  ): Effect.Effect<A, KubeError> =>
    Effect.scoped(
      Effect.flatMap(send(call), (response) => Effect.flatMap(text(call, response), (body) => read(body, response)))
    ).pipe(
      inTime(call),
      Effect.retry(retryPolicy),
      observed(call)
    )

  return { answer, open: (call) => send(call).pipe(inTime(call), observed(call)) }
})
