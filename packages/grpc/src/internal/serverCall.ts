/**
 * A gRPC call as its server sees it, over a stream of HTTP/2. What its caller sends is kept up to the stream's window
 * until somebody reads it, so that whoever is not admitted costs no more than that.
 *
 * The protocol: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import { type BoundaryError, DeadlineExceeded, InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import type { Metadata, Peer } from "../GrpcCaller.ts"
import { type ServerStatus, toStatus } from "../GrpcStatus.ts"
import { codeNumbers } from "./channel.ts"
import * as Hpack from "./hpack.ts"
import type { ServerStream, ServerStreamListener } from "./http2ServerConnection.ts"
import { excessOf, frame, Halves, MessageReader, Unreadable } from "./messages.ts"
import type * as Pump from "./pump.ts"

const CONTENT_TYPE = "application/grpc"

const answerHeaders = { ":status": "200", "content-type": CONTENT_TYPE }

const ANSWER = Hpack.encode(answerHeaders)
const SUCCESS = Hpack.encode({ "grpc-status": String(codeNumbers.ok) })

const MILLIS_PER_SECOND = 1000

/** Longest time that Node's timers take; who waits longer waits for ever. */
const MAX_TIMER_MILLIS = 2 ** 31 - 1

const millisOf: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 }

/** What the caller waits for, in milliseconds; no number where it says something else. */
const timeoutOf = (header: string): number => {
  const [, digits, unit = ""] = /^(\d{1,8})([HMSmun])$/.exec(header) ?? []
  return Number(digits) * (millisOf[unit] ?? NaN)
}

/** Texts of statuses: printable ASCII without `%`, and the bytes of all else. */
const encodeText = (text: string): string => text.replaceAll(/[^\x20-\x24\x26-\x7e]+/g, encodeURIComponent)

const trailersOf = ({ code, details, metadata }: ServerStatus): Record<string, string> => ({
  "grpc-status": String(code),
  ...(details === "" ? {} : { "grpc-message": encodeText(details) }),
  ...Object.fromEntries(Array.from(metadata ?? [], ([name, [value]]) => [name, value?.toString("base64") ?? ""]))
})

/** The answer to what is no gRPC at all, if it is none. */
const refusalOf = (headers: Hpack.Headers): Buffer | undefined =>
  headers.get(":method") !== "POST"
    ? Hpack.encode({ ":status": "405", allow: "POST" })
    : headers.get("content-type")?.startsWith(CONTENT_TYPE) !== true
    ? Hpack.encode({ ":status": "415" })
    : undefined

/** How calls are taken. */
export interface Options {
  readonly peer: Peer
  /** Largest message that is accepted or sent, in bytes. */
  readonly maxMessageBytes: number
  /** Serves a call whose headers are in order. */
  readonly serve: (call: ServerCall) => void
}

/** One call, of whatever kind. */
export class ServerCall extends Halves implements Pump.Source<Buffer>, Pump.Sink<Buffer>, ServerStreamListener {
  readonly path: string
  readonly peer: Peer
  readonly metadata: Metadata
  /** Milliseconds since the epoch. */
  readonly deadline: number | undefined
  readonly #options: Options
  readonly #headers: Hpack.Headers
  readonly #messages: MessageReader
  readonly #leavers: Array<() => void> = []
  #stream: ServerStream | undefined
  #deadlineTimer: NodeJS.Timeout | undefined
  #requestTimer: NodeJS.Timeout | undefined
  #hasAnswered = false
  #needsDrain = false
  /** The caller has said everything. */
  #isHeard = false
  /** All of it was read. */
  #isRead = false
  /** This side has told how the call ended, or the caller does not wait for that. */
  #isOver = false
  #endedWith: number | undefined

  constructor(headers: Hpack.Headers, options: Options) {
    super()
    const timeout = headers.get("grpc-timeout")
    this.path = headers.get(":path") ?? ""
    this.peer = options.peer
    this.metadata = { get: (name) => name.endsWith("-bin") ? undefined : headers.get(name.toLowerCase()) }
    this.deadline = timeout === undefined ? undefined : Date.now() + timeoutOf(timeout)
    this.#headers = headers
    this.#options = options
    this.#messages = new MessageReader(options.maxMessageBytes)
  }

  // ---------------------------------------------------------------------------------------------------------------------
  // what the stream tells

