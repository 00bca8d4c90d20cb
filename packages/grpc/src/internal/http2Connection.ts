/**
 * The client's side of an HTTP/2 connection (RFC 9113), as far as gRPC uses it: requests over a stream of bytes that is
 * open or opens. Node's own costs a program 15 ms when it is loaded, since it brings TLS and HTTP/1.1 along, and can't
 * be in a start-up snapshot.
 *
 * Every frame of one turn of the event loop leaves in one write. What is received counts for the connection's window at
 * once, and for a stream's when its reader asks for more: a slow reader holds up its own stream, and no other.
 */
import type { Duplex } from "node:stream"
import * as Hpack from "./hpack.ts"

/** Section 6. */
const types = {
  data: 0x0,
  headers: 0x1,
  resetStream: 0x3,
  settings: 0x4,
  pushPromise: 0x5,
  ping: 0x6,
  goAway: 0x7,
  windowUpdate: 0x8,
  continuation: 0x9
} as const

const flags = { acknowledged: 0x1, endStream: 0x1, endHeaders: 0x4, padded: 0x8, priority: 0x20 } as const

/** Section 6.5.2. */
const settings = {
  headerTableSize: 0x1,
  enablePush: 0x2,
  maxConcurrentStreams: 0x3,
  initialWindowSize: 0x4,
  maxFrameSize: 0x5
} as const

/** Error codes of section 7. */
export const resets = {
  none: 0x0,
  refusedStream: 0x7,
  cancel: 0x8,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc
} as const

/** Bytes that frames have at least, by their type. */
const shortest: Readonly<Record<number, number>> = {
  [types.resetStream]: 4,
  [types.ping]: 8,
  [types.goAway]: 8,
  [types.windowUpdate]: 4
}

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

const FRAME_HEADER_BYTES = 9
const SETTING_BYTES = 6
const PING_BYTES = 8
const PRIORITY_BYTES = 5

/** What holds until a peer says something else, and what this side leaves so. */
const DEFAULT_WINDOW_BYTES = 65_535
const DEFAULT_MAX_FRAME_BYTES = 16_384

/** Bytes that may be under way to this side, of one stream and of the whole connection: a round trip at a gigabyte a second. */
const WINDOW_BYTES = 4 * 1024 * 1024

/** The window is opened again when so much of it was used. */
const WINDOW_UPDATE_BYTES = WINDOW_BYTES / 2

/** Largest window there is: more is the peer's mistake. */
const MAX_WINDOW_BYTES = 2 ** 31 - 1

/** Bytes that wait for a peer's window until a writer is asked to wait. */
const WRITER_PATIENCE_BYTES = 64 * 1024

/** Largest block of headers that is read: statuses carry a few kilobytes of details. */
const MAX_BLOCK_BYTES = 256 * 1024

/** Streams have odd numbers below this; then another connection is needed. */
const MAX_STREAM_NUMBER = 2 ** 31 - 1

const LEFT = "the server ended the connection"

const THIRTY_ONE_BITS = 0x7fffffff

/** What a stream tells its owner. After `onClose` there is nothing more. */
export interface StreamListener {
  /** The first ones, and after the last data the trailers. */
  onHeaders(headers: Hpack.Headers): void
  onData(chunk: Buffer): void
  /** The peer has said everything. */
  onEnd(): void
  /** There is room for more data. */
  onDrain(): void
  /** It is over: reset by the peer with a code, or lost with the connection. */
  onClose(reset: number | undefined): void
}

/** A request under way. */
export interface Stream {
  /** Sends data, or keeps it until it may be sent; `false` asks to wait for `onDrain`. */
  readonly write: (data: Buffer) => boolean
  /** There is no more data but this; the end travels with it. */
  readonly end: (data?: Buffer) => void
  /** What was received so far makes room for more. */
  readonly consume: () => void
  /** Ends it with a code, if it is not over yet. */
  readonly reset: (code: number) => void
}

