/**
 * Calls over Node's own HTTP/2, without grpc-js: that library costs a program some 30 ms before its first call, and every
 * call of a process that has slept meanwhile half a millisecond. One connection at a time; no load balancing, no
 * compression.
 *
 * The protocol: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import * as Redacted from "effect/Redacted"
import * as Http2 from "node:http2"
import * as Net from "node:net"
import {
  CONNECT_TIMEOUT_MILLIS,
  type Credentials,
  KEEPALIVE_TIME_MILLIS,
  KEEPALIVE_TIMEOUT_MILLIS,
  MAX_MESSAGE_BYTES,
  type Options,
  type Pem,
  unixPathOf
} from "../GrpcConnection.ts"
import {
  type Channel,
  codeNumbers,
  type Incoming,
  type Opening,
  type Outgoing,
  type Settle,
  type Status
} from "./channel.ts"

/** Before each message: one byte that says whether it is compressed, four with its length. */
const FRAME_HEADER_BYTES = 5

/** Bytes that may be under way to this side, of one call and of the whole connection: a round trip at a gigabyte a second. */
const WINDOW_BYTES = 4 * 1024 * 1024

/** Memory of a connection, in megabytes: some calls whose windows are full. */
const SESSION_MEMORY_MEGABYTES = 64

/** The largest `grpc-timeout`: it has eight digits. */
const MAX_TIMEOUT_MILLIS = 99_999_999

/** Error codes of RFC 9113, section 7. */
const resets = { refusedStream: 0x7, cancel: 0x8, enhanceYourCalm: 0xb, inadequateSecurity: 0xc } as const

/** What gRPC's specification says that a reset means; any other is an internal error. */
const codesOfResets: Readonly<Record<number, number>> = {
  [resets.refusedStream]: codeNumbers.unavailable,
  [resets.cancel]: codeNumbers.cancelled,
  [resets.enhanceYourCalm]: codeNumbers.resourceExhausted,
  [resets.inadequateSecurity]: codeNumbers.permissionDenied
}

/** What gRPC's specification says that the answer of something that is no gRPC server means. */
const codesOfHttp: Readonly<Record<number, number>> = {
  400: codeNumbers.internal,
  401: codeNumbers.unauthenticated,
  403: codeNumbers.permissionDenied,
  404: codeNumbers.unimplemented,
  429: codeNumbers.unavailable,
  502: codeNumbers.unavailable,
  503: codeNumbers.unavailable,
  504: codeNumbers.unavailable
}

const HTTP_OK = 200

type Headers = Http2.IncomingHttpHeaders

const one = (value: string | ReadonlyArray<string> | undefined): string | undefined =>
  typeof value === "object" ? value[0] : value

/** Texts of statuses are percent-encoded. */
const decodeText = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Values whose names end with `-bin` are bytes. */
const metadataOf = (headers: Headers): NonNullable<Status["metadata"]> => ({
  get: (key) => {
    const value = one(headers[key])
    return value === undefined ? [] : [key.endsWith("-bin") ? Buffer.from(value, "base64") : value]
  }
})

const statusOf = (headers: Headers): Status | undefined => {
  const code = one(headers["grpc-status"])
  return code === undefined
    ? undefined
    : { code: Number(code), details: decodeText(one(headers["grpc-message"]) ?? ""), metadata: metadataOf(headers) }
}

const frame = (message: Buffer): Buffer => {
  const framed = Buffer.allocUnsafe(FRAME_HEADER_BYTES + message.length)
  framed[0] = 0
  framed.writeUInt32BE(message.length, 1)
  message.copy(framed, FRAME_HEADER_BYTES)
  return framed
}

/** Who waits for something to happen; each is told once. */
class Waiters {
  readonly #listeners = new Set<() => void>()

  add(listener: () => void): void {
    this.#listeners.add(listener)
  }

  remove(listener: () => void): void {
    this.#listeners.delete(listener)
  }

