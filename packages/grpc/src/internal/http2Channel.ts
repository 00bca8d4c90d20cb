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
import * as Hpack from "./hpack.ts"
import { Http2ClientConnection } from "./http2ClientConnection.ts"
import { keepAlive, type Stream, type StreamListener } from "./http2Connection.ts"
import { resets } from "./http2Frames.ts"
import { excessOf, frame, Halves, MessageReader, Unreadable } from "./messages.ts"

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
const metadataOf = (headers: Hpack.Headers): NonNullable<Status["metadata"]> => ({
  get: (key) => {
    const value = headers.get(key)
    return value === undefined ? [] : [key.endsWith("-bin") ? Buffer.from(value, "base64") : value]
  }
})

const statusOf = (headers: Hpack.Headers): Status | undefined => {
  const code = headers.get("grpc-status")
  return code === undefined
    ? undefined
    : { code: Number(code), details: decodeText(headers.get("grpc-message") ?? ""), metadata: metadataOf(headers) }
}

/** One call, of whatever kind. */
class Call extends Halves implements Incoming, Outgoing, StreamListener {
  readonly #connection: Http2ClientConnection
  readonly #stream: Stream
  readonly #maxMessageBytes: number
  readonly #messages: MessageReader
  readonly #statusListeners: Array<(status: Status) => void> = []
  readonly #deadline: NodeJS.Timeout | undefined
  #needsDrain = false
  #status: Status | undefined
  /** The stream is over; what came before may still be read. */
  #isClosed = false
  /** What else comes does not count: this side has ended the call. */
  #isAbandoned = false

  constructor(connection: Http2ClientConnection, options: {
    /** As a block. */
    readonly headers: Buffer
    readonly deadline: number | undefined
    readonly maxMessageBytes: number
  }) {
    super()
    this.#connection = connection
    this.#maxMessageBytes = options.maxMessageBytes
    this.#messages = new MessageReader(options.maxMessageBytes)
    if (options.deadline !== undefined) {
      this.#deadline = setTimeout(() => {
        this.#abandon({ code: codeNumbers.deadlineExceeded, details: "the deadline has passed" })
      }, Math.max(0, options.deadline - Date.now()))
    }
    this.#stream = connection.open(options.headers, this)
  }

  onHeaders(headers: Hpack.Headers): void {
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
    this.#messages.add(chunk)
    this.readers.wake()
  }

  onEnd(): void {
    this.#settle({ code: codeNumbers.internal, details: "the server ended the call without a status" })
  }

  onDrain(): void {
    this.#needsDrain = false
    this.writers.wake()
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
    this.readers.wake()
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

  /** The next whole message of what was received, if there is one. */
  #message(): Buffer | undefined {
    try {
      return this.#messages.next()
    } catch (cause) {
      if (!(cause instanceof Unreadable)) throw cause
      this.#abandon({ code: cause.code, details: cause.message })
      return undefined
    }
  }

  /** Whether a request may be sent; one that may not ends the call. */
  #fits(message: Buffer): boolean {
    const excess = excessOf(message, this.#maxMessageBytes)
    if (excess !== undefined) this.#abandon(excess)
    return excess === undefined
  }

  #abandon(status: Status): void {
    if (this.readableEnded) return
    this.#isAbandoned = true
    this.#settle(status)
    this.#stream.reset(resets.cancel)
    this.readers.wake()
  }

  #settle(status: Status): void {
    if (this.#status !== undefined) return
    this.#status = status
    clearTimeout(this.#deadline)
    for (const listener of this.#statusListeners) listener(status)
    this.writers.wake()
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

const connect = (options: Options, probeMillis: number | undefined): Http2ClientConnection => {
  const { opened, socket } = dial(options)
  const connection = new Http2ClientConnection(socket, () => {
    clearTimeout(limit)
    clearInterval(probe)
  })
  const probe = probeMillis === undefined ? undefined : keepAlive(connection, {
    everyMillis: probeMillis,
    timeoutMillis: KEEPALIVE_TIMEOUT_MILLIS,
    problem: "the server does not answer"
  })
  const limit = setTimeout(
    () => connection.destroy(`no connection within ${CONNECT_TIMEOUT_MILLIS} ms`),
    CONNECT_TIMEOUT_MILLIS
  )
  socket.once(opened, () => clearTimeout(limit))
  return connection
}

/** A channel to the server of these options. */
export const make = (options: Options): Channel => {
  const maxMessageBytes = options.maxMessageBytes ?? MAX_MESSAGE_BYTES
  const isLocal = unixPathOf(options.address) !== undefined
  const probeMillis = options.probeMillis ?? (isLocal ? undefined : KEEPALIVE_TIME_MILLIS)
  const scheme = options.credentials?.tls === undefined ? "http" : "https"
  const authority = isLocal ? "localhost" : options.address
  /** What all calls of one method begin with, by its path. */
  const beginnings = new Map<string, Buffer>()
  const beginningOf = (path: string): Buffer => {
    const known = beginnings.get(path)
    if (known !== undefined) return known
    const block = Hpack.encode({
      ":method": "POST",
      ":scheme": scheme,
      ":authority": authority,
      ":path": path,
      "content-type": "application/grpc+proto",
      te: "trailers",
      "user-agent": "fast-sandbox"
    })
    beginnings.set(path, block)
    return block
  }
  let current: Http2ClientConnection | undefined

  const connectionNow = (): Http2ClientConnection => {
    if (current?.isUsable !== true) current = connect(options, probeMillis)
    return current
  }

  const open = ({ deadline, headers, path }: Opening): Call =>
    new Call(connectionNow(), {
      headers: Buffer.concat([beginningOf(path), Hpack.encode({ ...timeoutHeader(deadline), ...headers })]),
      deadline,
      maxMessageBytes
    })

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
