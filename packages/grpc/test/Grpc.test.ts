import { assert, describe, it } from "@effect/vitest"
import { BoundaryError, Internal } from "@fast-sandbox/core/Errors"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import { Client, credentials, status as Status } from "@grpc/grpc-js"
import { Deferred, Effect, Fiber, Layer, Logger, Metric, Ref, Schema, Stream } from "effect"
import { PrometheusMetrics } from "effect/observability"
import * as Echo from "./Echo.ts"

const encode = Schema.encodeSync(BoundaryError)

const same = (bytes: Buffer): Buffer => bytes

describe("kinds of methods", () => {
  it.live("unary", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const { number, payload, text } = yield* api.echo({ text: "a", number: 7, payload: new Uint8Array([1, 2]) })
      assert.deepStrictEqual([text, number, [...payload]], ["a", 7, [1, 2]])
    }).pipe(Effect.provide(Echo.layer())))

  it.live("server streaming, in order and whole", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const counted = yield* Stream.runCollect(api.count({ to: 1000 }))
      assert.deepStrictEqual(counted.map(({ number }) => number), Array.from({ length: 1000 }, (_, i) => i + 1))
    }).pipe(Effect.provide(Echo.layer())))

  it.live("client streaming", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const requests = Stream.range(1, 1000).pipe(Stream.map((number) => ({ number })))
      assert.strictEqual((yield* api.sum(requests)).number, 500_500)
      assert.strictEqual((yield* api.sum(Stream.empty)).number, 0)
    }).pipe(Effect.provide(Echo.layer())), 20_000)

  it.live("bidirectional, one answer before the next question", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const answers = yield* Ref.make<ReadonlyArray<string>>([])
      const heard = yield* Deferred.make<void>()
      const questions = Stream.concat(
        Stream.make({ text: "a" }),
        Stream.fromEffect(Effect.as(Deferred.await(heard), { text: "b" }))
      )
      yield* api.chat(questions).pipe(
        Stream.runForEach(({ text }) =>
          Ref.update(answers, (all) => [...all, text]).pipe(Effect.andThen(Deferred.succeed(heard, undefined)))
        ),
        Echo.soon
      )
      assert.deepStrictEqual(yield* Ref.get(answers), ["A", "B"])
    }).pipe(Effect.provide(Echo.layer())))
})