  wake(): void {
    const listeners = [...this.#listeners]
    this.#listeners.clear()
    for (const listener of listeners) listener()
  }
}

/** One call, of whatever kind. */
class Call implements Incoming, Outgoing {
  readonly #stream: Http2.ClientHttp2Stream
  readonly #maxMessageBytes: number
  readonly #readers = new Waiters()
  readonly #writers = new Waiters()
  readonly #statusListeners: Array<(status: Status) => void> = []
  readonly #deadline: NodeJS.Timeout | undefined
  #chunks: Array<Buffer> = []
  #buffered = 0
  #status: Status | undefined
  /** What else comes does not count: this side has ended the call. */
  #isAbandoned = false

  constructor(
    stream: Http2.ClientHttp2Stream,
    options: {
      readonly deadline: number | undefined
      readonly maxMessageBytes: number
      readonly lost: Session["lost"]
    }
  ) {
    this.#stream = stream
    this.#maxMessageBytes = options.maxMessageBytes
    if (options.deadline !== undefined) {
      this.#deadline = setTimeout(() => {
        this.#abandon({ code: codeNumbers.deadlineExceeded, details: "the deadline has passed" })
      }, Math.max(0, options.deadline - Date.now()))
    }
    stream.on("response", (headers) => {
      const http = headers[":status"]
      const status = statusOf(headers)
      if (status !== undefined) this.#settle(status)
      else if (http !== HTTP_OK) {
        this.#abandon({
          code: codesOfHttp[http ?? 0] ?? codeNumbers.unknown,
          details: `the answer is HTTP ${http}, not gRPC`
        })
      }
    })
    stream.on("trailers", (headers) => {
      const status = statusOf(headers)
      if (status !== undefined) this.#settle(status)
    })
    stream.on("readable", () => this.#readers.wake())
    stream.on("drain", () => this.#writers.wake())
    stream.on("end", () => {
      // the server has said everything, so nobody reads what is still to be sent
      if (!stream.writableEnded) stream.close(resets.cancel)
      this.#readers.wake()
    })
    // "close" follows, with what it means
    let failure: string | undefined
    stream.on("error", ({ message }) => {
      failure = message
    })
    stream.on("close", () => {
      const lost = options.lost(failure)
      this.#settle(
        lost === undefined
          ? {
            code: codesOfResets[stream.rstCode ?? 0] ?? codeNumbers.internal,
            details: stream.rstCode === 0
              ? "the server ended the call without a status"
              : `the server reset the call with code ${stream.rstCode}`
          }
          : { code: codeNumbers.unavailable, details: lost }
      )
      this.#readers.wake()
    })
  }

  get status(): Status | undefined {
    return this.#status
  }

  get readableEnded(): boolean {
    return this.#status !== undefined &&
      (this.#isAbandoned || this.#stream.readableEnded || this.#stream.destroyed)
  }

  get destroyed(): boolean {
    return this.#status !== undefined && (this.#isAbandoned || this.#stream.closed || this.#stream.destroyed)
  }

  get writableNeedDrain(): boolean {
    return this.#stream.writableNeedDrain && !this.destroyed
  }

  read(): Buffer | null {
    while (!this.#isAbandoned) {
      const message = this.#message()
      if (message !== undefined) return message
      const chunk: Buffer | null = this.#isAbandoned ? null : this.#stream.read()
      if (chunk === null) return null
      this.#chunks.push(chunk)
      this.#buffered += chunk.length
    }
    return null
  }

  write(message: Buffer): boolean {
    return this.#fits(message) && this.#stream.writable ? this.#stream.write(frame(message)) : true
  }

  end(): void {
    if (this.#stream.writable) this.#stream.end()
  }

  /** The only request. Its end travels with it. */
  writeOnly(message: Buffer): void {
    if (this.#fits(message) && this.#stream.writable) this.#stream.end(frame(message))
  }

  cancel(): void {
    this.#abandon({ code: codeNumbers.cancelled, details: "the caller left the call" })
  }

  onStatus(listener: (status: Status) => void): void {
    if (this.#status === undefined) this.#statusListeners.push(listener)
    else listener(this.#status)
  }

  once(event: "readable" | "end" | "close" | "drain", listener: () => void): void {
    if (event !== "drain") this.#readers.add(listener)
    if (event === "drain" || event === "close") this.#writers.add(listener)
  }

  off(_event: "readable" | "end" | "close" | "drain", listener: () => void): void {
    this.#readers.remove(listener)
    this.#writers.remove(listener)
  }

  /** The next whole message of what was read, if there is one. */
  #message(): Buffer | undefined {
    if (this.#buffered < FRAME_HEADER_BYTES) return undefined
    const [first = Buffer.alloc(0)] = this.#chunks
    const head = first.length >= FRAME_HEADER_BYTES ? first : this.#joined()
    const end = FRAME_HEADER_BYTES + head.readUInt32BE(1)
    if (end - FRAME_HEADER_BYTES > this.#maxMessageBytes) {
      this.#abandon({
        code: codeNumbers.resourceExhausted,
        details: `a message of ${
          end - FRAME_HEADER_BYTES
        } bytes is larger than the ${this.#maxMessageBytes} that are accepted`
      })
      return undefined
    }
    if (head[0] !== 0) {
      this.#abandon({ code: codeNumbers.internal, details: "the server compresses, which it was not asked to" })
      return undefined
    }
    if (this.#buffered < end) return undefined
    const all = this.#joined()
    this.#chunks = all.length === end ? [] : [all.subarray(end)]
    this.#buffered -= end
    return all.subarray(FRAME_HEADER_BYTES, end)
  }

  /** Whether a request may be sent; one that may not ends the call. */
  #fits(message: Buffer): boolean {
    if (message.length <= this.#maxMessageBytes) return true
    this.#abandon({
      code: codeNumbers.resourceExhausted,
      details: `a message of ${message.length} bytes is larger than the ${this.#maxMessageBytes} that may be sent`
    })
    return false
  }

  #joined(): Buffer {
    const [first] = this.#chunks
    if (first !== undefined && this.#chunks.length === 1) return first
    const all = Buffer.concat(this.#chunks)
    this.#chunks = [all]
    return all
  }

  #abandon(status: Status): void {
    if (this.#status !== undefined && this.#stream.closed) return
    this.#isAbandoned = true
    this.#settle(status)
    this.#stream.close(resets.cancel)
    this.#readers.wake()
  }

  #settle(status: Status): void {
    if (this.#status !== undefined) return
    this.#status = status
    clearTimeout(this.#deadline)
    for (const listener of this.#statusListeners) listener(status)
    this.#writers.wake()
  }
}

/** Takes the one response of a call. */
const awaitOne = (call: Call, settle: Settle): void => {
  let response: Buffer | undefined
  const look = () => {
    for (let message = call.read(); message !== null; message = call.read()) response ??= message
    const { status } = call
    if (status !== undefined && call.readableEnded) {
      settle(status.code === codeNumbers.ok ? null : status, response)
    } else {
      call.once("readable", look)
    }
  }
  look()
}

const pem = (content: Pem): string | Buffer => typeof content === "string" ? content : Buffer.from(content)

const tlsOptions = ({ tls }: Credentials) =>
  tls === undefined ? {} : {
    ...(tls.ca === undefined ? {} : { ca: pem(tls.ca) }),
    ...(tls.certificate === undefined
      ? {}
      : { cert: pem(tls.certificate.chain), key: pem(Redacted.value(tls.certificate.key)) }),
    ...(tls.serverName === undefined ? {} : { servername: tls.serverName })
  }

const timeoutHeader = (deadline: number | undefined) =>
  deadline === undefined
    ? {}
    : { "grpc-timeout": `${Math.min(MAX_TIMEOUT_MILLIS, Math.max(1, Math.ceil(deadline - Date.now())))}m` }

/** A connection, and why it was lost. */
interface Session {
  readonly session: Http2.ClientHttp2Session
  /** Why it was lost, if it was; `failure` is what a call on it failed with. */
  readonly lost: (failure: string | undefined) => string | undefined
  readonly giveUp: (why: string) => void
}

const connect = ({ address, credentials = {} }: Options): Session => {
  let problem: string | undefined
  const scheme = credentials.tls === undefined ? "http" : "https"
  const path = unixPathOf(address)
  const session = Http2.connect(path === undefined ? `${scheme}://${address}` : "http://localhost", {
    settings: { enablePush: false, initialWindowSize: WINDOW_BYTES },
    maxSessionMemory: SESSION_MEMORY_MEGABYTES,
    ...tlsOptions(credentials),
    ...(path === undefined ? {} : { createConnection: () => Net.connect({ path }) })
  })
  const limit = setTimeout(
    () => session.destroy(new Error(`no connection within ${CONNECT_TIMEOUT_MILLIS} ms`)),
    CONNECT_TIMEOUT_MILLIS
  )
  session.once("connect", () => {
    clearTimeout(limit)
    session.setLocalWindowSize(WINDOW_BYTES)
  })
  session.on("error", ({ message }) => {
    problem ??= message
  })
  session.once("close", () => {
    clearTimeout(limit)
    problem ??= "the connection was closed"
  })
  return {
    session,
    lost: (failure) => session.destroyed ? problem ?? failure ?? "the connection was lost" : undefined,
    giveUp: (why) => {
      problem ??= why
      session.destroy()
    }
  }
}

/** Gives up a connection whose peer hangs or vanished without a word, while there are calls on it. */
const keepAlive = ({ giveUp: end, session }: Session, everyMillis: number, isBusy: () => boolean): void => {
  const giveUp = () => end("the server does not answer")
  const timer = setInterval(() => {
    if (!isBusy() || session.destroyed || session.connecting) return
    const limit = setTimeout(giveUp, KEEPALIVE_TIMEOUT_MILLIS)
    session.ping(() => clearTimeout(limit))
  }, everyMillis)
  timer.unref()
  session.once("close", () => clearInterval(timer))
}

/** A channel to the server of these options. */
export const make = (options: Options): Channel => {
  const maxMessageBytes = options.maxMessageBytes ?? MAX_MESSAGE_BYTES
  const probeMillis = options.probeMillis ??
    (unixPathOf(options.address) === undefined ? KEEPALIVE_TIME_MILLIS : undefined)
  let current: Session | undefined
  let busy = 0

  const sessionNow = (): Session => {
    if (current !== undefined && !current.session.closed && !current.session.destroyed) return current
    current = connect(options)
    if (probeMillis !== undefined) keepAlive(current, probeMillis, () => busy > 0)
    return current
  }

  const open = ({ deadline, headers, path }: Opening): Call => {
    const { lost, session } = sessionNow()
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc+proto",
      te: "trailers",
      "user-agent": "fast-sandbox",
      ...timeoutHeader(deadline),
      ...headers
    })
    busy += 1
    stream.once("close", () => {
      busy -= 1
    })
    return new Call(stream, { deadline, maxMessageBytes, lost })
  }

  return {
    unary: (opening, message, settle) => {
      const call = open(opening)
      call.writeOnly(message)
      awaitOne(call, settle)
      return call
    },
    clientStreaming: (opening, settle) => {
      const call = open(opening)
      awaitOne(call, settle)
      return call
    },
    serverStreaming: (opening, message) => {
      const call = open(opening)
      call.writeOnly(message)
      return call
    },
    bidiStreaming: open,
    close: () => current?.session.destroy()
  }
}
