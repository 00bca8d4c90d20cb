/** A server and its client for the tests: each handler does what its request's text or number says. */
import * as Errors from "@fast-sandbox/core/Errors"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import { GrpcCaller, GrpcMetadata } from "@fast-sandbox/grpc/GrpcCaller"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import { GrpcError } from "@fast-sandbox/grpc/GrpcError"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import { Context, Deferred, Duration, Effect, Layer, Ref, Schedule, Stream } from "effect"

/** What the handlers did, and what they wait for. */
export class Probe extends Context.Service<Probe, {
  readonly started: Deferred.Deferred<void>
  readonly interrupted: Deferred.Deferred<void>
  readonly produced: Ref.Ref<number>
  readonly release: Deferred.Deferred<void>
}>()("test/Probe") {
  static readonly layer = Layer.effect(
    Probe,
    Effect.gen(function*() {
      return Probe.of({
        started: yield* Deferred.make<void>(),
        interrupted: yield* Deferred.make<void>(),
        produced: yield* Ref.make(0),
        release: yield* Deferred.make<void>()
      })
    })
  )
}

/** One failure of each class, by its tag. */
export const failures: Readonly<Record<string, Errors.BoundaryError>> = Object.fromEntries(
  [
    new Errors.InvalidArgument({ field: "text", problem: "wrong" }),
    new Errors.NotFound({ kind: "sandbox", name: "a", hint: "list them" }),
    new Errors.AlreadyExists({ kind: "sandbox", name: "a" }),
    new Errors.ResourceExhausted({ resource: "slots", problem: "3 of 3 are used", retryAfterMillis: 1500 }),
    new Errors.FailedPrecondition({ reason: "StaleInstance", problem: "100% stale\nand ünïcode" }),
    new Errors.Unauthenticated({ problem: "no token" }),
    new Errors.PermissionDenied({ problem: "not yours" }),
    new Errors.DeadlineExceeded({ operation: "create" }),
    new Errors.Unavailable({ target: "agent-1", problem: "draining" }),
    new Errors.Cancelled({ operation: "create" }),
    new Errors.Internal({ problem: "see the log" })
  ].map((error) => [error._tag, error])
)

/** Tells the probe that it runs, then never ends. */
const hang = Effect.gen(function*() {
  const probe = yield* Probe
  yield* Deferred.succeed(probe.started, undefined)
  return yield* Effect.never.pipe(Effect.onInterrupt(() => Deferred.succeed(probe.interrupted, undefined)))
})

export const SECRET = "the text of a defect"

export const echo = GrpcService.make(EchoService, {
  echo: Effect.fnUntraced(function*({ number, payload, text }) {
    const failure = failures[text]
    if (failure !== undefined) return yield* failure
    switch (text) {
      case "hang":
        return yield* hang
      case "defect":
        return yield* Effect.die(new Error(SECRET))
      case "throw":
        throw new Error(SECRET)
      case "unencodable":
        return { number: Number.NaN }
      case "foreign":
        return yield* new GrpcError({ method: "", target: "", code: "ABORTED", details: "as it is", info: [] })
      case "unknown":
        return yield* new GrpcError({ method: "", target: "", code: "UNKNOWN", details: "what is it", info: [] })
      case "trace":
        return { text: (yield* Effect.orDie(Effect.currentSpan)).traceId }
      case "caller":
        return { text: (yield* GrpcCaller).name }
      case "wait": {
        const probe = yield* Probe
        yield* Deferred.succeed(probe.started, undefined)
        yield* Deferred.await(probe.release)
        return { text: "released" }
      }
      case "large":
        return { payload: new Uint8Array(number) }
    }
    const header = (yield* GrpcMetadata).get(text)
    return { text: header ?? text, number, payload }
  }),
  count: ({ payloadSize, to }) =>
    to < 0
      ? Stream.concat(Stream.range(1, -to).pipe(Stream.map((number) => ({ number }))), Stream.fail(failures.NotFound))
        .pipe(Stream.catch((error) => error === undefined ? Stream.empty : Stream.fail(error)))
      : to === 0
      ? Stream.fromEffect(hang)
      : Stream.unwrap(Effect.map(Probe, (probe) =>
        Stream.range(1, to).pipe(
          Stream.rechunk(1),
          Stream.tap(() => Ref.update(probe.produced, (n) => n + 1)),
          Stream.map((number) => ({ number, payload: new Uint8Array(payloadSize) })),
          Stream.ensuring(Deferred.succeed(probe.interrupted, undefined))
        ))),
  sum: (requests) =>
    Stream.runFoldEffect(
      requests,
      () => 0,
      Effect.fnUntraced(function*(sum, { number, text }) {
        if (text === "hang") return yield* hang
        if (text === "wait") yield* Probe.use((probe) => Deferred.await(probe.release))
        if (text === "refuse") {
          return yield* new Errors.FailedPrecondition({ reason: "Refused", problem: "no more, please" })
        }
        return sum + number
      })
    ).pipe(Effect.map((number) => ({ number }))),
  chat: (requests) =>
    Stream.mapEffect(requests, ({ text }) =>
      text === "hang"
        ? hang
        : text === "refuse"
        ? Effect.fail(new Errors.FailedPrecondition({ reason: "Refused", problem: "no more, please" }))
        : Effect.succeed({ text: text.toUpperCase() }))
})

type ServerOptions = Omit<GrpcServer.Options<readonly [typeof echo], never>, "services" | "listeners">

export const layer = (options?: ServerOptions) =>
  GrpcServer.layer({ ...options, services: [echo], listeners: [GrpcServer.tcp("127.0.0.1", 0)] }).pipe(
    Layer.provideMerge(Probe.layer)
  )

export const address = Effect.map(GrpcServer.GrpcServer, ({ addresses: [address = ""] }) => address)

export const connect = (options?: Omit<GrpcClient.Options, "address">) =>
  Effect.flatMap(address, (address) => GrpcClient.makeBoundary(EchoService, { ...options, address }))

const POLL_MILLIS = 20

/** Waits until a number has stayed the same for five polls; fails the test after five seconds. */
export const settled = (value: Effect.Effect<number>): Effect.Effect<number> =>
  Effect.gen(function*() {
    const seen: Array<number> = []
    yield* Effect.sync(() => seen.slice(-5)).pipe(
      Effect.tap(() => Effect.map(value, (now) => seen.push(now))),
      Effect.repeat({
        schedule: Schedule.spaced(Duration.millis(POLL_MILLIS)),
        until: (last) => last.length === 5 && new Set(last).size === 1 && last[0] !== 0
      }),
      Effect.timeout("5 seconds"),
      Effect.orDie
    )
    return seen.at(-1) ?? 0
  })

/** Awaits something that must come soon. */
export const soon = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.timeoutOrElse(self, {
    duration: "3 seconds",
    orElse: () => Effect.die(new Error("it did not come within 3 seconds"))
  })