describe("failures", () => {
  for (const [tag, failure] of Object.entries(Echo.failures)) {
    it.live(`the caller fails with the handler's ${tag}`, () =>
      Effect.gen(function*() {
        const api = yield* Echo.connect()
        const error = yield* Effect.flip(api.echo({ text: tag }))
        assert.strictEqual(error.constructor, failure.constructor)
        assert.deepStrictEqual(encode(error), encode(failure))
      }).pipe(Effect.provide(Echo.layer())))
  }

  it.live("a raw client sees code and details", () =>
    Effect.gen(function*() {
      const api = yield* GrpcClient.make(EchoService, { address: yield* Echo.address })
      const error = yield* Effect.flip(api.echo({ text: "InvalidArgument" }))
      assert.deepInclude({ ...error }, {
        _tag: "GrpcError",
        method: "/test.v1.EchoService/Echo",
        target: yield* Echo.address,
        code: "INVALID_ARGUMENT",
        details: "text: wrong",
        info: [{ _tag: "BadRequest", field: "text", description: "wrong" }]
      })
      assert.strictEqual((yield* Effect.flip(api.echo({ text: "foreign" }))).code, "ABORTED")
      assert.strictEqual((yield* Effect.flip(api.echo({ text: "unknown" }))).code, "INTERNAL")
    }).pipe(Effect.provide(Echo.layer())))

  it.live("what came before the failure of a stream is delivered", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const seen = yield* Ref.make(0)
      const error = yield* api.count({ to: -40 }).pipe(
        Stream.runForEach(({ number }) => Ref.set(seen, number)),
        Effect.flip
      )
      assert.strictEqual(error._tag, "NotFound")
      assert.strictEqual(yield* Ref.get(seen), 40)
    }).pipe(Effect.provide(Echo.layer())))

  for (const text of ["defect", "throw", "unencodable"]) {
    it.live(`a handler's ${text} is INTERNAL with a reference to the log`, () =>
      Effect.gen(function*() {
        const lines: Array<string> = []
        const logger = Logger.map(Logger.formatLogFmt, (line) => {
          lines.push(line)
        })
        yield* Effect.gen(function*() {
          const api = yield* Echo.connect()
          const error = yield* Effect.flip(api.echo({ text }))
          assert.instanceOf(error, Internal)
          assert.notInclude(error.message, Echo.SECRET)
          const [reference = "none"] = /[0-9a-f-]{36}/.exec(error.message) ?? []
          const line = lines.find((line) => line.includes(reference))
          assert.include(line, text === "unencodable" ? "int32" : Echo.SECRET)
        }).pipe(Effect.provide(Layer.provideMerge(Echo.layer(), Logger.layer([logger]))))
      }))
  }

  it.live("a request that is no message is INVALID_ARGUMENT", () =>
    Effect.gen(function*() {
      const address = yield* Echo.address
      const code = yield* Effect.callback<number | undefined>((resume) => {
        const raw = new Client(address, credentials.createInsecure())
        raw.makeUnaryRequest("/test.v1.EchoService/Echo", same, same, Buffer.from([0xff]), (error) => {
          raw.close()
          resume(Effect.succeed(error?.code))
        })
      })
      assert.strictEqual(code, Status.INVALID_ARGUMENT)
    }).pipe(Effect.provide(Echo.layer())))

  it.live("a server that is not there is Unavailable, with its address", () =>
    Effect.gen(function*() {
      for (const address of ["127.0.0.1:1", "unix:/nonexistent/fsb.sock"]) {
        const api = yield* GrpcClient.makeBoundary(EchoService, { address })
        const error = yield* Effect.flip(api.echo({ text: "a" }))
        assert.strictEqual(error._tag === "Unavailable" && error.target, address)
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(api.count({ to: 1 }))))._tag, "Unavailable")
        assert.strictEqual((yield* Effect.flip(api.sum(Stream.never)))._tag, "Unavailable")
        assert.strictEqual((yield* Effect.flip(Stream.runDrain(api.chat(Stream.never))))._tag, "Unavailable")
      }
    }))

  it.live("messages over the limit are refused in both directions", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const large = yield* Effect.flip(api.echo({ payload: new Uint8Array(2000) }))
      assert.strictEqual(large._tag, "ResourceExhausted")
      assert.strictEqual((yield* Effect.flip(api.echo({ text: "large", number: 2000 })))._tag, "ResourceExhausted")
      const small = yield* Echo.connect({ maxMessageBytes: 100 })
      assert.strictEqual((yield* Effect.flip(small.echo({ text: "large", number: 200 })))._tag, "ResourceExhausted")
      assert.strictEqual((yield* Effect.flip(small.echo({ payload: new Uint8Array(200) })))._tag, "ResourceExhausted")
      assert.strictEqual((yield* small.echo({ text: "fits" })).text, "fits")
    }).pipe(Effect.provide(Echo.layer({ maxMessageBytes: 1000 }))))
})

