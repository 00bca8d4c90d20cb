/**
 * The server's side of an HTTP/2 connection: it takes streams, as many at a time as it allows. What a peer who means no
 * good could make it keep or do is bounded: see the limits here and those of both sides in http2Connection.ts.
 */
import type { Duplex } from "node:stream"
import * as Hpack from "./hpack.ts"
import { type Entry, Http2Connection, type Stream, type StreamListener, WINDOW_BYTES } from "./http2Connection.ts"
import {
  DEFAULT_WINDOW_BYTES,
  frame,
  type FrameReader,
  PREFACE,
  ProtocolError,
  resets,
  settings,
  settingsFrame,
  types,
  uint32
} from "./http2Frames.ts"

/** What peers may use where nobody says anything else. */
const TABLE_BYTES = 4096

/**
 * Streams that a peer may reset one right after the other, and how many more each second: every one has cost the server
 * the beginning of a call, which the bound of open streams does not bound. A whole connection's worth of calls may be left
 * at once.
 */
const MAX_RESETS = 4096
const RESETS_PER_SECOND = 128

/** A peer that was told to go has this long to close the connection, in milliseconds: a round trip around the world. */
const LINGER_MILLIS = 1_000

const MILLIS_PER_SECOND = 1000

/** A request that is being answered. */
export interface ServerStream extends Stream {
  /** The headers of the answer, as a block. An answer of trailers alone has none. */
  readonly respond: (block: Buffer) => void
}

/** Who answers a request. */
export interface ServerStreamListener extends StreamListener {
  /** Comes first. */
  onOpen(stream: ServerStream): void
}

/** How a connection serves. */
export interface Options {
  /** Streams that may be open at once. */
  readonly maxStreams: number
  /** A connection without a stream is closed after this time. */
  readonly idleMillis: number
  readonly onRequest: (headers: Hpack.Headers) => ServerStreamListener
  /** Hears once why the connection is over. */
  readonly onClose: (problem: string) => void
}

/** A connection on which requests are served. */
export class Http2ServerConnection extends Http2Connection {
  protected override readonly peer = "the client"
  readonly #options: Options
  readonly #table = new Hpack.Table(TABLE_BYTES)
  readonly #idle: NodeJS.Timeout
  #linger: NodeJS.Timeout | undefined
  #hasGreeted = false
  #isLeaving = false
  #resetsLeft = MAX_RESETS
  #resetAt = performance.now()

  constructor(socket: Duplex, options: Options) {
    super(socket, DEFAULT_WINDOW_BYTES, options.onClose)
    this.#options = options
    this.#idle = setTimeout(() => {
      if (this.isBusy) this.#idle.refresh()
      else this.leave()
    }, options.idleMillis)
    this.#idle.unref()
    this.send(settingsFrame([
      [settings.maxConcurrentStreams, options.maxStreams],
      [settings.maxHeaderListSize, Hpack.MAX_LIST_BYTES]
    ]))
    this.send(frame(types.windowUpdate, 0, 0, uint32(WINDOW_BYTES - DEFAULT_WINDOW_BYTES)))
  }

  /** Takes no more streams, and is over when those that are open are. */
  leave(): void {
    if (this.#isLeaving || this.isOver) return
    this.#isLeaving = true
    this.sendGoAway(resets.none)
    this.#endWhenIdle()
  }

  protected override readPreface(reader: FrameReader): boolean {
    this.#hasGreeted ||= reader.expect(PREFACE)
    return this.#hasGreeted
  }

  protected override onBlock(stream: number, block: Buffer, isLast: boolean): void {
    // also of streams that nobody reads: the next block may refer to what this one puts into the table
    const headers = Hpack.decode(block, this.#table)
    const known = this.streams.get(stream)
    if (known !== undefined) {
      if (!isLast || known.isHeard) throw new ProtocolError("headers within a request")
      return
    }
    if (stream % 2 === 0) throw new ProtocolError(`a request with the number ${stream}`)
    if (stream <= this.lastTaken) return
    this.lastTaken = stream
    if (this.#isLeaving || this.streams.size >= this.#options.maxStreams) {
      return this.sendReset(stream, resets.refusedStream)
    }
    const listener = this.#options.onRequest(headers)
    const entry = this.newEntry(listener)
    this.start(entry, stream)
    listener.onOpen({
      ...this.streamOf(entry),
      respond: (block) => {
        if (this.isOpen(entry)) this.sendHeaders(stream, block, false)
      }
    })
  }

  protected override onHeard(): void {}

  protected override onSent(entry: Entry): void {
    // the answer does not depend on what the peer has not said yet: it need not say it
    if (!entry.isHeard && entry.number !== undefined) this.sendReset(entry.number, resets.none)
    this.close(entry, resets.none)
  }

  protected override onReset(): void {
    const now = performance.now()
    const earned = (now - this.#resetAt) * RESETS_PER_SECOND / MILLIS_PER_SECOND
    this.#resetsLeft = Math.min(MAX_RESETS, this.#resetsLeft + earned) - 1
    this.#resetAt = now
    if (this.#resetsLeft < 0) this.fail("the client resets too many streams", resets.enhanceYourCalm)
  }

  protected override onClosed(): void {
    this.#idle.refresh()
    if (this.#isLeaving) this.#endWhenIdle()
  }

  protected override onGoAway(): void {
    this.leave()
  }

  protected override onSettings(): void {}

  protected override onOver(): void {
    clearTimeout(this.#idle)
    clearTimeout(this.#linger)
  }

  /** What was said last still reaches the peer. */
  #endWhenIdle(): void {
    if (this.isBusy || this.isOver || this.#linger !== undefined) return
    this.endWriting()
    this.#linger = setTimeout(() => this.destroy("the server has ended the connection"), LINGER_MILLIS)
    this.#linger.unref()
  }
}
