/** What peers who mean no good, or are broken, can do to a server on TCP: nothing that its other callers notice. */
import { assert, describe, it } from "@effect/vitest"
import { Unauthenticated } from "@fast-sandbox/core/Errors"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { Context, Deferred, Effect, Layer, PubSub, Ref, type Scope, Stream } from "effect"
import * as Http2 from "node:http2"
import * as Net from "node:net"
import { makeCertificates } from "./Certificates.ts"
import * as Echo from "./Echo.ts"

/** Peers of these tests end nothing by themselves. */
const grace = "100 millis"

const FRAME_HEADER_BYTES = 5

/** A message's frame that promises more than it holds. */
const frame = (promised: number, held: number): Buffer => {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + held)
  bytes.writeUInt32BE(promised, 1)
  return bytes
}

const portOf = (address: string) => Number(address.split(":").at(-1))

/** A TCP connection that says nothing, closed with the scope. */
const connect = (address: string): Effect.Effect<Net.Socket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = Net.connect({ host: "127.0.0.1", port: portOf(address) }, () => resume(Effect.succeed(socket)))
      socket.on("error", () => {})
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

const closed = (socket: Net.Socket): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (socket.closed) return resume(Effect.void)
    socket.once("close", () => resume(Effect.void))
    socket.resume()
  })

/** An HTTP/2 session of the test's own, below gRPC. */
const session = (address: string) =>
  Effect.acquireRelease(
    Effect.sync(() => Http2.connect(`http://${address}`).on("error", () => {})),
    (session) => Effect.sync(() => session.destroy())
  )

const call = (session: Http2.ClientHttp2Session, method: string) =>
  session.request({
    ":method": "POST",
    ":path": `/test.v1.EchoService/${method}`,
    "content-type": "application/grpc",
    te: "trailers"
  }).on("error", () => {})

/** The gRPC status that a raw call ends with. */
const statusOf = (stream: Http2.ClientHttp2Stream): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    const look = (headers: Http2.IncomingHttpHeaders) => {
      const status = headers["grpc-status"]
      if (status !== undefined) resume(Effect.succeed(Number(status)))
    }
    stream.on("response", look)
    stream.on("trailers", look)
    stream.resume()
  })

const DEADLINE_EXCEEDED = 4
const RESOURCE_EXHAUSTED = 8
const UNAUTHENTICATED = 16

const alive = Effect.gen(function*() {
  const api = yield* Echo.connect()
  assert.strictEqual((yield* Echo.soon(api.echo({ text: "hello" }))).text, "hello")
})

describe("a server on TCP", () => {
  it.live("serves beside a thousand idle connections", () =>
    Effect.gen(function*() {
      const address = yield* Echo.address
      yield* Effect.forEach(Array.from({ length: 1000 }), () => connect(address), { concurrency: 50, discard: true })
      yield* alive
    }).pipe(Effect.provide(Echo.layer({ grace }))))

  it.live("refuses a message that says it is larger than the limit, before it has come", () =>
    Effect.gen(function*() {
      const raw = call(yield* session(yield* Echo.address), "Echo")
      raw.write(frame(0xffff_ffff, 100))
      assert.strictEqual(yield* Echo.soon(statusOf(raw)), RESOURCE_EXHAUSTED)
      yield* alive
    }).pipe(Effect.provide(Echo.layer({ grace, maxMessageBytes: 1024 }))))

  it.live("ends a request that does not come to its end", () =>
    Effect.gen(function*() {
      const slow = call(yield* session(yield* Echo.address), "Echo")
      slow.write(frame(1000, 10))
      assert.strictEqual(yield* Echo.soon(statusOf(slow)), DEADLINE_EXCEEDED)
      const silent = call(yield* session(yield* Echo.address), "Count")
      assert.strictEqual(yield* Echo.soon(statusOf(silent)), DEADLINE_EXCEEDED)
      yield* alive
    }).pipe(Effect.provide(Echo.layer({ grace, requestTimeoutMillis: 200 }))))

  it.live("lets streams of requests take their time", () =>
    Effect.gen(function*() {
      const { release } = yield* Echo.Probe
      const address = yield* Echo.address
      const api = yield* Echo.connect()
      // a request that began later than the stream, and that the server has ended by its limit
      const isLate = Effect.gen(function*() {
        const late = call(yield* session(address), "Echo")
        late.write(frame(1000, 10))
        assert.strictEqual(yield* Echo.soon(statusOf(late)), DEADLINE_EXCEEDED)
      })
      const requests = Stream.concat(
        Stream.succeed({ number: 1, text: "wait" }),
        Stream.fromEffect(Effect.as(Effect.scoped(isLate), { number: 2 }))
      )
      yield* Deferred.succeed(release, undefined)
      assert.strictEqual((yield* api.sum(requests)).number, 3)
    }).pipe(Effect.provide(Echo.layer({ grace, requestTimeoutMillis: 100 }))))

  it.live("outlives frames that are cut off, and bytes that are no HTTP/2", () =>
    Effect.gen(function*() {
      const address = yield* Echo.address
      const cut = yield* session(address)
      const raw = call(cut, "Echo")
      raw.write(frame(1000, 10))
      cut.destroy()
      const noise = yield* connect(address)
      noise.write("GET / HTTP/1.1\r\n\r\n")
      yield* Echo.soon(closed(noise))
      yield* alive
    }).pipe(Effect.provide(Echo.layer({ grace }))))

  it.live("closes connections without a call", () =>
    Effect.gen(function*() {
      yield* Echo.soon(closed(yield* connect(yield* Echo.address)))
      yield* alive
    }).pipe(Effect.provide(Echo.layer({ grace, idleTimeoutMillis: 200 }))))

  it.live("ends the stream of a call that is over, whatever its caller does", () =>
    Effect.gen(function*() {
      const raw = call(yield* session(yield* Echo.address), "Echo")
      const ended = Echo.soon(Effect.callback<void>((resume) => void raw.once("close", () => resume(Effect.void))))
      raw.write(frame(10, 0))
      raw.resume()
      yield* ended
    }).pipe(Effect.provide(Echo.layer({ grace, requestTimeoutMillis: 100 }))))

  it.live("reads nothing of who is not admitted", () =>
    Effect.gen(function*() {
      const raw = call(yield* session(yield* Echo.address), "Echo")
      raw.write(frame(1_000_000, 100_000))
      assert.strictEqual(yield* Echo.soon(statusOf(raw)), UNAUTHENTICATED)
    }).pipe(
      Effect.provide(
        Echo.layer({ grace, authenticate: () => Effect.fail(new Unauthenticated({ problem: "who are you?" })) })
      )
    ))
})