describe("the end of a call", () => {
  it.live("a deadline fails the call and interrupts the handler", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      // Long enough for the request to have arrived, also on a busy machine.
      const error = yield* Effect.flip(api.echo({ text: "hang" }, { deadline: "1 second" }))
      assert.strictEqual(error._tag, "DeadlineExceeded")
      yield* Echo.soon(Probed.interrupted)
      const streamed = yield* Effect.flip(Stream.runDrain(api.count({ to: 0 }, { deadline: "50 millis" })))
      assert.strictEqual(streamed._tag, "DeadlineExceeded")
    }).pipe(Effect.provide(Echo.layer())))

  it.live("a timeout of a unary call interrupts the handler", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const result = yield* api.echo({ text: "hang" }).pipe(Effect.timeoutOption("100 millis"))
      assert.strictEqual(result._tag, "None")
      yield* Echo.soon(Probed.interrupted)
    }).pipe(Effect.provide(Echo.layer())))

  it.live("leaving a server stream interrupts the handler", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const first = yield* api.count({ to: 1_000_000, payloadSize: 1000 }).pipe(Stream.take(3), Stream.runCollect)
      assert.deepStrictEqual(first.map(({ number }) => number), [1, 2, 3])
      yield* Echo.soon(Probed.interrupted)
    }).pipe(Effect.provide(Echo.layer())))

  it.live("interrupting a client stream interrupts handler and requests", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const left = yield* Deferred.make<void>()
      const requests = Stream.concat(Stream.make({ text: "hang" }), Stream.never).pipe(
        Stream.ensuring(Deferred.succeed(left, undefined))
      )
      const fiber = yield* Effect.forkChild(api.sum(requests))
      yield* Echo.soon(Probed.started)
      yield* Fiber.interrupt(fiber)
      yield* Echo.soon(Deferred.await(left))
      yield* Echo.soon(Probed.interrupted)
    }).pipe(Effect.provide(Echo.layer())))

  it.live("leaving a bidirectional stream interrupts handler and requests", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const left = yield* Deferred.make<void>()
      const requests = Stream.concat(Stream.make({ text: "a" }, { text: "hang" }), Stream.never).pipe(
        Stream.ensuring(Deferred.succeed(left, undefined))
      )
      yield* api.chat(requests).pipe(Stream.tap(() => Probed.started), Stream.take(1), Stream.runDrain, Echo.soon)
      yield* Echo.soon(Deferred.await(left))
      yield* Echo.soon(Probed.interrupted)
    }).pipe(Effect.provide(Echo.layer())))

  it.live("a handler that fails early ends the requests", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const calls = [
        (requests: Stream.Stream<{ readonly text: string }>) => Effect.asVoid(api.sum(requests)),
        (requests: Stream.Stream<{ readonly text: string }>) => Stream.runDrain(api.chat(requests))
      ]
      for (const call of calls) {
        const left = yield* Deferred.make<void>()
        const requests = Stream.concat(Stream.make({ text: "refuse" }), Stream.never).pipe(
          Stream.ensuring(Deferred.succeed(left, undefined))
        )
        const error = yield* Echo.soon(Effect.flip(call(requests)))
        assert.strictEqual(error._tag === "FailedPrecondition" && error.reason, "Refused")
        yield* Echo.soon(Deferred.await(left))
      }
    }).pipe(Effect.provide(Echo.layer())))

  it.live("requests that fail, fail the call and interrupt the handler", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const broken = Stream.concat(
        Stream.make({ text: "hang" }),
        Stream.fromEffect(Effect.andThen(Probed.started, Effect.fail("mine" as const)))
      )
      assert.strictEqual(yield* Echo.soon(Effect.flip(api.sum(broken))), "mine")
      yield* Echo.soon(Probed.interrupted)
    }).pipe(Effect.provide(Echo.layer())))

  it.live("requests that fail, fail a bidirectional stream and interrupt the handler", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const broken = Stream.concat(
        Stream.make({ text: "hang" }),
        Stream.fromEffect(Effect.andThen(Probed.started, Effect.fail("mine" as const)))
      )
      assert.strictEqual(yield* Echo.soon(Effect.flip(Stream.runDrain(api.chat(broken)))), "mine")
      yield* Echo.soon(Probed.interrupted)
    }).pipe(Effect.provide(Echo.layer())))
})

