/** The server as clients see it that are not ours: grpc-js, and HTTP/2 without gRPC. */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { EchoRequestSchema, EchoResponseSchema } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import * as Grpc from "@grpc/grpc-js"
import { Clock, Deferred, Effect } from "effect"
import * as Http2 from "node:http2"
import * as Echo from "./Echo.ts"

const same = (bytes: Buffer): Buffer => bytes

const clientOf = (options: Grpc.ClientOptions = {}) =>
  Effect.flatMap(Echo.address, (address) =>
    Effect.acquireRelease(
      Effect.sync(() => new Grpc.Client(address, Grpc.credentials.createInsecure(), options)),
      (client) => Effect.sync(() => client.close())
    ))

const asked = (init: { readonly text?: string; readonly number?: number; readonly payload?: Uint8Array }): Buffer =>
  Buffer.from(toBinary(EchoRequestSchema, create(EchoRequestSchema, init)))

const read = (bytes: Buffer) => fromBinary(EchoResponseSchema, bytes)

const path = (method: string) => `/test.v1.EchoService/${method}`

const unary = (client: Grpc.Client, method: string, request: Buffer, options: Grpc.CallOptions = {}) =>
  Effect.callback<Buffer, Grpc.ServiceError>((resume) => {
    client.makeUnaryRequest(
      path(method),
      same,
      same,
      request,
      options,
      (error, response) =>
        resume(error === null && response !== undefined ? Effect.succeed(response) : Effect.fail(error ?? never()))
    )
  })

const never = (): never => {
  throw new Error("neither an answer nor a failure")
}

/** What a stream of answers brings, and the code of its end. */
const collected = (call: Grpc.ClientReadableStream<Buffer> | Grpc.ClientDuplexStream<Buffer, Buffer>) =>
  Effect.callback<{ readonly messages: ReadonlyArray<Buffer>; readonly code: number }>((resume) => {
    const messages: Array<Buffer> = []
    call.on("data", (message: Buffer) => messages.push(message))
    call.on("error", () => {})
    call.on("status", ({ code }: Grpc.StatusObject) => resume(Effect.succeed({ messages, code })))
  })

describe("grpc-js", () => {
  it.live("gets answers of all four kinds", () =>
    Effect.gen(function*() {
      const client = yield* clientOf()
      const payload = new Uint8Array(3_000_000).fill(7)
      const echoed = read(yield* unary(client, "Echo", asked({ text: "a", payload })))
      assert.isTrue(Buffer.from(echoed.payload).equals(Buffer.from(payload)))

      const counted = yield* collected(
        client.makeServerStreamRequest(path("Count"), same, same, Buffer.from("08e807", "hex"))
      )
      assert.deepStrictEqual(
        counted.messages.map((bytes) => read(bytes).number),
        Array.from({ length: 1000 }, (_, at) => at + 1)
      )

      const sum = yield* Effect.callback<number>((resume) => {
        const call = client.makeClientStreamRequest(path("Sum"), same, same, (error, response) => {
          if (error === null && response !== undefined) resume(Effect.succeed(read(response).number))
        })
        for (let number = 1; number <= 500; number++) call.write(asked({ number }))
        call.end()
      })
      assert.strictEqual(sum, 125_250)

      const chat = client.makeBidiStreamRequest(path("Chat"), same, same)
      for (const text of ["a", "b"]) chat.write(asked({ text }))
      chat.end()
      const said = yield* collected(chat)
      assert.deepStrictEqual(said.messages.map((bytes) => read(bytes).text), ["A", "B"])
      assert.strictEqual(said.code, Grpc.status.OK)
    }).pipe(Effect.provide(Echo.layer())), 20_000)

  it.live("gets texts, details and codes of failures", () =>
    Effect.gen(function*() {
      const client = yield* clientOf()
      const error = yield* Effect.flip(unary(client, "Echo", asked({ text: "FailedPrecondition" })))
      assert.strictEqual(error.code, Grpc.status.FAILED_PRECONDITION)
      assert.strictEqual(error.details, "100% stale\nand ünïcode")
      assert.strictEqual(error.metadata.get("grpc-status-details-bin").length, 1)
      const stream = yield* collected(
        client.makeServerStreamRequest(path("Count"), same, same, Buffer.from("08d8ffffffffffffffff01", "hex"))
      )
      assert.deepStrictEqual([stream.messages.length, stream.code], [40, Grpc.status.NOT_FOUND])
      const unknown = yield* Effect.flip(unary(client, "Shout", asked({})))
      assert.strictEqual(unknown.code, Grpc.status.UNIMPLEMENTED)
      assert.include(unknown.details, "/test.v1.EchoService/Shout")
    }).pipe(Effect.provide(Echo.layer())))

  it.live("may leave, and may set a deadline", () =>
    Effect.gen(function*() {
      const client = yield* clientOf()
      const late = yield* Effect.flip(unary(client, "Echo", asked({ text: "hang" }), {
        deadline: (yield* Clock.currentTimeMillis) + 200
      }))
      assert.strictEqual(late.code, Grpc.status.DEADLINE_EXCEEDED)
      const { interrupted } = yield* Echo.Probe
      yield* Echo.soon(Deferred.await(interrupted))
    }).pipe(Effect.provide(Echo.layer())))

  it.live("hears that nothing compressed is taken", () =>
    Effect.gen(function*() {
      const client = yield* clientOf({ "grpc.default_compression_algorithm": Grpc.compressionAlgorithms.gzip })
      const error = yield* Effect.flip(unary(client, "Echo", asked({ text: "a".repeat(1000) })))
      assert.strictEqual(error.code, Grpc.status.UNIMPLEMENTED)
      assert.include(error.details, "gzip")
    }).pipe(Effect.provide(Echo.layer())))
})

const raw = Effect.fnUntraced(function*(headers: Http2.OutgoingHttpHeaders, body = "") {
  const address = yield* Echo.address
  const session = yield* Effect.acquireRelease(
    Effect.sync(() => Http2.connect(`http://${address}`).on("error", () => {})),
    (session) => Effect.sync(() => session.destroy())
  )
  return yield* Effect.callback<Readonly<Record<string, unknown>>>((resume) => {
    const stream = session.request({ ":method": "POST", ":path": path("Echo"), ...headers })
    stream.on("error", () => {})
    stream.on("response", (headers) => resume(Effect.succeed(headers)))
    stream.end(Buffer.from(body, "hex"))
  })
})

describe("what is no gRPC", () => {
  const grpc = { "content-type": "application/grpc" }
  const cases = {
    "a GET": [{ ":method": "GET" }, "", { ":status": 405 }],
    "another content": [{ "content-type": "text/html" }, "", { ":status": 415 }],
    "a time that is none": [{ ...grpc, "grpc-timeout": "soon" }, "", { "grpc-status": "3" }],
    "no message": [grpc, "", { "grpc-status": "3" }],
    "half a message": [grpc, "00000000ff00", { "grpc-status": "3" }],
    "two messages": [grpc, "00000000000000000000", { "grpc-status": "3" }],
    "a message that says it is compressed": [grpc, "0100000000", { "grpc-status": "13" }]
  } as const
  for (const [title, [headers, body, expected]] of Object.entries(cases)) {
    it.live(`is told so: ${title}`, () =>
      Effect.gen(function*() {
        assert.deepInclude({ ...(yield* Echo.soon(raw(headers, body))) }, expected)
      }).pipe(Effect.provide(Echo.layer())))
  }
})
