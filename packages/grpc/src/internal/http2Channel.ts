/**
 * Calls over an HTTP/2 of our own, without grpc-js: that library costs a program some 30 ms before its first call, and
 * every call of a process that has slept meanwhile half a millisecond. One connection at a time; no load balancing, no
 * compression.
 *
 * The protocol: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import * as Redacted from "effect/Redacted"
import * as Net from "node:net"
import * as Tls from "node:tls"
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
import type { Headers } from "./hpack.ts"
import { Http2Connection, resets, type Stream, type StreamListener } from "./http2Connection.ts"

/** Before each message: one byte that says whether it is compressed, four with its length. */
const FRAME_HEADER_BYTES = 5

/** The largest `grpc-timeout`: it has eight digits. */
const MAX_TIMEOUT_MILLIS = 99_999_999

/** What gRPC's specification says that a reset means; any other is an internal error. */
const codesOfResets: Readonly<Record<number, number>> = {
  [resets.refusedStream]: codeNumbers.unavailable,
  [resets.cancel]: codeNumbers.cancelled,
  [resets.enhanceYourCalm]: codeNumbers.resourceExhausted,
  [resets.inadequateSecurity]: codeNumbers.permissionDenied
}

/** What gRPC's specification says that the answer of something that is no gRPC server means. */
const codesOfHttp: Readonly<Record<string, number>> = {
  400: codeNumbers.internal,
  401: codeNumbers.unauthenticated,
  403: codeNumbers.permissionDenied,
  404: codeNumbers.unimplemented,
  429: codeNumbers.unavailable,
  502: codeNumbers.unavailable,
  503: codeNumbers.unavailable,
  504: codeNumbers.unavailable
}

const HTTP_OK = "200"

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
    const value = headers.get(key)
    return value === undefined ? [] : [key.endsWith("-bin") ? Buffer.from(value, "base64") : value]
  }
})