describe("back-pressure", () => {
  /** What buffers between the two ends may hold of 16 KiB messages: two Node streams of 16, windows and sockets. */
  const MOST_IN_FLIGHT = 500
  const PAYLOAD_BYTES = 16 * 1024
  const MESSAGES = 3000

  it.live("a slow reader bounds the handler's stream", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const { produced } = yield* Echo.Probe
      const gate = yield* Deferred.make<void>()
      const read = yield* Ref.make(0)
      const fiber = yield* api.count({ to: MESSAGES, payloadSize: PAYLOAD_BYTES }).pipe(
        Stream.runForEach(() => Ref.update(read, (n) => n + 1).pipe(Effect.andThen(Deferred.await(gate)))),
        Effect.forkChild
      )
      assert.isBelow(yield* Echo.settled(Ref.get(produced)), MOST_IN_FLIGHT)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(fiber)
      assert.strictEqual(yield* Ref.get(read), MESSAGES)
    }).pipe(Effect.provide(Echo.layer())), 20_000)

  it.live("a slow handler bounds the caller's stream", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      const { release } = yield* Echo.Probe
      const produced = yield* Ref.make(0)
      const payload = new Uint8Array(PAYLOAD_BYTES)
      const requests = Stream.range(1, MESSAGES).pipe(
        Stream.rechunk(1),
        Stream.tap(() => Ref.update(produced, (n) => n + 1)),
        Stream.map((number) => ({ number: 1, payload, text: number === 1 ? "wait" : "" }))
      )
      const fiber = yield* Effect.forkChild(api.sum(requests))
      assert.isBelow(yield* Echo.settled(Ref.get(produced)), MOST_IN_FLIGHT)
      yield* Deferred.succeed(release, undefined)
      assert.strictEqual((yield* Fiber.join(fiber)).number, MESSAGES)
    }).pipe(Effect.provide(Echo.layer())), 20_000)
})

describe("what travels with a call", () => {
  it.live("metadata, of the client and of the call", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect({ metadata: { "x-client": "c" } })
      assert.strictEqual((yield* api.echo({ text: "x-client" })).text, "c")
      assert.strictEqual((yield* api.echo({ text: "x-call" }, { metadata: { "x-call": "d" } })).text, "d")
    }).pipe(Effect.provide(Echo.layer())))

  it.live("the caller's trace", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      yield* Effect.gen(function*() {
        const { traceId } = yield* Effect.currentSpan
        assert.strictEqual((yield* api.echo({ text: "trace" })).text, traceId)
      }).pipe(Effect.withSpan("outer"))
    }).pipe(Effect.provide(Echo.layer())))

  it.live("measures calls on both sides, by method and code", () =>
    Effect.gen(function*() {
      const api = yield* Echo.connect()
      yield* api.echo({ text: "a" })
      yield* Effect.exit(api.echo({ text: "NotFound" }))
      yield* Effect.exit(api.echo({ text: "hang" }, { deadline: "50 millis" }))
      yield* Echo.soon(Probed.interrupted)
      yield* Stream.runDrain(api.count({ to: 3 }))
      yield* api.count({ to: 0 }).pipe(Stream.runDrain, Effect.timeoutOption("50 millis"))
      const text = yield* PrometheusMetrics.format()
      for (const side of ["client", "server"]) {
        const calls = (method: string, code: string) =>
          `fsb_grpc_${side}_calls_total{grpc_service="test.v1.EchoService",grpc_method="${method}",grpc_code="${code}"} 1`
        assert.include(text, calls("Echo", "OK"))
        assert.include(text, calls("Echo", "NOT_FOUND"))
        assert.include(text, calls("Echo", "DEADLINE_EXCEEDED"))
        assert.include(text, calls("Count", "OK"))
        assert.include(
          text,
          `fsb_grpc_${side}_duration_seconds_count{grpc_service="test.v1.EchoService",grpc_method="Echo"} 3`
        )
      }
      assert.include(
        text,
        `fsb_grpc_client_calls_total{grpc_service="test.v1.EchoService",grpc_method="Count",grpc_code="CANCELLED"} 1`
      )
    }).pipe(Effect.provide(Echo.layer()), Effect.provideService(Metric.MetricRegistry, new Map())))
})

/** What the handlers of the test at hand tell. */
const Probed = {
  started: Effect.flatMap(Echo.Probe, (probe) => Deferred.await(probe.started)),
  interrupted: Effect.flatMap(Echo.Probe, (probe) => Deferred.await(probe.interrupted))
}

/**
 * Never called: mistakes that the compiler must find.
 *
 * @public For the compiler.
 */
export const mistakes = [
  // @ts-expect-error a field that the request does not have
  (api: GrpcClient.GrpcClient<typeof EchoService>) => api.echo({ texts: "a" }),
  // @ts-expect-error a method that the service does not have
  (api: GrpcClient.GrpcClient<typeof EchoService>) => api.shout,
  // @ts-expect-error handlers that are missing
  () => GrpcService.make(EchoService, { echo: () => Effect.succeed({}) })
]