describe("certificates that rotate", () => {
  it.live("count for connections from then on, without a restart", () =>
    Effect.gen(function*() {
      const { ca, otherCa, otherServer, server } = yield* makeCertificates
      const rotations = yield* PubSub.unbounded<GrpcServer.Certificates>()
      const context = yield* Layer.build(
        GrpcServer.layer({
          services: [Echo.echo],
          listeners: [
            GrpcServer.tcp("127.0.0.1", 0, { tls: { certificate: server, rotations: Stream.fromPubSub(rotations) } })
          ]
        }).pipe(Layer.provide(Echo.Probe.layer))
      )
      const { addresses: [address = ""] } = Context.get(context, GrpcServer.GrpcServer)
      const connect = (ca: string) =>
        GrpcClient.makeBoundary(EchoService, {
          address,
          credentials: { tls: { ca } }
        })
      const before = yield* connect(ca)
      assert.strictEqual((yield* before.echo({ text: "one" })).text, "one")
      const rotated = yield* Ref.make(false)
      while (!(yield* Ref.get(rotated))) {
        yield* PubSub.publish(rotations, { certificate: otherServer })
        const after = yield* connect(otherCa)
        yield* after.echo({ text: "two" }).pipe(
          Effect.andThen(Ref.set(rotated, true)),
          Effect.catchTag("Unavailable", () => Effect.void)
        )
      }
      assert.strictEqual((yield* Effect.flip((yield* connect(ca)).echo({ text: "three" })))._tag, "Unavailable")
      assert.strictEqual((yield* before.echo({ text: "four" })).text, "four")
      yield* PubSub.publish(rotations, { certificate: { ...otherServer, chain: "no certificate" } })
      assert.strictEqual((yield* (yield* connect(otherCa)).echo({ text: "five" })).text, "five")
    }))
})

describe("TLS", () => {
  it.live("serves beside peers that never finish their handshake, and cuts them at its end", () =>
    Effect.gen(function*() {
      const { ca, server } = yield* makeCertificates
      const { silent } = yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* Layer.build(
          GrpcServer.layer({
            services: [Echo.echo],
            listeners: [GrpcServer.tcp("127.0.0.1", 0, { tls: { certificate: server } })]
          }).pipe(Layer.provide(Echo.Probe.layer))
        )
        const { addresses: [address = ""] } = Context.get(context, GrpcServer.GrpcServer)
        const silent = Net.connect({ host: "127.0.0.1", port: portOf(address) }).on("error", () => {})
        const api = yield* GrpcClient.makeBoundary(EchoService, { address, credentials: { tls: { ca } } })
        assert.strictEqual((yield* api.echo({ text: "hello" })).text, "hello")
        return { silent }
      }))
      yield* Echo.soon(closed(silent))
    }))
})
