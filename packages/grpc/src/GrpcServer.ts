/**
 * Serves gRPC services whose handlers are Effects and Streams.
 *
 * A handler fails with a failure that crosses a boundary; a {@link GrpcClient.makeBoundary} client fails with the same.
 * A defect becomes INTERNAL with a reference that also stands in the log, never with its text. When the caller cancels,
 * goes away or its deadline passes, the handler's fiber is interrupted. When the scope closes, the server takes no new
 * calls, gives those that run a grace period, then ends them with UNAVAILABLE.
 */
import type { DescMethod, Message } from "@bufbuild/protobuf"
import { type BoundaryError, Cancelled, Internal, InvalidArgument, Unavailable } from "@fast-sandbox/core/Errors"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type * as Tracer from "effect/Tracer"
import { randomUUID } from "node:crypto"
import {
  anonymous,
  type Caller,
  GrpcCaller,
  GrpcMetadata,
  GrpcPeerAddress,
  type Metadata,
  type Peer
} from "./GrpcCaller.ts"
import { MAX_MESSAGE_BYTES } from "./GrpcClient.ts"
import { type Code, codes, type HandlerError } from "./GrpcError.ts"
import { GrpcHealth, SERVER } from "./GrpcHealth.ts"
import type {
  AnyHandler,
  BidiStreamingHandler,
  ClientStreamingHandler,
  GrpcService,
  Init,
  Requests,
  ServerStreamingHandler,
  UnaryHandler
} from "./GrpcService.ts"
import { type ServerStatus, toStatus } from "./GrpcStatus.ts"
import { codeNumbers } from "./internal/channel.ts"
import { keepAlive } from "./internal/http2Connection.ts"
import { Http2ServerConnection } from "./internal/http2ServerConnection.ts"
import * as Instruments from "./internal/instruments.ts"
import {
  BindError,
  type Certificates,
  listen,
  type Listener,
  type Open,
  type Ready,
  type ServerTls
} from "./internal/listen.ts"
import * as Pump from "./internal/pump.ts"
import { onlyMessage, ServerCall } from "./internal/serverCall.ts"
import * as Wire from "./internal/wire.ts"

export { BindError, type Certificates, type Listener, type ServerTls }

/** Mode of a unix socket's file: its owner only. */
export const UNIX_SOCKET_MODE = 0o600

/** How long running calls may go on when the server ends. Far below a Pod's usual termination grace period (30 s). */
export const DRAIN_GRACE: Duration.Input = "5 seconds"

/** After the grace period, the time for the last statuses to reach their callers before connections are cut. */
export const DROP_GRACE: Duration.Input = "500 millis"

/** Calls that one connection may have open at once. Streams that only watch count too. */
export const MAX_CONCURRENT_CALLS = 4096

/** How often a connection with calls is probed, so that handlers of callers that vanished end. */
export const KEEPALIVE_TIME_MILLIS = 30_000

/** A probe that stays without an answer for this long means that the caller vanished. */
export const KEEPALIVE_TIMEOUT_MILLIS = 10_000

/** A connection without a call for this long is closed; gRPC clients connect anew with their next call. */
export const IDLE_TIMEOUT_MILLIS = 5 * 60_000

/**
 * A request that is no stream has to be complete this long after its headers: enough for the largest message over a slow
 * line, too little for who sends a byte a minute.
 */
export const REQUEST_TIMEOUT_MILLIS = 30_000

/** A TCP listener; port 0 takes a free one. */
export const tcp = (host: string, port: number, options?: { readonly tls?: ServerTls | undefined }): Listener => ({
  _tag: "Tcp",
  host,
  port,
  tls: options?.tls
})

/**
 * A unix socket. Its folder must exist. What a killed server left in its place is removed, unless something listens
 * there.
 */
export const unix = (path: string, options?: { readonly mode?: number | undefined }): Listener => ({
  _tag: "Unix",
  path,
  mode: options?.mode ?? UNIX_SOCKET_MODE
})

/** A server that listens. */
export class GrpcServer extends Context.Service<GrpcServer, {
  /** One address for each listener, in their order and as a client takes it: `unix:/path` or `host:port`. */
  readonly addresses: ReadonlyArray<string>
}>()("@fast-sandbox/grpc/GrpcServer") {}

