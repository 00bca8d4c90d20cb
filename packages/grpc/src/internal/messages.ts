/**
 * Messages in the data of an HTTP/2 stream, each behind one byte that says whether it is compressed and four with its
 * length: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import { codeNumbers } from "./channel.ts"

const HEADER_BYTES = 5

/** What was received is copied into a buffer that has room for more, twice as much each time. */
const GROWTH = 2

const NOTHING = Buffer.alloc(0)

/** A message as it is sent. */
export const frame = (message: Buffer): Buffer => {
  const framed = Buffer.allocUnsafe(HEADER_BYTES + message.length)
  framed[0] = 0
  framed.writeUInt32BE(message.length, 1)
  message.copy(framed, HEADER_BYTES)
  return framed
}

/** What was received is no message that is read here; `code` is one of gRPC's numbers. */
export class Unreadable extends Error {
  override readonly name = "Unreadable"
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }
}

/** Finds the messages in what is received. */
export class MessageReader {
  readonly #maxBytes: number
  /** Messages that were taken are parts of it: nothing of it is written twice. */
  #buffer: Buffer = NOTHING
  #begin = 0
  #end = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Whether what is left is the beginning of a message. */
  get isWithinMessage(): boolean {
    return this.#begin < this.#end
  }

  add(chunk: Buffer): void {
    const unread = this.#end - this.#begin
    if (unread === 0) {
      this.#buffer = chunk
      this.#begin = 0
      this.#end = chunk.length
      return
    }
    // a chunk that was kept as it came has no room behind it
    if (this.#buffer.length - this.#end < chunk.length) {
      const larger = Buffer.allocUnsafeSlow(GROWTH * (unread + chunk.length))
      this.#buffer.copy(larger, 0, this.#begin, this.#end)
      this.#buffer = larger
      this.#begin = 0
      this.#end = unread
    }
    this.#end += chunk.copy(this.#buffer, this.#end)
  }

  /** Takes the next message that is there as a whole. Throws an {@link Unreadable}. */
  next(): Buffer | undefined {
    const unread = this.#end - this.#begin
    if (unread < HEADER_BYTES) return undefined
    const length = this.#buffer.readUInt32BE(this.#begin + 1)
    if (length > this.#maxBytes) {
      throw new Unreadable(
        codeNumbers.resourceExhausted,
        `a message of ${length} bytes is larger than the ${this.#maxBytes} that are accepted`
      )
    }
    if (this.#buffer[this.#begin] !== 0) {
      throw new Unreadable(codeNumbers.internal, "a message is compressed, which nobody asked for")
    }
    if (unread < HEADER_BYTES + length) return undefined
    const begin = this.#begin + HEADER_BYTES
    this.#begin = begin + length
    return this.#buffer.subarray(begin, this.#begin)
  }
}

/** Why a message may not be sent, if so. */
export const excessOf = (
  message: Buffer,
  maxBytes: number
): { readonly code: number; readonly details: string } | undefined =>
  message.length <= maxBytes ? undefined : {
    code: codeNumbers.resourceExhausted,
    details: `a message of ${message.length} bytes is larger than the ${maxBytes} that may be sent`
  }

/** Who waits for something to happen; each is told once. */
class Waiters {
  #listeners: ReadonlyArray<() => void> = []

  add(listener: () => void): void {
    this.#listeners = [...this.#listeners, listener]
  }

  remove(listener: () => void): void {
    this.#listeners = this.#listeners.filter((other) => other !== listener)
  }

  wake(): void {
    const listeners = this.#listeners
    this.#listeners = []
    for (const listener of listeners) listener()
  }
}

/** The two halves of a call, for those who wait until there is something to read or room to write. */
export abstract class Halves {
  protected readonly readers = new Waiters()
  protected readonly writers = new Waiters()

  once(event: "readable" | "end" | "close" | "drain", listener: () => void): void {
    if (event !== "drain") this.readers.add(listener)
    if (event === "drain" || event === "close") this.writers.add(listener)
  }

  off(_event: "readable" | "end" | "close" | "drain", listener: () => void): void {
    this.readers.remove(listener)
    this.writers.remove(listener)
  }
}
