/**
 * Clients of gRPC services, typed by their protobuf-es descriptors: a unary method is a function to an Effect, a
 * streaming one takes or gives a Stream. Interrupting a call, or leaving its stream, cancels it at the server.
 *
 * {@link make} fails calls with {@link GrpcError}, for servers that are not ours; {@link makeBoundary} with the
 * failures that cross a boundary, the same ones that our servers' handlers fail with.
 */
import type {
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  Message,
  MessageInitShape,
  MessageShape
} from "@bufbuild/protobuf"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Grpc from "@grpc/grpc-js"
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
import { type Code, codes, fromStatus, type GrpcError, toBoundaryError } from "./GrpcError.ts"
import * as Instruments from "./internal/instruments.ts"
import * as Pump from "./internal/pump.ts"
import * as Wire from "./internal/wire.ts"

/**
 * Largest message that is sent or accepted, in bytes. containerd's own limit, so that what fits one fits the other.
 */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024

/** On TCP, an idle connection with calls on it is probed this often: below the idle limit of usual NATs (60 s). */
export const KEEPALIVE_TIME_MILLIS = 30_000

/** A probe that stays without an answer for this long means that the connection is dead. */
export const KEEPALIVE_TIMEOUT_MILLIS = 10_000

/** First and longest pause between attempts to connect; calls fail with UNAVAILABLE in between. */
export const RECONNECT_BACKOFF_MILLIS = { initial: 100, max: 5_000 } as const

/** PEM text or bytes. */
export type Pem = string | Uint8Array

/** How a client encrypts and proves itself. */
export interface Credentials {
  /** Encrypts. Without it the connection is plain text: right for unix sockets and loopback only. */
  readonly tls?: {
    /** Who must have signed the server's certificate; left out: the system's authorities. */
    readonly ca?: Pem | undefined
    /** What the client shows to a server that asks for a certificate. */
    readonly certificate?: { readonly chain: Pem; readonly key: Redacted.Redacted<Pem> } | undefined
    /** The name that the server's certificate must carry, when it is not the address's. */
    readonly serverName?: string | undefined
  } | undefined
  /** Sent as `authorization: Bearer <token>`; runs for every call, so that it may read a rotating token. */
  readonly token?: Effect.Effect<Redacted.Redacted> | undefined
}

/** What {@link make} connects to, and how. */
export interface Options {
  /** `unix:/absolute/path` or `host:port`. */
  readonly address: string
  readonly credentials?: Credentials | undefined
  /** Largest message that is sent or accepted, in bytes; {@link MAX_MESSAGE_BYTES} by default. */
  readonly maxMessageBytes?: number | undefined
  /** Sent with every call. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
  /** Further options of the grpc-js channel. */
  readonly channel?: Grpc.ClientOptions | undefined
}

/** What a single call may say. */
export interface CallOptions {
  /** The server stops working on the call, and the call fails with DEADLINE_EXCEEDED, after this time. */
  readonly deadline?: Duration.Input | undefined
  readonly metadata?: Readonly<Record<string, string>> | undefined
}

/** The calls of a service; `E` is what they fail with. */
export type GrpcClient<S extends DescService, E = GrpcError> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O> ? (
      request: MessageInitShape<I>,
      options?: CallOptions
    ) => Effect.Effect<MessageShape<O>, E>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O> ? (
        request: MessageInitShape<I>,
        options?: CallOptions
      ) => Stream.Stream<MessageShape<O>, E>
    : S["method"][K] extends DescMethodClientStreaming<infer I, infer O> ? <E2 = never, R2 = never>(
        requests: Stream.Stream<MessageInitShape<I>, E2, R2>,
        options?: CallOptions
      ) => Effect.Effect<MessageShape<O>, E | E2, R2>
    : S["method"][K] extends DescMethodBiDiStreaming<infer I, infer O> ? <E2 = never, R2 = never>(
        requests: Stream.Stream<MessageInitShape<I>, E2, R2>,
        options?: CallOptions
      ) => Stream.Stream<MessageShape<O>, E | E2, R2>
    : never
}

type Init = MessageInitShape<DescMethod["input"]>

/** Any client, seen without its descriptor. */
type AnyClient = Readonly<Record<string, unknown>>