  onOpen(stream: ServerStream): void {
    this.#stream = stream
    const refusal = refusalOf(this.#headers)
    if (refusal !== undefined) {
      this.#isOver = true
      return stream.end(undefined, refusal)
    }
    const encoding = this.#headers.get("grpc-encoding") ?? "identity"
    if (encoding !== "identity") {
      return this.end({
        code: codeNumbers.unimplemented,
        details: `messages that are compressed (${encoding}) are not accepted`
      })
    }
    if (this.deadline !== undefined && Number.isNaN(this.deadline)) {
      return this.end(toStatus(new InvalidArgument({ field: "grpc-timeout", problem: "is no duration" })))
    }
    if (this.deadline !== undefined) this.#awaitDeadline(this.deadline)
    // a small request is there as a whole when what came with its headers was read
    queueMicrotask(() => {
      if (!this.#isOver) this.#options.serve(this)
    })
  }

  onHeaders(): void {}

  onData(chunk: Buffer): void {
    if (this.#isOver) return
    this.#messages.add(chunk)
    this.readers.wake()
  }

  onEnd(): void {
    this.#isHeard = true
    clearTimeout(this.#requestTimer)
    this.readers.wake()
  }

  onDrain(): void {
    this.#needsDrain = false
    this.writers.wake()
  }

  onClose(): void {
    clearTimeout(this.#requestTimer)
    clearTimeout(this.#deadlineTimer)
    this.#leave(codeNumbers.cancelled)
  }

  // ---------------------------------------------------------------------------------------------------------------------
  // what the handler does

  /** The number of the code with which the call ended before its handler did, if so. */
  get endedWith(): number | undefined {
    return this.#endedWith
  }

  /** Calls back when the call has ended before its handler did. */
  onLeft(listener: () => void): void {
    this.#leavers.push(listener)
  }

  /** Ends the call when its request has not come to its end by then. */
  limitRequest(millis: number): void {
    if (this.#isHeard || this.#isOver) return
    this.#requestTimer = setTimeout(() => {
      this.#giveUp(toStatus(
        new DeadlineExceeded({
          operation: `the request, which has to be complete within ${millis / MILLIS_PER_SECOND} seconds,`
        })
      ))
    }, millis)
  }

  get readableEnded(): boolean {
    return this.#isRead
  }

  get destroyed(): boolean {
    return this.#isOver
  }

  get writableNeedDrain(): boolean {
    return this.#needsDrain && !this.#isOver
  }

  read(): Buffer | null {
    if (this.#isOver) return null
    try {
      const message = this.#messages.next()
      if (message !== undefined) return message
    } catch (cause) {
      if (!(cause instanceof Unreadable)) throw cause
      this.#giveUp({ code: cause.code, details: cause.message })
      return null
    }
    // the rest of the next one may be larger than the window
    if (!this.#isHeard) this.#stream?.consume()
    else if (this.#messages.isWithinMessage) {
      this.#giveUp(toStatus(new InvalidArgument({ field: "request", problem: "ends within a message" })))
    } else this.#isRead = true
    return null
  }

  write(message: Buffer): boolean {
    if (this.#isOver || !this.#fits(message)) return true
    this.#answer()
    this.#needsDrain = this.#stream?.write(frame(message)) === false
    return !this.#needsDrain
  }

  /** The one answer, and with it the end. */
  answer(message: Buffer): void {
    if (this.#isOver || !this.#fits(message)) return
    this.#answer()
    this.#isOver = true
    this.#stream?.end(frame(message), SUCCESS)
  }

  /** The end of a stream of answers. */
  finish(): void {
    if (this.#isOver) return
    this.#answer()
    this.#isOver = true
    this.#stream?.end(undefined, SUCCESS)
  }

  /** Ends the call with a failure; what was written comes first. */
  end(status: ServerStatus): void {
    if (this.#isOver) return
    this.#isOver = true
    const trailers = trailersOf(status)
    this.#stream?.end(undefined, Hpack.encode(this.#hasAnswered ? trailers : { ...answerHeaders, ...trailers }))
  }

  // ---------------------------------------------------------------------------------------------------------------------

  #awaitDeadline(deadline: number): void {
    const left = deadline - Date.now()
    if (left > MAX_TIMER_MILLIS) return
    this.#deadlineTimer = setTimeout(
      () => this.#giveUp({ code: codeNumbers.deadlineExceeded, details: "the deadline has passed" }),
      Math.max(0, left)
    )
  }

  #answer(): void {
    if (this.#hasAnswered) return
    this.#hasAnswered = true
    this.#stream?.respond(ANSWER)
  }

  /** Whether a message may be sent; one that may not ends the call. */
  #fits(message: Buffer): boolean {
    const excess = excessOf(message, this.#options.maxMessageBytes)
    if (excess !== undefined) this.#giveUp(excess)
    return excess === undefined
  }

  /** Ends the call before its handler does. */
  #giveUp(status: ServerStatus): void {
    if (this.#isOver) return
    this.#endedWith = status.code
    this.end(status)
    this.#leave(status.code)
  }

  #leave(code: number): void {
    if (!this.#isOver) this.#endedWith = code
    this.#isOver = true
    if (this.#endedWith === undefined) return
    for (const leaver of this.#leavers.splice(0)) leaver()
    this.readers.wake()
    this.writers.wake()
  }
}

/** The one message of a request that is no stream. Suspends for ever when the call ends before it is there. */
export const onlyMessage = (call: ServerCall): Effect.Effect<Buffer, BoundaryError> =>
  Effect.callback<Buffer, BoundaryError>((resume) => {
    const fail = (problem: string) => resume(Effect.fail(new InvalidArgument({ field: "request", problem })))
    let only: Buffer | undefined
    const look = () => {
      for (let message = call.read(); message !== null; message = call.read()) {
        if (only !== undefined) return fail("is more than one message")
        only = message
      }
      if (!call.readableEnded) {
        if (!call.destroyed) call.once("readable", look)
      } else if (only === undefined) fail("is missing")
      else resume(Effect.succeed(only))
    }
    look()
    return Effect.sync(() => call.off("readable", look))
  })