interface Entry {
  readonly listener: StreamListener
  readonly block: Buffer
  /** None until the peer allows one more stream. */
  number: number | undefined
  readonly pending: Array<Buffer>
  pendingBytes: number
  isDrainAwaited: boolean
  /** The writer has said everything. */
  isEnding: boolean
  /** All of it was sent. */
  isSent: boolean
  sendWindow: number
  received: number
}

const frame = (type: number, flag: number, stream: number, payload: Buffer): Buffer => {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length)
  bytes.writeUIntBE(payload.length, 0, 3)
  bytes[3] = type
  bytes[4] = flag
  bytes.writeUInt32BE(stream, 5)
  payload.copy(bytes, FRAME_HEADER_BYTES)
  return bytes
}

const NOTHING = Buffer.alloc(0)

const uint32 = (value: number): Buffer => {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value)
  return bytes
}

const settingsFrame = (values: ReadonlyArray<readonly [number, number]>): Buffer => {
  const payload = Buffer.allocUnsafe(values.length * SETTING_BYTES)
  for (const [at, [key, value]] of values.entries()) {
    payload.writeUInt16BE(key, at * SETTING_BYTES)
    payload.writeUInt32BE(value, at * SETTING_BYTES + 2)
  }
  return frame(types.settings, 0, 0, payload)
}

/** The peer does not keep to the protocol. */
class ProtocolError extends Error {
  override readonly name = "ProtocolError"
}

/** A connection; `onClose` hears once why it is none any more. */
export class Http2Connection {
  readonly #socket: Duplex
  readonly #onClose: (problem: string) => void
  readonly #streams = new Map<number, Entry>()
  /** Streams that the peer does not allow yet, in their order. */
  readonly #queue = new Set<Entry>()
  readonly #pings: Array<() => void> = []
  #next = 1
  #problem: string | undefined
  #isOver = false
  /** The peer takes no new streams. */
  #isLeaving = false
  #isCorked = false
  #unread: Buffer = NOTHING
  /** A block of headers that goes on in the next frame. */
  #block: { readonly stream: number; readonly isLast: boolean; bytes: Buffer } | undefined
  #maxStreams = Infinity
  #maxFrameBytes = DEFAULT_MAX_FRAME_BYTES
  #initialSendWindow = DEFAULT_WINDOW_BYTES
  #sendWindow = DEFAULT_WINDOW_BYTES
  #received = 0

  constructor(socket: Duplex, onClose: (problem: string) => void) {
    this.#socket = socket
    this.#onClose = onClose
    socket.on("data", (chunk: Buffer) => this.#read(chunk))
    socket.on("drain", () => this.#flush())
    // "close" follows
    socket.on("error", ({ message }) => {
      this.#problem ??= message
    })
    socket.once("end", () => socket.destroy())
    socket.once("close", () => this.#end())
    this.#send(PREFACE)
    this.#send(settingsFrame([
      [settings.headerTableSize, Hpack.TABLE_BYTES],
      [settings.enablePush, 0],
      [settings.initialWindowSize, WINDOW_BYTES]
    ]))
    this.#send(frame(types.windowUpdate, 0, 0, uint32(WINDOW_BYTES - DEFAULT_WINDOW_BYTES)))
  }

  /** Whether it takes further requests. */
  get isUsable(): boolean {
    return !this.#isOver && !this.#isLeaving && this.#next <= MAX_STREAM_NUMBER
  }

  /** Why it was lost, when it was. */
  get problem(): string | undefined {
    return this.#isOver ? this.#problem : undefined
  }

