/**
 * An HTTP/2 connection (RFC 9113), as far as gRPC uses it, over a stream of bytes that is open or opens: what client and
 * server have in common. Node's own costs a program 15 ms when it is loaded, since it brings TLS and HTTP/1.1 along, can't
 * be in a start-up snapshot, and takes a quarter of a millisecond of every call of a process that has slept meanwhile.
 *
 * Every frame of one turn of the event loop leaves in one write. What is received counts for the connection's window at
 * once, and for a stream's when its reader asks for more: a slow reader holds up its own stream, and no other.
 */
import type { Duplex } from "node:stream"
import * as Hpack from "./hpack.ts"
import {
  blockOf,
  DEFAULT_MAX_FRAME_BYTES,
  DEFAULT_WINDOW_BYTES,
  flags,
  type Frame,
  frame,
  FrameReader,
  NOTHING,
  ProtocolError,
  resets,
  settings,
  settingsOf,
  THIRTY_ONE_BITS,
  types,
  uint32,
  unpadded
} from "./http2Frames.ts"

const PING_BYTES = 8

/** Bytes that may be under way to this side on the whole connection: a round trip at a gigabyte a second. */
export const WINDOW_BYTES = 4 * 1024 * 1024

/** Data that leaves in one write; there may be more of headers and statuses. */
const MAX_WRITE_BYTES = 128 * 1024

/** Largest window there is: more is the peer's mistake. */
const MAX_WINDOW_BYTES = 2 ** 31 - 1

/** Bytes that wait for a peer's window until a writer is asked to wait. */
const WRITER_PATIENCE_BYTES = 64 * 1024

/** Largest block of headers that is read, in its frames. */
const MAX_BLOCK_BYTES = Hpack.MAX_LIST_BYTES

/**
 * Bytes of answers that a peer may leave unread. Data waits for its reader; what is sent without waiting are headers,
 * statuses and answers to pings, which only who means no good asks for and does not read.
 */
const MAX_UNREAD_BYTES = 16 * 1024 * 1024

/** What a stream tells its owner. After `onClose` there is nothing more. */
export interface StreamListener {
  /** The first ones, and after the last data the trailers. */
  onHeaders(headers: Hpack.Headers): void
  onData(chunk: Buffer): void
  /** The peer has said everything. */
  onEnd(): void
  /** There is room for more data. */
  onDrain(): void
  /** It is over: ended with a code, or lost with the connection. */
  onClose(reset: number | undefined): void
}

/** A request or its answer under way. */
export interface Stream {
  /** Sends data, or keeps it until it may be sent; `false` asks to wait for `onDrain`. */
  readonly write: (data: Buffer) => boolean
  /** There is no more data but this; the end travels with it, or with a block of trailers. */
  readonly end: (data?: Buffer, trailers?: Buffer) => void
  /** What was received so far makes room for more. */
  readonly consume: () => void
  /** Ends it with a code, if it is not over yet. */
  readonly reset: (code: number) => void
}

/** The state of a stream. */
export interface Entry {
  readonly listener: StreamListener
  /** None until the peer allows one more stream. */
  number: number | undefined
  readonly pending: Array<Buffer>
  pendingBytes: number
  trailers: Buffer | undefined
  isDrainAwaited: boolean
  /** The writer has said everything. */
  isEnding: boolean
  /** All of it was sent. */
  isSent: boolean
  /** The peer has said everything. */
  isHeard: boolean
  sendWindow: number
  /** Bytes of its window that the peer has used. */
  received: number
}

/** A connection; `onClose` hears once why it is none any more. */
export abstract class Http2Connection {
  readonly #socket: Duplex
  readonly #onClose: (problem: string) => void
  /** Bytes that may be under way of one stream, until its reader asks for more. */
  readonly #streamWindow: number
  readonly #reader = new FrameReader()
  readonly #pings: Array<() => void> = []
  #problem: string | undefined
  #isOver = false
  /** Frames of this turn of the event loop, and their bytes. */
  #outgoing: Array<Buffer> = []
  #outgoingBytes = 0
  /** A block of headers that goes on in the next frame. */
  #block:
    | { readonly stream: number; readonly isLast: boolean; readonly parts: Array<Buffer>; bytes: number }
    | undefined
  #maxFrameBytes = DEFAULT_MAX_FRAME_BYTES
  #initialSendWindow = DEFAULT_WINDOW_BYTES
  #sendWindow = DEFAULT_WINDOW_BYTES
  #received = 0
  /** Streams of which something waits for room. */
  readonly #waiting = new Set<Entry>()
  protected readonly streams = new Map<number, Entry>()
  /** The last stream of the peer's that this side took. */
  protected lastTaken = 0

