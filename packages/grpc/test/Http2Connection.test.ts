import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Http2 from "node:http2"
import * as Net from "node:net"
import { duplexPair } from "node:stream"
import * as Hpack from "../src/internal/hpack.ts"
import { Http2ClientConnection } from "../src/internal/http2ClientConnection.ts"
import type { Stream } from "../src/internal/http2Connection.ts"

const request = { ":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": "/" }

/** A request and what came of it, as text. */
interface Ended {
  readonly status: string | undefined
  readonly trailer: string | undefined
  readonly body: Buffer
  readonly reset: number | undefined
}

const call = (
  connection: Http2ClientConnection,
  headers: Readonly<Record<string, string>> = request,
  use: (stream: Stream) => void = (stream) => stream.end()
) =>
  Effect.callback<Ended>((resume) => {
    const chunks: Array<Buffer> = []
    let status: string | undefined
    let trailer: string | undefined
    const stream = connection.open(Hpack.encode(headers), {
      onHeaders: (headers) => {
        status ??= headers.get(":status")
        trailer = headers.get("trailer-of-it")
      },
      onData: (chunk) => {
        chunks.push(chunk)
        stream.consume()
      },
      onEnd: () => {},
      onDrain: () => {},
      onClose: (reset) => resume(Effect.succeed({ status, trailer, body: Buffer.concat(chunks), reset }))
    })
    use(stream)
    return Effect.sync(() => stream.reset(8))
  })

/** Node's own server, which serves with `serve`. */
const server = (
  serve: (stream: Http2.ServerHttp2Stream, headers: Http2.IncomingHttpHeaders) => void,
  options: Http2.ServerOptions = {}
) =>
  Effect.acquireRelease(
    Effect.callback<Http2.Http2Server>((resume) => {
      const server = Http2.createServer(options)
      server.on("stream", serve)
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

const connect = (server: Http2.Http2Server) => {
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  return Effect.acquireRelease(
    Effect.sync(() => new Http2ClientConnection(Net.connect({ port, host: "127.0.0.1" }), () => {})),
    (connection) => Effect.sync(() => connection.destroy("the test is over"))
  )
}

/** A connection to a peer that sends these bytes whatever it is sent; gives why it ended. */
const confronted = (hex: string) =>
  Effect.callback<string>((resume) => {
    const [ours, theirs] = duplexPair()
    theirs.resume()
    const connection = new Http2ClientConnection(ours, (problem) => resume(Effect.succeed(problem)))
    connection.open(Hpack.encode(request), {
      onHeaders: () => {},
      onData: () => {},
      onEnd: () => {},
      onDrain: () => {},
      onClose: () => {}
    })
    theirs.write(Buffer.from(hex.replaceAll(" ", ""), "hex"))
    return Effect.sync(() => connection.destroy("the test is over"))
  })

describe("a connection", () => {
  it.live("carries headers and trailers that need several frames", () =>
    Effect.gen(function*() {
      const long = "v".repeat(40_000)
      const connection = yield* connect(
        yield* server((stream, headers) => {
          stream.respond({ ":status": 200 }, { waitForTrailers: true })
          stream.on("wantTrailers", () => stream.sendTrailers({ "trailer-of-it": headers["header-of-it"] }))
          stream.end()
        }, { settings: { maxHeaderListSize: 2 * long.length } })
      )
      const ended = yield* call(connection, { ...request, "header-of-it": long })
      assert.isTrue(ended.trailer === long)
      assert.deepInclude(ended, { status: "200", reset: 0 })
    }))

  it.live("sends and receives more than the windows hold", () =>
    Effect.gen(function*() {
      const connection = yield* connect(
        yield* server((stream) => {
          stream.respond({ ":status": 200 })
          stream.pipe(stream)
        }, { settings: { initialWindowSize: 20_000 } })
      )
      const body = Buffer.alloc(20_000_000, "0123456789")
      const ended = yield* call(connection, request, (stream) => {
        assert.isFalse(stream.write(body))
        stream.end(Buffer.from("end"))
      })
      assert.isTrue(ended.body.equals(Buffer.concat([body, Buffer.from("end")])))
    }))

  it.live("opens as many streams as the server allows, and the others in their order", () =>
    Effect.gen(function*() {
      let most = 0
      let open = 0
      const order: Array<string> = []
      const connection = yield* connect(
        yield* server((stream) => {
          open += 1
          most = Math.max(most, open)
          stream.on("close", () => {
            open -= 1
          })
          stream.on("data", (chunk: Buffer) => order.push(chunk.toString()))
          stream.on("end", () => {
            stream.respond({ ":status": 200 })
            stream.end()
          })
        }, { settings: { maxConcurrentStreams: 2 } })
      )
      // the server's settings come with its first answer
      yield* call(connection)
      const names = Array.from({ length: 20 }, (_, at) => String(at))
      const ended = yield* Effect.forEach(
        names,
        (name) => call(connection, request, (stream) => stream.end(Buffer.from(name))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual([...new Set(ended.map(({ reset, status }) => `${status} ${reset}`))], ["200 0"])
      assert.deepStrictEqual(order, names)
      assert.isAtMost(most, 2)
    }))

  it.live("goes on with what the server still serves when that leaves, and takes nothing new", () =>
    Effect.gen(function*() {
      const connection = yield* connect(
        yield* server((stream) => {
          stream.respond({ ":status": 200 })
          stream.session?.goaway(0, stream.id ?? 0)
          setImmediate(() => stream.end("late"))
        })
      )
      assert.isTrue(connection.isUsable)
      const ended = yield* call(connection)
      assert.strictEqual(ended.body.toString(), "late")
      assert.isFalse(connection.isUsable)
      yield* Effect.callback<void>((resume) => connection.ping(() => resume(Effect.void)))
      assert.strictEqual(connection.problem, "the server ended the connection")
    }))

  it.live("answers and sends pings", () =>
    Effect.gen(function*() {
      let pinged = 0
      const connection = yield* connect(
        yield* server((stream) => {
          stream.session?.ping(() => {
            pinged += 1
            stream.respond({ ":status": 200 })
            stream.end()
          })
        })
      )
      yield* call(connection)
      yield* Effect.callback<void>((resume) => connection.ping(() => resume(Effect.void)))
      assert.strictEqual(pinged, 1)
    }))

  const mistakes = {
    "HTTP/1.1": [
      Buffer.from("HTTP/1.1 400 Bad Request\r\n\r\n").toString("hex"),
      /does not speak HTTP\/2: a frame of \d+ bytes/
    ],
    "a push": ["000004 05 04 00000001 00000002", /it pushes/],
    "a torn block": ["000001 01 00 00000001 88 000000 04 00 00000000", /torn/],
    "a continuation of nothing": ["000001 09 04 00000001 88", /without a beginning/],
    "headers that are none": ["000001 01 04 00000001 80", /there is no entry 0/],
    "nothing but padding": ["000001 00 08 00000001 05", /nothing but padding/],
    "a short frame": ["000001 08 00 00000000 00", /too short/],
    "a window that is too large": ["000004 08 00 00000000 7fffffff", /the window is too large/]
  } as const
  for (const [title, [hex, problem]] of Object.entries(mistakes)) {
    it.live(`ends when the server sends ${title}`, () =>
      Effect.gen(function*() {
        assert.match(yield* confronted(hex), problem)
      }))
  }
})
