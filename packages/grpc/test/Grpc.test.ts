import { assert, describe, it } from "@effect/vitest"
import { FailedPrecondition, NotFound } from "@fast-sandbox/core/Errors"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import { Context, Effect, Layer, Stream } from "effect"

class Prefix extends Context.Service<Prefix, string>()("Prefix") {}

const echo = GrpcService.make(EchoService, {
  echo: Effect.fnUntraced(function*(request) {
    if (request.text === "missing") return yield* new NotFound({ kind: "sandbox", name: "a" })
    const prefix = yield* Prefix
    return { text: `${prefix}${request.text}` }
  }),
  count: ({ to }) => Stream.range(1, to).pipe(Stream.map((number) => ({ number }))),
  sum: (requests) =>
    Stream.runFold(requests, () => 0, (sum, { number }) => sum + number).pipe(Effect.map((number) => ({ number }))),
  chat: (requests) => Stream.map(requests, ({ text }) => ({ text: text.toUpperCase() }))
})

const TestServer = GrpcServer.layer({
  services: [echo],
  listeners: [GrpcServer.tcp("127.0.0.1", 0)]
}).pipe(Layer.provide(Layer.succeed(Prefix, "hi ")))

const client = Effect.gen(function*() {
  const { addresses: [address = ""] } = yield* GrpcServer.GrpcServer
  return yield* GrpcClient.makeBoundary(EchoService, { address })
})

describe("Grpc", () => {
  it.live("serves all four kinds of methods", () =>
    Effect.gen(function*() {
      const api = yield* client
      assert.strictEqual((yield* api.echo({ text: "you" })).text, "hi you")
      const counted = yield* Stream.runCollect(api.count({ to: 200 }))
      assert.deepStrictEqual(counted.map(({ number }) => number), Array.from({ length: 200 }, (_, i) => i + 1))
      assert.strictEqual(
        (yield* api.sum(Stream.range(1, 200).pipe(Stream.map((number) => ({ number }))))).number,
        20_100
      )
      const said = yield* Stream.runCollect(api.chat(Stream.make({ text: "a" }, { text: "b" })))
      assert.deepStrictEqual(said.map(({ text }) => text), ["A", "B"])
    }).pipe(Effect.provide(TestServer)))

  it.live("fails with what the handler failed with", () =>
    Effect.gen(function*() {
      const api = yield* client
      const error = yield* Effect.flip(api.echo({ text: "missing" }))
      assert.instanceOf(error, NotFound)
      assert.notInstanceOf(error, FailedPrecondition)
    }).pipe(Effect.provide(TestServer)))
})
