/** A server's side of a connection, frame by frame: what peers do wrong, on purpose or not. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Duplex, duplexPair } from "node:stream"
import * as Hpack from "../src/internal/hpack.ts"
import { flags, frame, PREFACE, resets, settings, settingsFrame, types, uint32 } from "../src/internal/http2Frames.ts"
import { Http2ServerConnection, type ServerStream } from "../src/internal/http2ServerConnection.ts"

const request = Hpack.encode({ ":method": "POST", ":scheme": "http", ":path": "/" })
const answer = Hpack.encode({ ":status": "200" })
const trailers = Hpack.encode({ "grpc-status": "0" })

const MAX_STREAMS = 8
const headers = (stream: number, last = true) =>
  frame(types.headers, flags.endHeaders | (last ? flags.endStream : 0), stream, request)
const reset = (stream: number) => frame(types.resetStream, 0, stream, uint32(resets.cancel))
const data = (stream: number, bytes: number) => frame(types.data, 0, stream, Buffer.alloc(bytes))

/** What a server sent, frame by frame: `type flag stream payload`. */
const framesOf = (bytes: Buffer): ReadonlyArray<string> => {
  const found: Array<string> = []
  for (let at = 0; at + 9 <= bytes.length;) {
    const end = at + 9 + bytes.readUIntBE(at, 3)
    const payload = bytes.subarray(at + 9, Math.min(end, at + 9 + 16)).toString("hex")
    found.push([bytes[at + 3], bytes[at + 4], bytes.readUInt32BE(at + 5), payload].join(" ").trimEnd())
    at = end
  }
  return found
}

interface Peer {
  readonly socket: Duplex
  readonly connection: Http2ServerConnection
  readonly streams: ReadonlyArray<ServerStream>
  /** Frames that the server has sent until now. */
  readonly heard: () => ReadonlyArray<string>
  readonly closed: Effect.Effect<string>
  readonly send: (...frames: ReadonlyArray<Buffer>) => Effect.Effect<void>
}

/** Lets everything happen that follows from what was sent. */
const settled = Effect.callback<void>((resume) => {
  setImmediate(() => setImmediate(() => resume(Effect.void)))
})

/** A peer of a server that answers at once, or never. */
const peer = (how: "answers" | "waits", idleMillis = 60_000): Effect.Effect<Peer> =>
  Effect.sync(() => {
    const [ours, socket] = duplexPair()
    const chunks: Array<Buffer> = []
    const streams: Array<ServerStream> = []
    let problem: string | undefined
    const waiting: Array<(problem: string) => void> = []
    socket.on("data", (chunk: Buffer) => chunks.push(chunk))
    const connection = new Http2ServerConnection(ours, {
      maxStreams: MAX_STREAMS,
      idleMillis,
      onRequest: () => {
        let opened: ServerStream | undefined
        return {
          onOpen: (stream) => {
            opened = stream
            streams.push(stream)
          },
          onHeaders: () => {},
          onData: () => {},
          onEnd: () => {
            if (how === "waits") return
            opened?.respond(answer)
            opened?.end(Buffer.from("hello"), trailers)
          },
          onDrain: () => {},
          onClose: () => {}
        }
      },
      onClose: (why) => {
        problem = why
        for (const listener of waiting) listener(why)
      }
    })
    return {
      socket,
      connection,
      streams,
      heard: () => framesOf(Buffer.concat(chunks)),
      closed: Effect.callback<string>((resume) => {
        if (problem !== undefined) return resume(Effect.succeed(problem))
        waiting.push((why) => resume(Effect.succeed(why)))
      }),
      send: (...frames) => Effect.andThen(Effect.sync(() => socket.write(Buffer.concat(frames))), settled)
    }
  })

const greeting = [PREFACE, settingsFrame([])]

