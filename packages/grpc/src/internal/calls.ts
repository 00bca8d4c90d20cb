/**
 * The typed calls of a service over a {@link Channel}: unary as Effect, streaming as Stream.
 */
import type { DescMethod, DescService, Message, MessageInitShape } from "@bufbuild/protobuf"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import type { CallOptions, Options } from "../GrpcConnection.ts"
import { type Code, codes, fromStatus, type GrpcError } from "../GrpcError.ts"
import { type Channel, codeNumbers, type Incoming, type Opening, type Settle, type Status } from "./channel.ts"
import * as Instruments from "./instruments.ts"
import * as Pump from "./pump.ts"
import * as Wire from "./wire.ts"

type Init = MessageInitShape<DescMethod["input"]>

/** Any client, seen without its descriptor. */
export type AnyClient = Readonly<Record<string, unknown>>

/** All that the calls of one method share. */
interface Method<E> {
  readonly channel: Channel
  readonly path: string
  readonly encode: (init: Init) => Buffer
  readonly decode: (bytes: Buffer) => Message
  readonly instruments: Instruments.Instruments
  /** What one call begins with; runs inside the call's span. */
  readonly opening: (options: CallOptions | undefined) => Effect.Effect<Opening>
  readonly fail: (status: Status) => E
  readonly spanOptions: Tracer.SpanOptions
}

/** The servers compare deadlines with the wall clock, whatever Effect's Clock says. */
const deadlineOf = (options: CallOptions | undefined): number | undefined =>
  options?.deadline === undefined ? undefined : Date.now() + Duration.toMillis(options.deadline)

const codeOfStatus = (status: { readonly code: number }): Code => codes[status.code] ?? "UNKNOWN"

/** Counts the call once, however many of its ends are seen. */
const countOnce = <E>(method: Method<E>, fiber: Fiber.Fiber<unknown, unknown>) => {
  const beganAt = method.instruments.begin()
  let ended = false
  return (code: Code) => {
    if (ended) return
    ended = true
    method.instruments.end(beganAt, code, fiber.context)
  }
}

const NO_ANSWER: Status = { code: codeNumbers.internal, details: "the server ended the call without an answer" }

const MALFORMED: Status = {
  code: codeNumbers.internal,
  details: "the server's answer is no message of this method"
}

/** The message, or nothing where the bytes are none. */
const decoded = <E>(method: Method<E>, bytes: Buffer): Message | undefined => {
  try {
    return method.decode(bytes)
  } catch {
    return undefined
  }
}

/** The end of a call with one response. */
const settle = <E>(
  method: Method<E>,
  count: (code: Code) => void,
  resume: (outcome: Effect.Effect<Message, E>) => void
): Settle =>
(failure, response) => {
  const message = failure === null && response !== undefined ? decoded(method, response) : undefined
  if (message !== undefined) {
    count("OK")
    return resume(Effect.succeed(message))
  }
  const status = failure ?? (response === undefined ? NO_ANSWER : MALFORMED)
  count(codeOfStatus(status))
  resume(Effect.fail(method.fail(status)))
}

const unary = <E>(method: Method<E>) => (request: Init, options?: CallOptions): Effect.Effect<Message, E> =>
  Effect.withSpan(
    Effect.flatMap(
      method.opening(options),
      (opening) =>
        Effect.withFiber((fiber) =>
          Effect.callback<Message, E>((resume) => {
            const count = countOnce(method, fiber)
            const call = method.channel.unary(opening, method.encode(request), settle(method, count, resume))
            return Effect.sync(() => {
              count("CANCELLED")
              call.cancel()
            })
          })
        )
    ),
    method.path,
    method.spanOptions
  )

const clientStreaming = <E>(method: Method<E>) =>
<E2, R2>(
  requests: Stream.Stream<Init, E2, R2>,
  options?: CallOptions
): Effect.Effect<Message, E | E2, R2> => {
  const open = (opening: Opening) =>
    Effect.withFiber((fiber) =>
      Effect.sync(() => {
        const count = countOnce(method, fiber)
        const response = Deferred.makeUnsafe<Message, E>()
        const call = method.channel.clientStreaming(
          opening,
          settle(method, count, (outcome) => Deferred.doneUnsafe(response, outcome))
        )
        return { call, count, response }
      })
    )
  return Effect.withSpan(
    Effect.flatMap(method.opening(options), (opening) =>
      Effect.acquireUseRelease(
        open(opening),
        ({ call, response }) =>
          // the server may answer before it has read everything; whichever ends first ends the other
          Effect.raceFirst(
            Deferred.await(response),
            Pump.write(requests, call, method.encode).pipe(
              Effect.andThen(Effect.sync(() => call.end())),
              Effect.andThen(Effect.never)
            )
          ),
        ({ call, count }, exit) =>
          Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => {
            count("CANCELLED")
            call.cancel()
          })
      )),
    method.path,
    method.spanOptions
  )
}