/** All that the calls of one method share. */
interface Method<E> {
  readonly client: Grpc.Client
  readonly path: string
  readonly encode: (init: Init) => Buffer
  readonly decode: (bytes: Buffer) => Message
  readonly instruments: Instruments.Instruments
  /** Headers of one call; runs inside the call's span. */
  readonly metadata: (options: CallOptions | undefined) => Effect.Effect<Grpc.Metadata>
  readonly fail: (status: { readonly code: number; readonly details: string; readonly metadata?: Grpc.Metadata }) => E
  readonly spanOptions: Tracer.SpanOptions
}

const identity = (bytes: Buffer): Buffer => bytes

const callOptions = (options: CallOptions | undefined): Grpc.CallOptions =>
  options?.deadline === undefined
    ? {}
    // grpc-js compares deadlines with the wall clock, whatever Effect's Clock says
    : { deadline: Date.now() + Duration.toMillis(options.deadline) }

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

const NO_ANSWER = { code: Grpc.status.INTERNAL, details: "the server ended the call without an answer" } as const

/** The end of a call with one response. */
const settle =
  <E>(method: Method<E>, count: (code: Code) => void, resume: (outcome: Effect.Effect<Message, E>) => void) =>
  (error: Grpc.ServiceError | null, response?: Message) => {
    if (error === null && response !== undefined) {
      count("OK")
      return resume(Effect.succeed(response))
    }
    const status = error ?? NO_ANSWER
    count(codeOfStatus(status))
    resume(Effect.fail(method.fail(status)))
  }