const statusOf = (headers: Headers): Status | undefined => {
  const code = headers.get("grpc-status")
  return code === undefined
    ? undefined
    : { code: Number(code), details: decodeText(headers.get("grpc-message") ?? ""), metadata: metadataOf(headers) }
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
class Call implements Incoming, Outgoing, StreamListener {
  readonly #connection: Http2Connection
  readonly #stream: Stream
  readonly #maxMessageBytes: number
  readonly #onClosed: () => void
  readonly #readers = new Waiters()
  readonly #writers = new Waiters()
  readonly #statusListeners: Array<(status: Status) => void> = []
  readonly #deadline: NodeJS.Timeout | undefined
  #chunks: Array<Buffer> = []
  #buffered = 0
  #needsDrain = false
  #status: Status | undefined
  /** The stream is over; what came before may still be read. */
  #isClosed = false
  /** What else comes does not count: this side has ended the call. */
  #isAbandoned = false

  constructor(connection: Http2Connection, options: {
    readonly headers: Readonly<Record<string, string>>
    readonly deadline: number | undefined
    readonly maxMessageBytes: number
    readonly onClosed: () => void
  }) {
    this.#connection = connection
    this.#maxMessageBytes = options.maxMessageBytes
    this.#onClosed = options.onClosed
    if (options.deadline !== undefined) {
      this.#deadline = setTimeout(() => {
        this.#abandon({ code: codeNumbers.deadlineExceeded, details: "the deadline has passed" })
      }, Math.max(0, options.deadline - Date.now()))
    }
    this.#stream = connection.open(options.headers, this)
  }

  onHeaders(headers: Headers): void {
    const http = headers.get(":status")
    const status = statusOf(headers)
    if (status !== undefined) this.#settle(status)
    else if (http !== undefined && http !== HTTP_OK) {
      this.#abandon({
        code: codesOfHttp[http] ?? codeNumbers.unknown,
        details: `the answer is HTTP ${http}, not gRPC`
      })
    }
  }

  onData(chunk: Buffer): void {
    if (this.#isAbandoned) return
    this.#chunks.push(chunk)
    this.#buffered += chunk.length
    this.#readers.wake()
  }

  onEnd(): void {
    this.#settle({ code: codeNumbers.internal, details: "the server ended the call without a status" })
  }

  onDrain(): void {
    this.#needsDrain = false
    this.#writers.wake()
  }

  onClose(reset: number | undefined): void {
    this.#isClosed = true
    this.#settle(
      reset === undefined
        ? { code: codeNumbers.unavailable, details: this.#connection.problem ?? "the connection was lost" }
        : {
          code: codesOfResets[reset] ?? codeNumbers.internal,
          details: `the server reset the call with code ${reset}`
        }
    )
    this.#readers.wake()
    this.#onClosed()
  }

  get status(): Status | undefined {
    return this.#status
  }

  get readableEnded(): boolean {
    return this.#status !== undefined && (this.#isAbandoned || this.#isClosed)
  }

  get destroyed(): boolean {
    return this.readableEnded
  }

  get writableNeedDrain(): boolean {
    return this.#needsDrain && !this.destroyed
  }

  read(): Buffer | null {
    if (this.#isAbandoned) return null
    const message = this.#message()
    if (message !== undefined) return message
    // the rest of the next one may be larger than the window
    this.#stream.consume()
    return null
  }

  write(message: Buffer): boolean {
    if (!this.#fits(message)) return true
    this.#needsDrain = !this.#stream.write(frame(message))
    return !this.#needsDrain
  }

  end(): void {
    this.#stream.end()
  }

  /** The only request. Its end travels with it. */
  writeOnly(message: Buffer): void {
    if (this.#fits(message)) this.#stream.end(frame(message))
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

  /** The next whole message of what was received, if there is one. */
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
    const all = first.length >= end ? first : this.#joined()
    if (all.length === end) this.#chunks.shift()
    else this.#chunks[0] = all.subarray(end)
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
    if (this.readableEnded) return
    this.#isAbandoned = true
    this.#settle(status)
    this.#stream.reset(resets.cancel)
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

/** Where the server is: a host's name is what its certificate must carry. */
const targetOf = (address: string): { readonly host: string; readonly port: number } => {
  const at = address.lastIndexOf(":")
  return { host: address.slice(0, at).replace(/^\[(.*)\]$/, "$1"), port: Number(address.slice(at + 1)) }
}

/** A socket that connects, and the event that says that it has. */
const dial = ({ address, credentials = {} }: Options): { readonly socket: Net.Socket; readonly opened: string } => {
  const path = unixPathOf(address)
  if (path !== undefined) return { socket: Net.connect({ path }), opened: "connect" }
  const { host, port } = targetOf(address)
  if (credentials.tls === undefined) {
    return { socket: Net.connect({ host, port, noDelay: true }), opened: "connect" }
  }
  const named = Net.isIP(host) === 0 ? { servername: host } : {}
  return {
    socket: Tls.connect({ host, port, ALPNProtocols: ["h2"], ...named, ...tlsOptions(credentials) }).setNoDelay(),
    opened: "secureConnect"
  }
}

const connect = (options: Options, onClose: () => void): Http2Connection => {
  const { opened, socket } = dial(options)
  const connection = new Http2Connection(socket, () => {
    clearTimeout(limit)
    onClose()
  })
  const limit = setTimeout(
    () => connection.destroy(`no connection within ${CONNECT_TIMEOUT_MILLIS} ms`),
    CONNECT_TIMEOUT_MILLIS
  )
  socket.once(opened, () => clearTimeout(limit))
  return connection
}

/** Gives up a connection whose peer hangs or vanished without a word, while there are calls on it. */
const keepAlive = (connection: Http2Connection, everyMillis: number, isBusy: () => boolean): NodeJS.Timeout => {
  const timer = setInterval(() => {
    if (!isBusy()) return
    const limit = setTimeout(() => connection.destroy("the server does not answer"), KEEPALIVE_TIMEOUT_MILLIS)
    connection.ping(() => clearTimeout(limit))
  }, everyMillis)
  timer.unref()
  return timer
}

/** A channel to the server of these options. */
export const make = (options: Options): Channel => {
  const maxMessageBytes = options.maxMessageBytes ?? MAX_MESSAGE_BYTES
  const isLocal = unixPathOf(options.address) !== undefined
  const probeMillis = options.probeMillis ?? (isLocal ? undefined : KEEPALIVE_TIME_MILLIS)
  const base = {
    ":method": "POST",
    ":scheme": options.credentials?.tls === undefined ? "http" : "https",
    ":authority": isLocal ? "localhost" : options.address
  }
  let current: Http2Connection | undefined
  let busy = 0

  const connectionNow = (): Http2Connection => {
    if (current?.isUsable === true) return current
    const connection = connect(options, () => clearInterval(probe))
    const probe = probeMillis === undefined ? undefined : keepAlive(connection, probeMillis, () => busy > 0)
    current = connection
    return connection
  }

  const open = ({ deadline, headers, path }: Opening): Call => {
    busy += 1
    return new Call(connectionNow(), {
      headers: {
        ...base,
        ":path": path,
        "content-type": "application/grpc+proto",
        te: "trailers",
        "user-agent": "fast-sandbox",
        ...timeoutHeader(deadline),
        ...headers
      },
      deadline,
      maxMessageBytes,
      onClosed: () => {
        busy -= 1
      }
    })
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
    close: () => current?.destroy("the channel was closed")
  }
}