  constructor(socket: Duplex, streamWindow: number, onClose: (problem: string) => void) {
    this.#socket = socket
    this.#onClose = onClose
    this.#streamWindow = streamWindow
    socket.on("data", (chunk: Buffer) => this.#read(chunk))
    socket.on("drain", () => this.#flush())
    // "close" follows
    socket.on("error", ({ message }) => {
      this.#problem ??= message
    })
    socket.once("end", () => socket.destroy())
    socket.once("close", () => this.#end())
  }

  get isOver(): boolean {
    return this.#isOver
  }

  /** Why it was lost, when it was. */
  get problem(): string | undefined {
    return this.#isOver ? this.#problem : undefined
  }

  /** Whether anything is under way on it. */
  get isBusy(): boolean {
    return this.streams.size > 0
  }

  /** Calls back when the peer has answered, or the connection is over. */
  ping(onAnswer: () => void): void {
    if (this.#isOver) return onAnswer()
    this.#pings.push(onAnswer)
    this.send(frame(types.ping, 0, 0, Buffer.alloc(PING_BYTES)))
  }

  /** Ends it, with all that is under way on it. */
  destroy(problem: string): void {
    this.#problem ??= problem
    this.#socket.destroy()
    this.#end()
  }

  // ---------------------------------------------------------------------------------------------------------------------
  // what the two sides do differently

  /** The peer's name in texts. */
  protected abstract readonly peer: string
  /** Takes what comes before the first frame; whether that is done. */
  protected abstract readPreface(reader: FrameReader): boolean
  /** A whole block of headers. */
  protected abstract onBlock(stream: number, block: Buffer, isLast: boolean): void
  /** The peer has said everything on a stream. */
  protected abstract onHeard(entry: Entry): void
  /** This side has said everything on a stream. */
  protected abstract onSent(entry: Entry): void
  /** A stream that was open is over. */
  protected abstract onClosed(): void
  /** The peer takes no streams beyond the last one. */
  protected abstract onGoAway(last: number): void
  /** The peer ended a stream that it had opened, or that this side had. */
  protected abstract onReset(entry: Entry): void
  protected abstract onSettings(values: ReadonlyMap<number, number>): void
  /** The connection is over, and so are its streams. */
  protected abstract onOver(): void

  // ---------------------------------------------------------------------------------------------------------------------
  // what they share

  protected newEntry(listener: StreamListener): Entry {
    return {
      listener,
      number: undefined,
      pending: [],
      pendingBytes: 0,
      trailers: undefined,
      isDrainAwaited: false,
      isEnding: false,
      isSent: false,
      isHeard: false,
      sendWindow: this.#initialSendWindow,
      received: 0
    }
  }

  /** A stream of this side begins. */
  protected start(entry: Entry, number: number): void {
    entry.number = number
    entry.sendWindow = this.#initialSendWindow
    this.streams.set(number, entry)
  }

  protected isOpen({ number }: Entry): boolean {
    return number !== undefined && this.streams.has(number)
  }

  /** How the owner of a stream uses it. */
  protected streamOf(entry: Entry): Stream {
    const add = (data: Buffer) => {
      entry.pending.push(data)
      entry.pendingBytes += data.length
    }
    return {
      write: (data) => {
        if (!this.isOpen(entry)) return true
        add(data)
        this.flushStream(entry)
        entry.isDrainAwaited = entry.pendingBytes > WRITER_PATIENCE_BYTES
        return !entry.isDrainAwaited
      },
      end: (data, trailers) => {
        if (!this.isOpen(entry)) return
        if (data !== undefined) add(data)
        entry.trailers = trailers
        entry.isEnding = true
        this.flushStream(entry)
      },
      consume: () => {
        if (entry.received < this.#streamWindow / 2 || entry.number === undefined || !this.isOpen(entry)) return
        this.send(frame(types.windowUpdate, 0, entry.number, uint32(entry.received)))
        entry.received = 0
      },
      reset: (code) => {
        if (!this.isOpen(entry)) return
        if (entry.number !== undefined) this.sendReset(entry.number, code)
        this.close(entry, undefined)
      }
    }
  }

  /** In one write with all else that this turn of the event loop sends. */
  protected send(bytes: Buffer): void {
    if (!this.#socket.writable) return
    if (this.#outgoing.length === 0) process.nextTick(() => this.#write())
    this.#outgoing.push(bytes)
    this.#outgoingBytes += bytes.length
  }

  /** Ends what this side says; all that was said still goes out. */
  protected endWriting(): void {
    this.#write()
    this.#socket.end()
  }

  protected sendReset(stream: number, code: number): void {
    this.send(frame(types.resetStream, 0, stream, uint32(code)))
  }

  protected sendGoAway(code: number): void {
    this.send(frame(types.goAway, 0, 0, Buffer.concat([uint32(this.lastTaken), uint32(code)])))
  }

  protected sendHeaders(stream: number, block: Buffer, isLast: boolean): void {
    for (let at = 0; at === 0 || at < block.length; at += this.#maxFrameBytes) {
      const part = block.subarray(at, at + this.#maxFrameBytes)
      const end = at + part.length === block.length ? flags.endHeaders : 0
      this.send(
        at === 0
          ? frame(types.headers, end | (isLast ? flags.endStream : 0), stream, part)
          : frame(types.continuation, end, stream, part)
      )
    }
  }

  /** Sends of a stream what both windows and the socket take. */
  protected flushStream(entry: Entry): void {
    const { number } = entry
    if (number === undefined || entry.isSent) return
    for (let first = entry.pending[0]; first !== undefined; first = entry.pending[0]) {
      const room = Math.min(this.#sendWindow, entry.sendWindow, this.#maxFrameBytes)
      if (first.length > 0 && room <= 0 || this.#isFull) break
      const part = first.subarray(0, room)
      if (part.length === first.length) entry.pending.shift()
      else entry.pending[0] = first.subarray(room)
      entry.pendingBytes -= part.length
      entry.sendWindow -= part.length
      this.#sendWindow -= part.length
      entry.isSent = entry.isEnding && entry.pending.length === 0 && entry.trailers === undefined
      this.send(frame(types.data, entry.isSent ? flags.endStream : 0, number, part))
    }
    if (entry.isEnding && !entry.isSent && entry.pending.length === 0) {
      entry.isSent = true
      if (entry.trailers === undefined) this.send(frame(types.data, flags.endStream, number, NOTHING))
      else this.sendHeaders(number, entry.trailers, true)
    }
    if (entry.pending.length > 0) this.#waiting.add(entry)
    else this.#waiting.delete(entry)
    if (entry.isDrainAwaited && entry.pendingBytes === 0) {
      entry.isDrainAwaited = false
      entry.listener.onDrain()
    }
    if (entry.isSent && this.isOpen(entry)) this.onSent(entry)
  }

  protected close(entry: Entry, reset: number | undefined): void {
    if (entry.number === undefined || !this.streams.delete(entry.number)) return
    this.#waiting.delete(entry)
    entry.listener.onClose(reset)
    this.onClosed()
  }

  #end(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#problem ??= "the connection was closed"
    const entries = [...this.streams.values()]
    this.streams.clear()
    this.#waiting.clear()
    for (const entry of entries) entry.listener.onClose(undefined)
    this.onOver()
    for (const onAnswer of this.#pings.splice(0)) onAnswer()
    this.#onClose(this.#problem)
  }

  /** Whether what is to be sent has to wait for what was sent. */
  get #isFull(): boolean {
    return this.#socket.writableNeedDrain || this.#outgoingBytes >= MAX_WRITE_BYTES
  }

  /** One write costs a sleeping process less than several that are put together by its socket. */
  #write(): void {
    const [first] = this.#outgoing
    if (first === undefined) return
    const bytes = this.#outgoing.length === 1 ? first : Buffer.concat(this.#outgoing, this.#outgoingBytes)
    const wasFull = this.#outgoingBytes >= MAX_WRITE_BYTES
    this.#outgoing = []
    this.#outgoingBytes = 0
    if (!this.#socket.writable) return
    this.#socket.write(bytes)
    if (this.#socket.writableLength > MAX_UNREAD_BYTES) this.destroy(`${this.peer} does not read its answers`)
    else if (wasFull && !this.#socket.writableNeedDrain) this.#flush()
  }

  #flush(): void {
    for (const entry of this.#waiting) this.flushStream(entry)
  }

  #read(chunk: Buffer): void {
    this.#reader.add(chunk)
    try {
      if (!this.readPreface(this.#reader)) return
      for (let next = this.#reader.next(); next !== undefined; next = this.#reader.next()) {
        this.#onFrame(next)
        if (this.#isOver) return
      }
    } catch (cause) {
      if (!(cause instanceof ProtocolError || cause instanceof Hpack.MalformedBlock)) throw cause
      this.fail(`${this.peer} does not speak HTTP/2: ${cause.message}`, resets.protocolError)
    }
  }

  /** Ends it and tells the peer why, as far as that still reads. */
  protected fail(problem: string, code: number): void {
    this.sendGoAway(code)
    this.#write()
    this.destroy(problem)
  }

  #onFrame(next: Frame): void {
    const { flag, payload, stream, type } = next
    if (this.#block !== undefined && type !== types.continuation) throw new ProtocolError("a block of headers is torn")
    switch (type) {
      case types.data:
        return this.#onData(next)
      case types.headers: {
        this.#block = { stream, isLast: (flag & flags.endStream) !== 0, parts: [], bytes: 0 }
        return this.#onBlockPart(flag, blockOf(next))
      }
      case types.continuation: {
        if (this.#block === undefined || this.#block.stream !== stream) {
          throw new ProtocolError("a block of headers without a beginning")
        }
        return this.#onBlockPart(flag, payload)
      }
      case types.resetStream: {
        const entry = this.streams.get(stream)
        if (entry === undefined) return
        this.onReset(entry)
        return this.close(entry, payload.readUInt32BE())
      }
      case types.settings:
        return (flag & flags.acknowledged) === 0 ? this.#onSettings(payload) : undefined
      case types.ping: {
        if ((flag & flags.acknowledged) === 0) this.send(frame(types.ping, flags.acknowledged, 0, payload))
        else this.#pings.shift()?.()
        return
      }
      case types.goAway: {
        const code = payload.readUInt32BE(4)
        if (code !== resets.none) this.#problem ??= `${this.peer} ended the connection with code ${code}`
        return this.onGoAway(payload.readUInt32BE() & THIRTY_ONE_BITS)
      }
      case types.windowUpdate:
        return this.#onWindowUpdate(stream, payload.readUInt32BE() & THIRTY_ONE_BITS)
      case types.pushPromise:
        throw new ProtocolError("it pushes, which it was asked not to")
    }
  }

  #onData(next: Frame): void {
    const { flag, payload, stream } = next
    this.#received += payload.length
    if (this.#received >= WINDOW_BYTES / 2) {
      this.send(frame(types.windowUpdate, 0, 0, uint32(this.#received)))
      this.#received = 0
    }
    const entry = this.streams.get(stream)
    if (entry === undefined) return
    if (entry.isHeard) throw new ProtocolError("data after the end of a stream")
    entry.received += payload.length
    if (entry.received > this.#streamWindow) throw new ProtocolError("more data than a stream had room for")
    const data = unpadded(next)
    if (data.length > 0) entry.listener.onData(data)
    if ((flag & flags.endStream) !== 0) this.#onEnd(entry)
  }

  #onBlockPart(flag: number, part: Buffer): void {
    const block = this.#block
    if (block === undefined) return
    block.bytes += part.length
    if (block.bytes > MAX_BLOCK_BYTES) throw new ProtocolError(`headers of more than ${MAX_BLOCK_BYTES} bytes`)
    if (part.length > 0) block.parts.push(part)
    if ((flag & flags.endHeaders) === 0) return
    this.#block = undefined
    const [first = NOTHING] = block.parts
    this.onBlock(block.stream, block.parts.length > 1 ? Buffer.concat(block.parts) : first, block.isLast)
    const entry = this.streams.get(block.stream)
    if (block.isLast && entry !== undefined) this.#onEnd(entry)
  }

  #onEnd(entry: Entry): void {
    entry.isHeard = true
    entry.listener.onEnd()
    if (this.isOpen(entry)) this.onHeard(entry)
  }

  #onSettings(payload: Buffer): void {
    const values = settingsOf(payload)
    const maxFrameBytes = values.get(settings.maxFrameSize) ?? this.#maxFrameBytes
    if (maxFrameBytes < DEFAULT_MAX_FRAME_BYTES) throw new ProtocolError("frames that are too small")
    this.#maxFrameBytes = maxFrameBytes
    const window = values.get(settings.initialWindowSize)
    if (window !== undefined) {
      for (const entry of this.streams.values()) widen(entry, window - this.#initialSendWindow)
      this.#initialSendWindow = window
    }
    this.send(frame(types.settings, flags.acknowledged, 0, NOTHING))
    this.onSettings(values)
    this.#flush()
  }

  #onWindowUpdate(stream: number, bytes: number): void {
    if (stream === 0) {
      this.#sendWindow += bytes
      if (this.#sendWindow > MAX_WINDOW_BYTES) throw new ProtocolError("the window is too large")
      return this.#flush()
    }
    const entry = this.streams.get(stream)
    if (entry === undefined) return
    widen(entry, bytes)
    this.flushStream(entry)
  }
}

const widen = (entry: Entry, bytes: number): void => {
  entry.sendWindow += bytes
  if (entry.sendWindow > MAX_WINDOW_BYTES) throw new ProtocolError("the window is too large")
}

/**
 * Ends a connection whose peer hangs or vanished without a word, while anything is under way on it. Call the timer off
 * when the connection is over.
 */
export const keepAlive = (
  connection: Http2Connection,
  { everyMillis, problem, timeoutMillis }: {
    readonly everyMillis: number
    readonly timeoutMillis: number
    readonly problem: string
  }
): NodeJS.Timeout => {
  const timer = setInterval(() => {
    if (!connection.isBusy) return
    const limit = setTimeout(() => connection.destroy(problem), timeoutMillis)
    connection.ping(() => clearTimeout(limit))
  }, everyMillis)
  timer.unref()
  return timer
}