/** What a server serves, where, and to whom; `R` is what the handlers need. */
export interface Options<Services extends ReadonlyArray<GrpcService<unknown>>, R> {
  readonly services: Services
  readonly listeners: readonly [Listener, ...ReadonlyArray<Listener>]
  /**
   * Finds out who makes a call, before its body is read; without it everybody is {@link GrpcCaller}'s anonymous caller.
   * Not asked for services that are open to all.
   */
  readonly authenticate?: ((metadata: Metadata, peer: Peer) => Effect.Effect<Caller, BoundaryError, R>) | undefined
  /**
   * Decides whether {@link GrpcCaller} may make this call, before its handler runs: by its request, or by the first one
   * of a stream, for which the handler waits. Asked for services that are for authorized callers only.
   */
  readonly authorize?: ((method: DescMethod, request: Message) => Effect.Effect<void, BoundaryError, R>) | undefined
  /** {@link REQUEST_TIMEOUT_MILLIS} by default. */
  readonly requestTimeoutMillis?: number | undefined
  /** {@link IDLE_TIMEOUT_MILLIS} by default. */
  readonly idleTimeoutMillis?: number | undefined
  /** How long running calls may go on when the server ends; {@link DRAIN_GRACE} by default. */
  readonly grace?: Duration.Input | undefined
  /** Largest message that is accepted or sent, in bytes; {@link MAX_MESSAGE_BYTES} by default. */
  readonly maxMessageBytes?: number | undefined
}

type ServicesOf<Services extends ReadonlyArray<GrpcService<unknown>>> = Services[number] extends GrpcService<infer R> ?
  R
  : never

/** Starts the fiber of a call. */
type Run<R> = <A, E>(effect: Effect.Effect<A, E, R>) => Fiber.Fiber<A, E>

const parentSpan = ({ metadata }: ServerCall): Option.Option<Tracer.ExternalSpan> => {
  const value = metadata.get(Wire.TRACEPARENT)
  return value === undefined ? Option.none() : Wire.fromTraceparent(value)
}

/** A defect never reaches the peer: it reads a reference to what the log holds. */
const hideDefects = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  method: string
): Effect.Effect<A, E | Internal, R> =>
  Effect.catchCause(self, (cause): Effect.Effect<never, E | Internal> => {
    if (!Cause.hasDies(cause)) return Effect.failCause(cause)
    const reference = randomUUID()
    return Effect.logError("a handler failed with a defect", cause).pipe(
      Effect.annotateLogs({ method, reference }),
      Effect.andThen(Effect.fail(
        new Internal({ problem: `a fault of the server; its log has the cause under the reference ${reference}` })
      ))
    )
  })

/** Serves the calls of one method. */
interface Method<R> {
  readonly path: string
  readonly encode: (init: Init) => Buffer
  readonly decode: (bytes: Buffer) => Message
  readonly malformed: () => InvalidArgument
  readonly authorize: ((request: Message) => Effect.Effect<void, BoundaryError, R>) | undefined
  /** Runs the work of a call and tells how it ended, unless the call is over by then. */
  readonly serve: <A>(call: ServerCall, work: Effect.Effect<A, HandlerError, R>, succeed: (value: A) => void) => void
}

const goingAway = (path: string): Unavailable =>
  new Unavailable({ target: path, problem: "the server ended the call because it is going away; try again" })

/** How a call ended, as its caller reads it. */
const statusOf = (path: string, cause: Cause.Cause<HandlerError>): ServerStatus => {
  const failure = Cause.findError(cause)
  // what interrupts a handler whose caller still waits is the end of the server
  return toStatus(Result.isSuccess(failure) ? failure.success : goingAway(path))
}

/** A caller's deadline is told as a duration, so its clock runs out somewhat before the server's does. */
const DEADLINE_SKEW_MILLIS = 20

/** The code of a call that ended before its handler did. */
const codeOfEnd = ({ deadline = Infinity }: ServerCall, endedWith: number): Code =>
  endedWith === codeNumbers.cancelled && deadline <= Date.now() + DEADLINE_SKEW_MILLIS
    ? "DEADLINE_EXCEEDED"
    : codes[endedWith] ?? "INTERNAL"