/** Opens a call with a stream of responses and leaves it with the scope. Its status decides how that stream ends. */
const openStream = <E, Call extends Incoming>(
  method: Method<E>,
  open: () => Call
): Effect.Effect<{ readonly call: Call; readonly responses: Stream.Stream<Message, E> }, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    let status: Status | undefined
    return Effect.acquireRelease(
      Effect.sync(() => {
        const count = countOnce(method, fiber)
        const call = open()
        call.onStatus((final) => {
          status = final
          count(codeOfStatus(final))
        })
        const responses = Pump.read(call, {
          decode: method.decode,
          malformed: () => method.fail(MALFORMED),
          atEnd: Effect.suspend(() =>
            status?.code === codeNumbers.ok ? Effect.void : Effect.fail(method.fail(status ?? NO_ANSWER))
          )
        })
        return { call, count, responses }
      }),
      ({ call, count }) =>
        Effect.sync(() => {
          count("CANCELLED")
          if (status === undefined) call.cancel()
        })
    )
  })

const serverStreaming = <E>(method: Method<E>) => (request: Init, options?: CallOptions): Stream.Stream<Message, E> =>
  Stream.withSpan(
    Stream.unwrap(Effect.flatMap(method.opening(options), (opening) =>
      Effect.map(
        openStream(method, () => method.channel.serverStreaming(opening, method.encode(request))),
        ({ responses }) => responses
      ))),
    method.path,
    method.spanOptions
  )

const bidiStreaming = <E>(method: Method<E>) =>
<E2, R2>(
  requests: Stream.Stream<Init, E2, R2>,
  options?: CallOptions
): Stream.Stream<Message, E | E2, R2> => {
  const open = Effect.gen(function*() {
    const opening = yield* method.opening(options)
    const { call, responses } = yield* openStream(method, () => method.channel.bidiStreaming(opening))
    let failure: Cause.Cause<E2> | undefined
    yield* Pump.write(requests, call, method.encode).pipe(
      Effect.matchCause({
        onSuccess: () => {
          call.end()
        },
        onFailure: (cause) => {
          failure = cause
          call.cancel()
        }
      }),
      Effect.forkScoped
    )
    // when the requests fail, their failure ends the call, not the CANCELLED that it caused
    return Stream.catchCause(
      responses,
      (cause) => failure === undefined ? Stream.failCause(cause) : Stream.failCause<E | E2>(failure)
    )
  })
  return Stream.withSpan(Stream.unwrap(open), method.path, method.spanOptions)
}

const call = <E>(kind: DescMethod["methodKind"], method: Method<E>) => {
  switch (kind) {
    case "unary":
      return unary(method)
    case "server_streaming":
      return serverStreaming(method)
    case "client_streaming":
      return clientStreaming(method)
    case "bidi_streaming":
      return bidiStreaming(method)
  }
}

const openingOf = (options: Options, path: string) => {
  const token = options.credentials?.token
  const base = (callOptions: CallOptions | undefined): Effect.Effect<Opening> =>
    Effect.withFiber((fiber) => {
      const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
      return Effect.succeed({
        path,
        headers: {
          ...(span === undefined ? {} : { [Wire.TRACEPARENT]: Wire.toTraceparent(span) }),
          ...options.metadata,
          ...callOptions?.metadata
        },
        deadline: deadlineOf(callOptions)
      })
    })
  return token === undefined
    ? base
    : (callOptions: CallOptions | undefined) =>
      Effect.zipWith(base(callOptions), token, (opening, token) => ({
        ...opening,
        headers: { ...opening.headers, authorization: `Bearer ${Redacted.value(token)}` }
      }))
}

/** A client of the service over the channel. */
export const make = <E>(
  service: DescService,
  options: Options,
  channel: Channel,
  fail: (error: GrpcError) => E
): AnyClient =>
  Object.fromEntries(service.methods.map((method) => {
    const path = Wire.path(method)
    return [
      method.localName,
      call(method.methodKind, {
        channel,
        path,
        encode: Wire.encoder(method.input),
        decode: Wire.decoder(method.output),
        instruments: Instruments.make("client", method),
        opening: openingOf(options, path),
        fail: (status) => fail(fromStatus(path, options.address, status)),
        spanOptions: {
          kind: "client",
          captureStackTrace: false,
          attributes: {
            "rpc.system": "grpc",
            "rpc.service": service.typeName,
            "rpc.method": method.name,
            "server.address": options.address
          }
        }
      })
    ]
  }))