const unary = <E>(method: Method<E>) => (request: Init, options?: CallOptions): Effect.Effect<Message, E> =>
  Effect.withSpan(
    Effect.flatMap(
      method.metadata(options),
      (metadata) =>
        Effect.withFiber((fiber) =>
          Effect.callback<Message, E>((resume) => {
            const count = countOnce(method, fiber)
            const call = method.client.makeUnaryRequest(
              method.path,
              identity,
              method.decode,
              method.encode(request),
              metadata,
              callOptions(options),
              settle(method, count, resume)
            )
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
  const open = (metadata: Grpc.Metadata) =>
    Effect.withFiber((fiber) =>
      Effect.sync(() => {
        const count = countOnce(method, fiber)
        const response = Deferred.makeUnsafe<Message, E>()
        const call = method.client.makeClientStreamRequest(
          method.path,
          identity,
          method.decode,
          metadata,
          callOptions(options),
          settle(method, count, (outcome) => Deferred.doneUnsafe(response, outcome))
        )
        return { call, count, response }
      })
    )
  return Effect.withSpan(
    Effect.flatMap(method.metadata(options), (metadata) =>
      Effect.acquireUseRelease(
        open(metadata),
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
const openStream = <E, Call extends Grpc.ClientReadableStream<Buffer>>(
  method: Method<E>,
  open: () => Call
): Effect.Effect<{ readonly call: Call; readonly responses: Stream.Stream<Message, E> }, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    let status: Grpc.StatusObject | undefined
    return Effect.acquireRelease(
      Effect.sync(() => {
        const count = countOnce(method, fiber)
        const call = open()
        // "status" follows with the same content; an "error" without a listener would end the process
        call.on("error", () => {})
        call.on("status", (final) => {
          status = final
          count(codeOfStatus(final))
        })
        const responses = Pump.read(call, {
          decode: method.decode,
          malformed: () =>
            method.fail({ code: Grpc.status.INTERNAL, details: "the server's answer is no message of this method" }),
          atEnd: Effect.suspend(() =>
            status?.code === Grpc.status.OK ? Effect.void : Effect.fail(method.fail(status ?? NO_ANSWER))
          )
        })
        return { call, count, responses }
      }),
      ({ call, count }) =>
        Effect.sync(() => {
          count("CANCELLED")
          // destroying the Readable is not enough: only `cancel` resets the HTTP/2 stream
          if (status === undefined) call.cancel()
        })
    )
  })

const serverStreaming = <E>(method: Method<E>) => (request: Init, options?: CallOptions): Stream.Stream<Message, E> =>
  Stream.withSpan(
    Stream.unwrap(Effect.flatMap(method.metadata(options), (metadata) =>
      Effect.map(
        openStream(method, () =>
          method.client.makeServerStreamRequest(
            method.path,
            identity,
            identity,
            method.encode(request),
            metadata,
            callOptions(options)
          )),
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
    const metadata = yield* method.metadata(options)
    const { call, responses } = yield* openStream(method, () =>
      method.client.makeBidiStreamRequest<Buffer, Buffer>(
        method.path,
        identity,
        identity,
        metadata,
        callOptions(options)
      ))
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

const isUnixAddress = (address: string): boolean => address.startsWith("unix:")

const channelOptions = (options: Options): Grpc.ClientOptions => {
  const maxMessageBytes = options.maxMessageBytes ?? MAX_MESSAGE_BYTES
  const serverName = options.credentials?.tls?.serverName
  return {
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    "grpc.initial_reconnect_backoff_ms": RECONNECT_BACKOFF_MILLIS.initial,
    "grpc.max_reconnect_backoff_ms": RECONNECT_BACKOFF_MILLIS.max,
    // peers are Pods, nodes and sockets: never behind the environment's proxy, never configured by DNS
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.enable_channelz": 0,
    // a unix socket tells at once when its peer dies, and Go servers drop clients that probe too often
    ...(isUnixAddress(options.address) ? {} : {
      "grpc.keepalive_time_ms": KEEPALIVE_TIME_MILLIS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MILLIS
    }),
    ...(serverName === undefined ? {} : {
      "grpc.ssl_target_name_override": serverName,
      "grpc.default_authority": serverName
    }),
    ...options.channel
  }
}

const pemBuffer = (pem: Pem): Buffer => typeof pem === "string" ? Buffer.from(pem) : Buffer.from(pem)

const channelCredentials = ({ tls }: Credentials): Grpc.ChannelCredentials =>
  tls === undefined
    ? Grpc.credentials.createInsecure()
    : Grpc.credentials.createSsl(
      tls.ca === undefined ? null : pemBuffer(tls.ca),
      tls.certificate === undefined ? null : pemBuffer(Redacted.value(tls.certificate.key)),
      tls.certificate === undefined ? null : pemBuffer(tls.certificate.chain)
    )

const setAll = (metadata: Grpc.Metadata, values: Readonly<Record<string, string>> | undefined): void => {
  if (values === undefined) return
  for (const [key, value] of Object.entries(values)) metadata.set(key, value)
}

const callMetadata = (options: Options) => {
  const token = options.credentials?.token
  const base = (callOptions: CallOptions | undefined): Effect.Effect<Grpc.Metadata> =>
    Effect.withFiber((fiber) => {
      const metadata = new Grpc.Metadata()
      const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
      if (span !== undefined) metadata.set(Wire.TRACEPARENT, Wire.toTraceparent(span))
      setAll(metadata, options.metadata)
      setAll(metadata, callOptions?.metadata)
      return Effect.succeed(metadata)
    })
  return token === undefined
    ? base
    : (callOptions: CallOptions | undefined) =>
      Effect.zipWith(base(callOptions), token, (metadata, token) => {
        metadata.set("authorization", `Bearer ${Redacted.value(token)}`)
        return metadata
      })
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

const makeWith = <E>(
  service: DescService,
  options: Options,
  fail: (error: GrpcError) => E
): Effect.Effect<AnyClient, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() =>
        new Grpc.Client(options.address, channelCredentials(options.credentials ?? {}), channelOptions(options))
      ),
      (client) => Effect.sync(() => client.close())
    ),
    (client) => {
      const metadata = callMetadata(options)
      return Object.fromEntries(service.methods.map((method) => {
        const path = Wire.path(method)
        return [
          method.localName,
          call(method.methodKind, {
            client,
            path,
            encode: Wire.encoder(method.input),
            decode: Wire.decoder(method.output),
            instruments: Instruments.make("client", method),
            metadata,
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
    }
  )

/**
 * A client of any gRPC server. The channel lives as long as the scope and connects with the first call; clients of the
 * same address and options share one connection.
 */
export function make<S extends DescService>(
  service: S,
  options: Options
): Effect.Effect<GrpcClient<S, GrpcError>, never, Scope.Scope>
export function make(service: DescService, options: Options): Effect.Effect<AnyClient, never, Scope.Scope> {
  return makeWith(service, options, (error) => error)
}

/**
 * A client of one of our servers: calls fail with what the handler failed with. A server that can't be reached is
 * `Unavailable` with its address as the target.
 */
export function makeBoundary<S extends DescService>(
  service: S,
  options: Options
): Effect.Effect<GrpcClient<S, BoundaryError>, never, Scope.Scope>
export function makeBoundary(service: DescService, options: Options): Effect.Effect<AnyClient, never, Scope.Scope> {
  return makeWith(service, options, toBoundaryError)
}