const makeMethod = <R>(
  method: DescMethod,
  service: GrpcService<R>,
  run: Run<R>,
  context: Context.Context<never>,
  { authenticate, authorize }: Pick<Options<ReadonlyArray<GrpcService<R>>, R>, "authenticate" | "authorize">
): Method<R> => {
  const path = Wire.path(method)
  const instruments = Instruments.make("server", method)
  const spanOptions: Tracer.SpanOptions = {
    kind: "server",
    captureStackTrace: false,
    attributes: { "rpc.system": "grpc", "rpc.service": service.descriptor.typeName, "rpc.method": method.name }
  }
  const work = <A>(
    call: ServerCall,
    caller: Caller,
    self: Effect.Effect<A, HandlerError, R>
  ): Effect.Effect<A, HandlerError, R> => {
    const parent = parentSpan(call)
    return Effect.withSpan(
      Effect.provideContext(
        hideDefects(self, path),
        Context.make(GrpcMetadata, call.metadata).pipe(
          Context.add(GrpcCaller, caller),
          Context.add(GrpcPeerAddress, call.peer.address)
        )
      ),
      path,
      Option.isNone(parent) ? spanOptions : { ...spanOptions, parent: parent.value }
    )
  }
  /** Nothing of a call but its headers is looked at before it is known who makes it. */
  const admitted = <A>(
    call: ServerCall,
    self: Effect.Effect<A, HandlerError, R>
  ): Effect.Effect<A, HandlerError, R> => {
    if (authenticate === undefined || service.access === "open") return work(call, anonymous, self)
    return Effect.flatMap(
      hideDefects(Effect.suspend(() => authenticate(call.metadata, call.peer)), path),
      (caller) => work(call, caller, self)
    )
  }
  return {
    path,
    encode: Wire.encoder(method.output),
    decode: Wire.decoder(method.input),
    malformed: () => new InvalidArgument({ field: "request", problem: `is no ${method.input.typeName}` }),
    authorize: authorize === undefined || service.access !== "authorized"
      ? undefined
      : (request) => authorize(method, request),
    serve: (call, self, succeed) => {
      const beganAt = instruments.begin()
      const fiber = run(admitted(call, self))
      call.onLeft(() => fiber.interruptUnsafe())
      fiber.addObserver((exit) => {
        const { endedWith } = call
        if (endedWith !== undefined) return instruments.end(beganAt, codeOfEnd(call, endedWith), context)
        if (Exit.isSuccess(exit)) {
          instruments.end(beganAt, "OK", context)
          return succeed(exit.value)
        }
        const status = statusOf(path, exit.cause)
        instruments.end(beganAt, codes[status.code] ?? "INTERNAL", context)
        call.end(status)
      })
    }
  }
}

/** The one request of a call, when its caller may make it. */
const request = <R>(
  { authorize, decode, malformed }: Method<R>,
  call: ServerCall
): Effect.Effect<Message, BoundaryError, R> => {
  const decoded = Effect.flatMap(
    onlyMessage(call),
    (bytes) => Effect.try({ try: () => decode(bytes), catch: malformed })
  )
  return authorize === undefined ? decoded : Effect.tap(decoded, authorize)
}

/** The stream of requests of a call. */
const requests = <R>(method: Method<R>, call: ServerCall): Stream.Stream<Message, BoundaryError> =>
  Pump.read<Buffer, Message, BoundaryError>(call, {
    decode: method.decode,
    malformed: method.malformed,
    atEnd: Effect.suspend(() =>
      call.readableEnded ? Effect.void : Effect.fail(new Cancelled({ operation: method.path }))
    )
  })

/** The stream of requests of a call, once its first one says that its caller may make it. */
const authorized = <R>(
  method: Method<R>,
  call: ServerCall
): Effect.Effect<Requests, BoundaryError, R | Scope.Scope> => {
  const { authorize } = method
  if (authorize === undefined) return Effect.succeed(requests(method, call))
  return Effect.gen(function*() {
    const [first, rest] = yield* Stream.peel(requests(method, call), Sink.head())
    if (Option.isNone(first)) {
      return yield* new InvalidArgument({ field: "request", problem: "the stream is empty" })
    }
    yield* authorize(first.value)
    return Stream.prepend(rest, [first.value])
  })
}

const answer = <R>(method: Method<R>, call: ServerCall, work: Effect.Effect<Init, HandlerError, R>): void =>
  method.serve(call, Effect.map(work, method.encode), (response) => call.answer(response))

const answerStream = <R>(method: Method<R>, call: ServerCall, work: Stream.Stream<Init, HandlerError, R>): void =>
  method.serve(call, Pump.write(work, call, method.encode), () => call.finish())

/** Serves one call. */
type Serve = (call: ServerCall) => void

