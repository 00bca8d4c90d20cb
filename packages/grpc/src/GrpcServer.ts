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
import * as Grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
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
import { toStatus } from "./GrpcStatus.ts"
import * as Admission from "./internal/admission.ts"
import * as Instruments from "./internal/instruments.ts"
import * as Lingering from "./internal/lingering.ts"
import { BindError, type Certificates, listen, type Listener, type Open, type ServerTls } from "./internal/listen.ts"
import * as Pump from "./internal/pump.ts"
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

/** A connection that is silent for this long is probed, so that handlers of callers that vanished end. */
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

/** The calls of all four kinds, as far as they are alike. */
type Call =
  & Pick<Grpc.ServerUnaryCall<Buffer, Buffer>, "cancelled" | "metadata" | "getPeer" | "getDeadline" | "getAuthContext">
  & {
    readonly on: (event: "cancelled", listener: () => void) => unknown
  }

/** Starts the fiber of a call. */
type Run<R> = <A, E>(effect: Effect.Effect<A, E, R>) => Fiber.Fiber<A, E>

const identity = (bytes: Buffer): Buffer => bytes

const parentSpan = (call: Call): Option.Option<Tracer.ExternalSpan> => {
  const [value] = call.metadata.get(Wire.TRACEPARENT)
  return typeof value === "string" ? Wire.fromTraceparent(value) : Option.none()
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
  readonly handler: AnyHandler<R>
  readonly encode: (init: Init) => Buffer
  readonly decode: (bytes: Buffer) => Message
  readonly malformed: () => InvalidArgument
  readonly authorize: ((request: Message) => Effect.Effect<void, BoundaryError, R>) | undefined
  /** Counts a call that was ended before its handler ran. */
  readonly refuse: (code: Code) => void
  /** Runs the work of a call and tells how it ended, unless the caller is gone by then. */
  readonly serve: <A>(call: Call, work: Effect.Effect<A, HandlerError, R>, end: {
    readonly succeed: (value: A) => void
    readonly fail: (status: ReturnType<typeof toStatus>) => void
  }) => void
}

const goingAway = (path: string): Unavailable =>
  new Unavailable({ target: path, problem: "the server ended the call because it is going away; try again" })

/** How a call ended, as its caller reads it. */
const statusOf = (path: string, cause: Cause.Cause<HandlerError>): ReturnType<typeof toStatus> => {
  const failure = Cause.findError(cause)
  // what interrupts a handler whose caller still waits is the end of the server
  return toStatus(Result.isSuccess(failure) ? failure.success : goingAway(path))
}

/** A caller's deadline is told as a duration, so its clock runs out somewhat before the server's does. */
const DEADLINE_SKEW_MILLIS = 20

/** The code of a call whose caller did not wait for its end. */
const abandonedCode = (call: Call): Code =>
  Number(call.getDeadline()) <= Date.now() + DEADLINE_SKEW_MILLIS ? "DEADLINE_EXCEEDED" : "CANCELLED"

