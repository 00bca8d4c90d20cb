/**
 * The client's side of an HTTP/2 connection: it opens streams, as many at a time as the server allows.
 */
import type { Duplex } from "node:stream"
import * as Hpack from "./hpack.ts"
import { type Entry, Http2Connection, type Stream, type StreamListener, WINDOW_BYTES } from "./http2Connection.ts"
import {
  DEFAULT_WINDOW_BYTES,
  frame,
  PREFACE,
  resets,
  settings,
  settingsFrame,
  THIRTY_ONE_BITS,
  types,
  uint32
} from "./http2Frames.ts"

/** No table: blocks do not depend on each other then, and those of calls that were left need not be read. */
const TABLE_BYTES = 0

/** Streams have odd numbers below this; then another connection is needed. */
const MAX_STREAM_NUMBER = THIRTY_ONE_BITS

const LEFT = "the server ended the connection"

/** A connection on which requests are made. */
export class Http2ClientConnection extends Http2Connection {
  protected override readonly peer = "the server"
  readonly #table = new Hpack.Table(TABLE_BYTES)
  /** Streams that the server does not allow yet, with their headers, in their order. */
  readonly #queue = new Map<Entry, Buffer>()
  #next = 1
  /** The server takes no new streams. */
  #isLeaving = false
  #maxStreams = Infinity

  constructor(socket: Duplex, onClose: (problem: string) => void) {
    super(socket, WINDOW_BYTES, onClose)
    this.send(PREFACE)
    this.send(settingsFrame([
      [settings.headerTableSize, TABLE_BYTES],
      [settings.enablePush, 0],
      [settings.initialWindowSize, WINDOW_BYTES]
    ]))
    this.send(frame(types.windowUpdate, 0, 0, uint32(WINDOW_BYTES - DEFAULT_WINDOW_BYTES)))
  }

  /** Whether it takes further requests. */
  get isUsable(): boolean {
    return !this.isOver && !this.#isLeaving && this.#next <= MAX_STREAM_NUMBER
  }

  override get isBusy(): boolean {
    return super.isBusy || this.#queue.size > 0
  }

  /** Begins a request with a block of headers, or lets it wait until the server allows one more. */
  open(block: Buffer, listener: StreamListener): Stream {
    const entry = this.newEntry(listener)
    this.#queue.set(entry, block)
    this.#admit()
    return this.streamOf(entry)
  }

  protected override isOpen(entry: Entry): boolean {
    return this.#queue.has(entry) || super.isOpen(entry)
  }

  protected override close(entry: Entry, reset: number | undefined): void {
    if (!this.#queue.delete(entry)) return super.close(entry, reset)
    entry.listener.onClose(reset)
  }

  protected override readPreface(): boolean {
    return true
  }

  protected override onBlock(stream: number, block: Buffer): void {
    const entry = this.streams.get(stream)
    if (entry === undefined) return
    const headers = Hpack.decode(block, this.#table)
    // what comes before the answer, such as 100, is no answer
    if (headers.get(":status")?.startsWith("1") !== true) entry.listener.onHeaders(headers)
  }

  protected override onHeard(entry: Entry): void {
    // the server has said everything, so nobody reads what is still to be sent
    if (!entry.isSent && entry.number !== undefined) this.sendReset(entry.number, resets.cancel)
    this.close(entry, resets.none)
  }

  protected override onSent(): void {}

  protected override onReset(): void {}

  protected override onClosed(): void {
    this.#admit()
    if (this.#isLeaving && !this.isBusy) this.destroy(LEFT)
  }

  protected override onOver(): void {
    for (const entry of this.#queue.keys()) this.close(entry, undefined)
  }

  protected override onSettings(values: ReadonlyMap<number, number>): void {
    this.#maxStreams = values.get(settings.maxConcurrentStreams) ?? this.#maxStreams
    this.#admit()
  }

  protected override onGoAway(last: number): void {
    this.#leave(last)
  }

  /** Begins what waits, as far as the server allows. */
  #admit(): void {
    for (const [entry, block] of this.#queue) {
      if (this.isOver || this.#isLeaving || this.streams.size >= this.#maxStreams) return
      if (this.#next > MAX_STREAM_NUMBER) return this.#leave(MAX_STREAM_NUMBER)
      this.#queue.delete(entry)
      this.start(entry, this.#next)
      this.sendHeaders(this.#next, block, false)
      this.#next += 2
      this.flushStream(entry)
    }
  }

  /** Goes on with the streams up to the last one that is served, and takes no others. */
  #leave(last: number): void {
    this.#isLeaving = true
    const refused = [...this.streams.values()].filter(({ number }) => number !== undefined && number > last)
    for (const entry of [...refused, ...this.#queue.keys()]) this.close(entry, resets.refusedStream)
    if (!this.isBusy) this.destroy(LEFT)
  }
}