  /** Begins a request, or lets it wait until the peer allows one more. */
  open(headers: Readonly<Record<string, string>>, listener: StreamListener): Stream {
    const entry: Entry = {
      listener,
      block: Hpack.encode(headers),
      number: undefined,
      pending: [],
      pendingBytes: 0,
      isDrainAwaited: false,
      isEnding: false,
      isSent: false,
      sendWindow: this.#initialSendWindow,
      received: 0
    }
    this.#queue.add(entry)
    this.#admit()
    const add = (data: Buffer) => {
      entry.pending.push(data)
      entry.pendingBytes += data.length
    }
    return {
      write: (data) => {
        if (!this.#isOpen(entry)) return true
        add(data)
        this.#flushStream(entry)
        entry.isDrainAwaited = entry.pendingBytes > WRITER_PATIENCE_BYTES
        return !entry.isDrainAwaited
      },
      end: (data) => {
        if (!this.#isOpen(entry)) return
        if (data !== undefined) add(data)
        entry.isEnding = true
        this.#flushStream(entry)
      },
      consume: () => {
        if (entry.received < WINDOW_UPDATE_BYTES || entry.number === undefined || !this.#isOpen(entry)) return
        this.#send(frame(types.windowUpdate, 0, entry.number, uint32(entry.received)))
        entry.received = 0
      },
      reset: (code) => {
        if (!this.#isOpen(entry)) return
        if (entry.number !== undefined) this.#send(frame(types.resetStream, 0, entry.number, uint32(code)))
        this.#close(entry, undefined)
      }
    }
  }

  /** Calls back when the peer has answered, or the connection is over. */
  ping(onAnswer: () => void): void {
    if (this.#isOver) return onAnswer()
    this.#pings.push(onAnswer)
    this.#send(frame(types.ping, 0, 0, Buffer.alloc(PING_BYTES)))
  }

  /** Ends it, with all that is under way on it. */
  destroy(problem: string): void {
    this.#problem ??= problem
    this.#socket.destroy()
    this.#end()
  }

  #isOpen(entry: Entry): boolean {
    return entry.number === undefined ? this.#queue.has(entry) : this.#streams.has(entry.number)
  }

  #end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#problem ??= "the connection was closed"
    const entries = [...this.#streams.values(), ...this.#queue]
    this.#streams.clear()
    this.#queue.clear()
    for (const entry of entries) entry.listener.onClose(undefined)
    for (const onAnswer of this.#pings.splice(0)) onAnswer()
    this.#onClose(this.#problem)
  }

  /** In one write with all else that this turn of the event loop sends. */
  #send(bytes: Buffer): void {
    if (!this.#isCorked) {
      this.#isCorked = true
      this.#socket.cork()
      process.nextTick(() => {
        this.#isCorked = false
        this.#socket.uncork()
      })
    }
    this.#socket.write(bytes)
  }

  /** Begins what waits, as far as the peer allows. */
  #admit(): void {
    for (const entry of this.#queue) {
      if (this.#isOver || this.#isLeaving || this.#streams.size >= this.#maxStreams) return
      if (this.#next > MAX_STREAM_NUMBER) return this.#leave(MAX_STREAM_NUMBER)
      this.#queue.delete(entry)
      entry.number = this.#next
      entry.sendWindow = this.#initialSendWindow
      this.#next += 2
      this.#streams.set(entry.number, entry)
      this.#sendHeaders(entry.number, entry.block)
      this.#flushStream(entry)
    }
  }

  #sendHeaders(stream: number, block: Buffer): void {
    for (let at = 0; at === 0 || at < block.length; at += this.#maxFrameBytes) {
      const part = block.subarray(at, at + this.#maxFrameBytes)
      const isLast = at + part.length === block.length
      this.#send(
        frame(at === 0 ? types.headers : types.continuation, isLast ? flags.endHeaders : 0, stream, part)
      )
    }
  }

  #flush(): void {
    for (const entry of this.#streams.values()) this.#flushStream(entry)
  }

  /** Sends of a stream what both windows and the socket take. */
  #flushStream(entry: Entry): void {
    const { number } = entry
    if (number === undefined || entry.isSent) return
    for (let first = entry.pending[0]; first !== undefined; first = entry.pending[0]) {
      const room = Math.min(this.#sendWindow, entry.sendWindow, this.#maxFrameBytes)
      if (first.length > 0 && room <= 0 || this.#socket.writableNeedDrain) break
      const part = first.subarray(0, room)
      if (part.length === first.length) entry.pending.shift()
      else entry.pending[0] = first.subarray(room)
      entry.pendingBytes -= part.length
      entry.sendWindow -= part.length
      this.#sendWindow -= part.length
      entry.isSent = entry.isEnding && entry.pending.length === 0
      this.#send(frame(types.data, entry.isSent ? flags.endStream : 0, number, part))
    }
    if (entry.isEnding && !entry.isSent && entry.pending.length === 0) {
      entry.isSent = true
      this.#send(frame(types.data, flags.endStream, number, NOTHING))
    }
    if (entry.isDrainAwaited && entry.pendingBytes === 0) {
      entry.isDrainAwaited = false
      entry.listener.onDrain()
    }
  }

  #close(entry: Entry, reset: number | undefined): void {
    if (!this.#isOpen(entry)) return
    if (entry.number === undefined) this.#queue.delete(entry)
    else this.#streams.delete(entry.number)
    entry.listener.onClose(reset)
    this.#admit()
    if (this.#isLeaving && this.#streams.size === 0) this.destroy(LEFT)
  }

  #read(chunk: Buffer): void {
    let unread = this.#unread.length === 0 ? chunk : Buffer.concat([this.#unread, chunk])
    try {
      while (unread.length >= FRAME_HEADER_BYTES) {
        const length = unread.readUIntBE(0, 3)
        if (length > DEFAULT_MAX_FRAME_BYTES) throw new ProtocolError(`a frame of ${length} bytes`)
        const end = FRAME_HEADER_BYTES + length
        if (unread.length < end) break
        const header = unread
        unread = unread.subarray(end)
        this.#frame(
          header.readUInt8(3),
          header.readUInt8(4),
          header.readUInt32BE(5) & THIRTY_ONE_BITS,
          header.subarray(FRAME_HEADER_BYTES, end)
        )
        if (this.#isOver) return
      }
      this.#unread = unread
    } catch (cause) {
      if (!(cause instanceof ProtocolError || cause instanceof Hpack.MalformedBlock)) throw cause
      this.destroy(`the server does not speak HTTP/2: ${cause.message}`)
    }
  }

  #frame(type: number, flag: number, stream: number, payload: Buffer): void {
    if (this.#block !== undefined && type !== types.continuation) throw new ProtocolError("a block of headers is torn")
    if (payload.length < (shortest[type] ?? 0)) throw new ProtocolError(`a frame of type ${type} is too short`)
    switch (type) {
      case types.data:
        return this.#onData(flag, stream, payload)
      case types.headers: {
        const body = unpadded(flag, payload).subarray((flag & flags.priority) === 0 ? 0 : PRIORITY_BYTES)
        this.#block = { stream, isLast: (flag & flags.endStream) !== 0, bytes: body }
        return this.#onBlock(flag)
      }
      case types.continuation: {
        if (this.#block === undefined || this.#block.stream !== stream) {
          throw new ProtocolError("a block of headers without a beginning")
        }
        this.#block.bytes = Buffer.concat([this.#block.bytes, payload])
        return this.#onBlock(flag)
      }
      case types.resetStream: {
        const entry = this.#streams.get(stream)
        if (entry !== undefined) this.#close(entry, payload.readUInt32BE())
        return
      }
      case types.settings:
        return (flag & flags.acknowledged) === 0 ? this.#onSettings(payload) : undefined
      case types.ping: {
        if ((flag & flags.acknowledged) === 0) this.#send(frame(types.ping, flags.acknowledged, 0, payload))
        else this.#pings.shift()?.()
        return
      }
      case types.goAway:
        return this.#onGoAway(payload)
      case types.windowUpdate:
        return this.#onWindowUpdate(stream, payload.readUInt32BE() & THIRTY_ONE_BITS)
      case types.pushPromise:
        throw new ProtocolError("it pushes, which it was asked not to")
    }
  }

  #onData(flag: number, stream: number, payload: Buffer): void {
    this.#received += payload.length
    if (this.#received >= WINDOW_UPDATE_BYTES) {
      this.#send(frame(types.windowUpdate, 0, 0, uint32(this.#received)))
      this.#received = 0
    }
    const entry = this.#streams.get(stream)
    if (entry === undefined) return
    entry.received += payload.length
    const data = unpadded(flag, payload)
    if (data.length > 0) entry.listener.onData(data)
    if ((flag & flags.endStream) !== 0) this.#onEnd(entry)
  }

  #onBlock(flag: number): void {
    const block = this.#block
    if (block === undefined) return
    if (block.bytes.length > MAX_BLOCK_BYTES) throw new ProtocolError(`headers of more than ${MAX_BLOCK_BYTES} bytes`)
    if ((flag & flags.endHeaders) === 0) return
    this.#block = undefined
    const entry = this.#streams.get(block.stream)
    if (entry === undefined) return
    const headers = Hpack.decode(block.bytes)
    // what comes before the answer, such as 100, is no answer
    if (headers.get(":status")?.startsWith("1") !== true) entry.listener.onHeaders(headers)
    if (block.isLast) this.#onEnd(entry)
  }

  #onEnd(entry: Entry): void {
    if (entry.number === undefined || !this.#isOpen(entry)) return
    entry.listener.onEnd()
    // the server has said everything, so nobody reads what is still to be sent
    if (!entry.isSent) this.#send(frame(types.resetStream, 0, entry.number, uint32(resets.cancel)))
    this.#close(entry, resets.none)
  }

  #onSettings(payload: Buffer): void {
    for (let at = 0; at + SETTING_BYTES <= payload.length; at += SETTING_BYTES) {
      const value = payload.readUInt32BE(at + 2)
      switch (payload.readUInt16BE(at)) {
        case settings.maxConcurrentStreams:
          this.#maxStreams = value
          break
        case settings.maxFrameSize:
          this.#maxFrameBytes = value
          break
        case settings.initialWindowSize: {
          for (const entry of this.#streams.values()) entry.sendWindow += value - this.#initialSendWindow
          this.#initialSendWindow = value
          break
        }
      }
    }
    this.#send(frame(types.settings, flags.acknowledged, 0, NOTHING))
    this.#admit()
    this.#flush()
  }

  #onGoAway(payload: Buffer): void {
    const code = payload.readUInt32BE(4)
    if (code !== resets.none) this.#problem ??= `the server ended the connection with code ${code}`
    this.#leave(payload.readUInt32BE() & THIRTY_ONE_BITS)
  }

  /** Goes on with the streams up to the last one that is served, and takes no others. */
  #leave(last: number): void {
    this.#isLeaving = true
    const refused = [...this.#streams.values()].filter(({ number }) => number !== undefined && number > last)
    for (const entry of [...refused, ...this.#queue]) this.#close(entry, resets.refusedStream)
    if (this.#streams.size === 0) this.destroy(LEFT)
  }

  #onWindowUpdate(stream: number, bytes: number): void {
    if (stream === 0) {
      this.#sendWindow += bytes
      if (this.#sendWindow > MAX_WINDOW_BYTES) throw new ProtocolError("the window is too large")
      return this.#flush()
    }
    const entry = this.#streams.get(stream)
    if (entry === undefined) return
    entry.sendWindow += bytes
    this.#flushStream(entry)
  }
}

/** Without the padding that data and headers may have. */
const unpadded = (flag: number, payload: Buffer): Buffer => {
  if ((flag & flags.padded) === 0) return payload
  const padding = payload[0] ?? 0
  if (padding >= payload.length) throw new ProtocolError("a frame of nothing but padding")
  return payload.subarray(1, payload.length - padding)
}