const makeMethod = <R>(
  method: DescMethod,
  service: GrpcService<R>,
  run: Run<R>,
  context: Context.Context<never>,
  admitted: Admission.Admitted,
  authorize: Options<ReadonlyArray<GrpcService<R>>, R>["authorize"]
): Method<R> | undefined => {
  const handler = service.handlers[method.localName]
  if (handler === undefined) return undefined
  const path = Wire.path(method)
  const instruments = Instruments.make("server", method)
  const spanOptions: Tracer.SpanOptions = {
    kind: "server",
    captureStackTrace: false,
    attributes: { "rpc.system": "grpc", "rpc.service": service.descriptor.typeName, "rpc.method": method.name }
  }
  const prepare = <A>(call: Call, work: Effect.Effect<A, HandlerError, R>): Effect.Effect<A, HandlerError, R> => {
    const known = Effect.provideContext(
      work,
      Context.make(GrpcMetadata, Admission.metadataOf(call.metadata)).pipe(
        Context.add(GrpcCaller, admitted.get(call.metadata) ?? anonymous),
        Context.add(GrpcPeerAddress, call.getPeer())
      )
    )
    const parent = parentSpan(call)
    return Effect.withSpan(
      hideDefects(known, path),
      path,
      Option.isNone(parent) ? spanOptions : { ...spanOptions, parent: parent.value }
    )
  }
  return {
    path,
    handler,
    encode: Wire.encoder(method.output),
    decode: Wire.decoder(method.input),
    malformed: () => new InvalidArgument({ field: "request", problem: `is no ${method.input.typeName}` }),
    authorize: authorize === undefined || service.access !== "authorized"
      ? undefined
      : (request) => authorize(method, request),
    refuse: (code) => instruments.end(instruments.begin(), code, context),
    serve: (call, work, end) => {
      const beganAt = instruments.begin()
      const fiber = run(prepare(call, work))
      call.on("cancelled", () => fiber.interruptUnsafe())
      fiber.addObserver((exit) => {
        if (call.cancelled) return instruments.end(beganAt, abandonedCode(call), context)
        if (Exit.isSuccess(exit)) {
          instruments.end(beganAt, "OK", context)
          return end.succeed(exit.value)
        }
        const status = statusOf(path, exit.cause)
        instruments.end(beganAt, codes[status.code] ?? "INTERNAL", context)
        end.fail(status)
      })
    }
  }
}

/** The one request of a call, when its caller may make it. */
const request = <R>(
  { authorize, decode, malformed }: Method<R>,
  call: { readonly request: Buffer }
): Effect.Effect<Message, BoundaryError, R> => {
  const decoded = Effect.try({ try: () => decode(call.request), catch: malformed })
  return authorize === undefined ? decoded : Effect.tap(decoded, authorize)
}

/** The stream of requests of a call. */
const requests = <R>(
  method: Method<R>,
  call: Grpc.ServerReadableStream<Buffer, Buffer> | Grpc.ServerDuplexStream<Buffer, Buffer>
): Stream.Stream<Message, BoundaryError> =>
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
  call: Grpc.ServerReadableStream<Buffer, Buffer> | Grpc.ServerDuplexStream<Buffer, Buffer>
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

const answer = <R>(
  method: Method<R>,
  call: Call,
  work: Effect.Effect<Init, HandlerError, R>,
  callback: Grpc.sendUnaryData<Buffer>
): void =>
  method.serve(call, Effect.map(work, method.encode), {
    succeed: (response) => callback(null, response),
    fail: callback
  })

const answerStream = <R>(
  method: Method<R>,
  call: Grpc.ServerWritableStream<Buffer, Buffer> | Grpc.ServerDuplexStream<Buffer, Buffer>,
  work: Stream.Stream<Init, HandlerError, R>
): void =>
  method.serve(call, Pump.write(work, call, method.encode), {
    succeed: () => call.end(),
    fail: (status) => call.emit("error", status)
  })

const register = <R>(server: Grpc.Server, kind: DescMethod["methodKind"], method: Method<R>): boolean => {
  const { path } = method
  switch (kind) {
    case "unary": {
      const handler: UnaryHandler<R> = method.handler
      const handle: Grpc.handleUnaryCall<Buffer, Buffer> = (call, callback) =>
        answer(method, call, Effect.flatMap(request(method, call), handler), callback)
      return server.register(path, handle, identity, identity, "unary")
    }
    case "server_streaming": {
      const handler: ServerStreamingHandler<R> = method.handler
      const handle: Grpc.handleServerStreamingCall<Buffer, Buffer> = (call) =>
        answerStream(method, call, Stream.unwrap(Effect.map(request(method, call), handler)))
      return server.register(path, handle, identity, identity, "serverStream")
    }
    case "client_streaming": {
      const handler: ClientStreamingHandler<R> = method.handler
      const handle: Grpc.handleClientStreamingCall<Buffer, Buffer> = (call, callback) =>
        answer(method, call, Effect.scoped(Effect.flatMap(authorized(method, call), handler)), callback)
      return server.register(path, handle, identity, identity, "clientStream")
    }
    case "bidi_streaming": {
      const handler: BidiStreamingHandler<R> = method.handler
      const handle: Grpc.handleBidiStreamingCall<Buffer, Buffer> = (call) =>
        answerStream(method, call, Stream.unwrap(Effect.map(authorized(method, call), handler)))
      return server.register(path, handle, identity, identity, "bidi")
    }
  }
}