describe("a server's connection", () => {
  it.live("answers requests, also those that come byte by byte", () =>
    Effect.gen(function*() {
      const { heard, socket } = yield* peer("answers")
      for (const byte of Buffer.concat([...greeting, headers(1)])) socket.write(Buffer.of(byte))
      yield* settled
      yield* settled
      assert.deepStrictEqual(heard().slice(-3), [
        `${types.headers} ${flags.endHeaders} 1 88`,
        `${types.data} 0 1 ${Buffer.from("hello").toString("hex")}`,
        `${types.headers} ${flags.endHeaders | flags.endStream} 1 ${trailers.toString("hex").slice(0, 32)}`
      ])
    }))

  it.live("reads headers that refer to earlier ones, also to those of requests that it refused", () =>
    Effect.gen(function*() {
      const indexed = Buffer.concat([request, Buffer.from("4001610162", "hex")])
      const again = Buffer.concat([request, Buffer.from("be", "hex")])
      const block = (stream: number, bytes: Buffer) =>
        frame(types.headers, flags.endHeaders | flags.endStream, stream, bytes)
      const { connection, heard, send, streams } = yield* peer("waits")
      yield* send(...greeting, ...Array.from({ length: MAX_STREAMS }, (_, at) => headers(2 * at + 1, false)))
      yield* send(block(101, indexed), reset(1), block(103, again))
      assert.strictEqual(streams.length, MAX_STREAMS + 1)
      assert.include(heard(), `${types.resetStream} 0 101 ${uint32(resets.refusedStream).toString("hex")}`)
      assert.isFalse(connection.isOver)
    }))

  it.live("asks nobody to end what it has answered", () =>
    Effect.gen(function*() {
      const { connection, heard, send, streams } = yield* peer("waits")
      yield* send(...greeting, headers(1, false))
      streams[0]?.end(undefined, trailers)
      yield* settled
      assert.include(heard(), `${types.resetStream} 0 1 ${uint32(resets.none).toString("hex")}`)
      yield* send(data(1, 10), reset(1))
      assert.isFalse(connection.isBusy)
      assert.isFalse(connection.isOver)
    }))

  it.live("waits for its peer's window", () =>
    Effect.gen(function*() {
      const { heard, send, streams } = yield* peer("waits")
      yield* send(PREFACE, settingsFrame([[settings.initialWindowSize, 3]]), headers(1))
      streams[0]?.respond(answer)
      streams[0]?.end(Buffer.from("hello"), trailers)
      yield* settled
      const sent = () => heard().filter((line) => line.startsWith(`${types.data} `)).join()
      assert.strictEqual(sent(), `0 0 1 ${Buffer.from("hel").toString("hex")}`)
      yield* send(frame(types.windowUpdate, 0, 1, uint32(1)), settingsFrame([[settings.initialWindowSize, 4]]))
      assert.strictEqual(sent(), ["hel", "l", "o"].map((text) => `0 0 1 ${Buffer.from(text).toString("hex")}`).join())
    }))

  it.live("leaves when the last of its streams has ended, and takes no others", () =>
    Effect.gen(function*() {
      const { closed, connection, heard, send, streams } = yield* peer("waits")
      yield* send(...greeting, headers(1))
      connection.leave()
      yield* send(headers(3))
      assert.include(heard(), `${types.goAway} 0 0 0000000100000000`)
      assert.include(heard(), `${types.resetStream} 0 3 ${uint32(resets.refusedStream).toString("hex")}`)
      streams[0]?.end(undefined, trailers)
      yield* closed
      assert.strictEqual(heard().at(-1)?.slice(0, 5), `${types.headers} ${flags.endHeaders | flags.endStream} 1`)
    }))

  it.live("is closed after a while without a stream", () =>
    Effect.gen(function*() {
      const { closed, heard } = yield* peer("waits", 20)
      yield* closed
      assert.include(heard(), `${types.goAway} 0 0 0000000000000000`)
    }))

  const mistakes: Readonly<Record<string, readonly [ReadonlyArray<Buffer>, RegExp]>> = {
    "HTTP/1.1": [[Buffer.from("GET / HTTP/1.1\r\n\r\n")], /begins with something else/],
    "the beginning of something else": [[Buffer.from("PRI * HTTP/1")], /begins with something else/],
    "a frame that is too large": [
      [...greeting, frame(types.data, 0, 1, Buffer.alloc(20_000))],
      /a frame of 20000 bytes/
    ],
    "a request with an even number": [[...greeting, headers(2)], /a request with the number 2/],
    "headers of the connection": [[...greeting, headers(0)], /a request with the number 0/],
    "headers within a request": [[...greeting, headers(1, false), headers(1, false)], /headers within a request/],
    "headers after a request": [[...greeting, headers(1), headers(1)], /headers within a request/],
    "data after a request": [[...greeting, headers(1), data(1, 1)], /data after the end/],
    "more data than there is room for": [
      [...greeting, headers(1, false), ...Array.from({ length: 5 }, () => data(1, 16_000))],
      /more data than a stream had room for/
    ],
    "settings that are cut off": [[PREFACE, frame(types.settings, 0, 0, Buffer.alloc(5))], /cut off/],
    "a window that is too large": [
      [...greeting, headers(1, false), frame(types.windowUpdate, 0, 1, uint32(0x7fffffff))],
      /window is too large/
    ],
    "a push": [[...greeting, frame(types.pushPromise, 0, 1, uint32(2))], /pushes/],
    "a block that never ends": [
      [
        ...greeting,
        frame(types.headers, 0, 1, request),
        ...Array.from({ length: 5 }, () => frame(types.continuation, 0, 1, Buffer.alloc(16_384, 0x82)))
      ],
      /headers of more than/
    ],
    "headers that stand for too many": [
      [
        ...greeting,
        frame(
          types.headers,
          flags.endHeaders,
          1,
          Buffer.concat([Buffer.from("4001617f9901", "hex"), Buffer.alloc(280, "v"), Buffer.alloc(10_000, 0xbe)])
        )
      ],
      /headers of more than/
    ]
  }
  for (const [title, [frames, problem]] of Object.entries(mistakes)) {
    it.live(`ends when its peer sends ${title}, and says so`, () =>
      Effect.gen(function*() {
        const { closed, send } = yield* peer("waits")
        yield* send(...frames)
        assert.match(yield* closed, problem)
      }))
  }

  it.live("ends when its peer resets streams without end", () =>
    Effect.gen(function*() {
      const { closed, send } = yield* peer("waits")
      const pairs = Array.from({ length: 5000 }, (_, at) => [headers(2 * at + 1), reset(2 * at + 1)]).flat()
      yield* send(...greeting, ...pairs)
      assert.match(yield* closed, /resets too many streams/)
    }))

  it.live("ends when its peer asks and does not read", () =>
    Effect.gen(function*() {
      const { closed, send, socket } = yield* peer("waits")
      socket.pause()
      const pings = Buffer.concat(Array.from({ length: 1000 }, () => frame(types.ping, 0, 0, Buffer.alloc(8))))
      yield* send(...greeting)
      yield* Effect.raceFirst(Effect.forever(send(pings)), closed)
      assert.match(yield* closed, /does not read its answers/)
    }))

  it.live("outlives every mutation of a conversation", () =>
    Effect.gen(function*() {
      const talk = Buffer.concat([
        ...greeting,
        headers(1, false),
        data(1, 100),
        frame(types.data, flags.endStream | flags.padded, 1, Buffer.from([2, 1, 0, 0])),
        headers(3),
        frame(types.ping, 0, 0, Buffer.alloc(8)),
        frame(types.windowUpdate, 0, 0, uint32(1000)),
        frame(types.headers, flags.priority, 5, Buffer.concat([Buffer.alloc(5), request.subarray(0, 2)])),
        frame(types.continuation, flags.endHeaders, 5, request.subarray(2)),
        reset(5),
        frame(types.goAway, 0, 0, Buffer.alloc(8))
      ])
      // a fixed sequence of a linear congruential generator: what fails once, fails always
      let seed = 1
      const below = (most: number): number => {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff
        return seed % most
      }
      for (let round = 0; round < 3000; round++) {
        const { connection, socket } = yield* peer(round % 2 === 0 ? "answers" : "waits")
        const mutated = Buffer.from(talk)
        for (let change = 0; change <= round % 4; change++) {
          mutated[PREFACE.length + below(mutated.length - PREFACE.length)] = below(256)
        }
        const cut = below(mutated.length)
        socket.write(mutated.subarray(0, cut))
        socket.write(mutated.subarray(cut))
        socket.end()
        yield* settled
        connection.destroy("the round is over")
      }
    }), 30_000)
})