const serveMethod = <R>(
  kind: DescMethod["methodKind"],
  method: Method<R>,
  handlerOfAny: AnyHandler<R>,
  requestTimeoutMillis: number
): Serve => {
  switch (kind) {
    case "unary": {
      const handler: UnaryHandler<R> = handlerOfAny
      return (call) => {
        call.limitRequest(requestTimeoutMillis)
        answer(method, call, Effect.flatMap(request(method, call), handler))
      }
    }
    case "server_streaming": {
      const handler: ServerStreamingHandler<R> = handlerOfAny
      return (call) => {
        call.limitRequest(requestTimeoutMillis)
        answerStream(method, call, Stream.unwrap(Effect.map(request(method, call), handler)))
      }
    }
    case "client_streaming": {
      const handler: ClientStreamingHandler<R> = handlerOfAny
      return (call) => answer(method, call, Effect.scoped(Effect.flatMap(authorized(method, call), handler)))
    }
    case "bidi_streaming": {
      const handler: BidiStreamingHandler<R> = handlerOfAny
      return (call) => answerStream(method, call, Stream.unwrap(Effect.map(authorized(method, call), handler)))
    }
  }
}

const unknownMethod: Serve = (call) =>
  call.end({ code: codeNumbers.unimplemented, details: `there is no method ${call.path} here` })

/** Lets running calls end by themselves, then ends them with UNAVAILABLE, then cuts what is left. */
const drain = (
  connections: ReadonlySet<Http2ServerConnection>,
  listeners: ReadonlyArray<Open>,
  fibers: FiberSet.FiberSet,
  grace: Duration.Input
): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (const connection of connections) connection.leave()
    const closed = Effect.forEach(listeners, ({ closed }) => closed, { concurrency: "unbounded", discard: true })
    const drained = yield* closed.pipe(Effect.timeoutOption(grace))
    if (Option.isSome(drained)) return
    yield* FiberSet.clear(fibers)
    yield* closed.pipe(Effect.timeoutOption(DROP_GRACE))
    for (const connection of connections) connection.destroy("the server has ended")
  })

const serve = Effect.fnUntraced(function*<R>(options: Options<ReadonlyArray<GrpcService<R>>, R>) {
  const context = yield* Effect.context<never>()
  const health = Context.getOption(context, GrpcHealth)
  // finalizers run last in, first out: health says no, socket files go, running calls drain, their fibers end
  const fibers = yield* FiberSet.make()
  const run = yield* FiberSet.runtime(fibers)<R>()
  const methods = new Map<string, Serve>()
  for (const service of options.services) {
    for (const descriptor of service.descriptor.methods) {
      const handler = service.handlers[descriptor.localName]
      if (handler === undefined) continue
      const method = makeMethod(descriptor, service, run, context, options)
      if (methods.has(method.path)) {
        return yield* Effect.die(new Error(`${method.path} is served twice by one server`))
      }
      methods.set(
        method.path,
        serveMethod(
          descriptor.methodKind,
          method,
          handler,
          options.requestTimeoutMillis ?? REQUEST_TIMEOUT_MILLIS
        )
      )
    }
  }
  const connections = new Set<Http2ServerConnection>()
  const take: Ready = (socket, peer) => {
    const calls = {
      peer,
      maxMessageBytes: options.maxMessageBytes ?? MAX_MESSAGE_BYTES,
      serve: (call: ServerCall) => (methods.get(call.path) ?? unknownMethod)(call)
    }
    const connection = new Http2ServerConnection(socket, {
      maxStreams: MAX_CONCURRENT_CALLS,
      idleMillis: options.idleTimeoutMillis ?? IDLE_TIMEOUT_MILLIS,
      onRequest: (headers) => new ServerCall(headers, calls),
      onClose: () => {
        connections.delete(connection)
        clearInterval(probe)
      }
    })
    const probe = keepAlive(connection, {
      everyMillis: KEEPALIVE_TIME_MILLIS,
      timeoutMillis: KEEPALIVE_TIMEOUT_MILLIS,
      problem: "the client does not answer"
    })
    connections.add(connection)
  }
  const opened: Array<Open> = []
  yield* Effect.addFinalizer(() => drain(connections, opened, fibers, options.grace ?? DRAIN_GRACE))
  for (const listener of options.listeners) {
    opened.push(yield* listen(listener, take))
  }
  if (Option.isSome(health)) {
    yield* health.value.setInitial([SERVER, ...options.services.map((service) => service.descriptor)], "SERVING")
    yield* Effect.addFinalizer(() => health.value.setAllNotServing)
  }
  return GrpcServer.of({ addresses: opened.map(({ address }) => address) })
})

/** Serves until the scope closes. */
export function layer<const Services extends ReadonlyArray<GrpcService<unknown>>, R = never>(
  options: Options<Services, R>
): Layer.Layer<GrpcServer, BindError, R | ServicesOf<Services>>
export function layer<R>(options: Options<ReadonlyArray<GrpcService<R>>, R>): Layer.Layer<GrpcServer, BindError, R> {
  return Layer.effect(GrpcServer, serve(options))
}