/** Lets running calls end by themselves, then ends them with UNAVAILABLE, then cuts what is left. */
const drain = (
  server: Grpc.Server,
  listeners: ReadonlyArray<Open>,
  fibers: FiberSet.FiberSet,
  grace: Duration.Input
): Effect.Effect<void> =>
  Effect.gen(function*() {
    const shutdown = yield* Deferred.make<void>()
    server.tryShutdown(() => Deferred.doneUnsafe(shutdown, Effect.void))
    const closed = Effect.all([Deferred.await(shutdown), ...listeners.map(({ closed }) => closed)], {
      concurrency: "unbounded",
      discard: true
    })
    const drained = yield* closed.pipe(Effect.timeoutOption(grace))
    if (Option.isSome(drained)) return
    yield* FiberSet.clear(fibers)
    yield* closed.pipe(Effect.timeoutOption(DROP_GRACE))
    server.forceShutdown()
  })

const serve = Effect.fnUntraced(function*<R>(options: Options<ReadonlyArray<GrpcService<R>>, R>) {
  const maxMessageBytes = options.maxMessageBytes ?? MAX_MESSAGE_BYTES
  // channelz stays on, as it is by default: without it `forceShutdown` does not find the connections to cut
  const server = new Grpc.Server({
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    "grpc.max_concurrent_streams": MAX_CONCURRENT_CALLS,
    "grpc.keepalive_time_ms": KEEPALIVE_TIME_MILLIS,
    "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MILLIS,
    "grpc.max_connection_idle_ms": options.idleTimeoutMillis ?? IDLE_TIMEOUT_MILLIS
  })
  const context = yield* Effect.context<never>()
  const health = Context.getOption(context, GrpcHealth)
  // finalizers run last in, first out: health says no, socket files go, running calls drain, their fibers end
  const fibers = yield* FiberSet.make()
  const run = yield* FiberSet.runtime(fibers)<R>()
  const admitted: Admission.Admitted = new WeakMap()
  const methods = new Map<string, Method<R>>()
  const open = new Set<string>()
  for (const service of options.services) {
    for (const method of service.descriptor.methods) {
      const made = makeMethod(method, service, run, context, admitted, options.authorize)
      if (made === undefined) continue
      if (!register(server, method.methodKind, made)) {
        return yield* Effect.die(new Error(`${made.path} is served twice by one server`))
      }
      methods.set(made.path, made)
      if (service.access === "open") open.add(made.path)
    }
  }
  const { authenticate } = options
  const interceptorOf = ({ _tag }: Listener): Grpc.ServerInterceptor | undefined =>
    // whoever may open a unix socket is trusted not to be slow
    _tag === "Unix" && authenticate === undefined ? undefined : Admission.interceptor({
      transport: _tag === "Unix" ? "unix" : "tcp",
      authenticate: authenticate === undefined
        ? undefined
        : (path, metadata, peer) => run(hideDefects(Effect.suspend(() => authenticate(metadata, peer)), path)),
      isOpen: (path) => open.has(path),
      requestTimeoutMillis: options.requestTimeoutMillis ?? REQUEST_TIMEOUT_MILLIS,
      admitted,
      refused: (path, { code }) => methods.get(path)?.refuse(codes[code] ?? "INTERNAL")
    })
  yield* Lingering.end
  const opened: Array<Open> = []
  yield* Effect.addFinalizer(() => drain(server, opened, fibers, options.grace ?? DRAIN_GRACE))
  for (const listener of options.listeners) {
    opened.push(yield* listen(server, listener, interceptorOf(listener)))
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
