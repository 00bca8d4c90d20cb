/**
 * Calls over grpc-js.
 */
import * as Grpc from "@grpc/grpc-js"
import * as Redacted from "effect/Redacted"
import {
  type Credentials,
  KEEPALIVE_TIME_MILLIS,
  KEEPALIVE_TIMEOUT_MILLIS,
  MAX_MESSAGE_BYTES,
  type Options,
  type Pem,
  RECONNECT_BACKOFF_MILLIS
} from "../GrpcConnection.ts"
import type { Channel, Incoming, Opening, Settle, Status } from "./channel.ts"

const identity = (bytes: Buffer): Buffer => bytes

const metadataOf = ({ headers }: Opening): Grpc.Metadata => {
  const metadata = new Grpc.Metadata()
  for (const [key, value] of Object.entries(headers)) metadata.set(key, value)
  return metadata
}

const callOptions = ({ deadline }: Opening): Grpc.CallOptions => deadline === undefined ? {} : { deadline }

const isUnixAddress = (address: string): boolean => address.startsWith("unix:")

/** What the channel connects to, with whatever else grpc-js understands. */
type GrpcJsOptions = Options & { readonly channel?: Grpc.ClientOptions | undefined }

const channelOptions = (options: GrpcJsOptions): Grpc.ClientOptions => {
  const maxMessageBytes = options.maxMessageBytes ?? MAX_MESSAGE_BYTES
  const serverName = options.credentials?.tls?.serverName
  return {
    "grpc.max_receive_message_length": maxMessageBytes,
    "grpc.max_send_message_length": maxMessageBytes,
    "grpc.initial_reconnect_backoff_ms": RECONNECT_BACKOFF_MILLIS.initial,
    "grpc.max_reconnect_backoff_ms": RECONNECT_BACKOFF_MILLIS.max,
    // peers are Pods, nodes and sockets: never behind the environment's proxy, never configured by DNS
    "grpc.enable_http_proxy": 0,
    "grpc.service_config_disable_resolution": 1,
    "grpc.enable_channelz": 0,
    // a unix socket tells at once when its peer dies, and Go servers drop clients that probe too often
    ...(isUnixAddress(options.address) ? {} : {
      "grpc.keepalive_time_ms": KEEPALIVE_TIME_MILLIS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MILLIS
    }),
    ...(serverName === undefined ? {} : {
      "grpc.ssl_target_name_override": serverName,
      "grpc.default_authority": serverName
    }),
    ...options.channel
  }
}

const pemBuffer = (pem: Pem): Buffer => typeof pem === "string" ? Buffer.from(pem) : Buffer.from(pem)

const channelCredentials = ({ tls }: Credentials): Grpc.ChannelCredentials =>
  tls === undefined
    ? Grpc.credentials.createInsecure()
    : Grpc.credentials.createSsl(
      tls.ca === undefined ? null : pemBuffer(tls.ca),
      tls.certificate === undefined ? null : pemBuffer(Redacted.value(tls.certificate.key)),
      tls.certificate === undefined ? null : pemBuffer(tls.certificate.chain)
    )

const incoming = <Call extends Grpc.ClientReadableStream<Buffer>>(call: Call): Call & Incoming => {
  // "status" follows with the same content; an "error" without a listener would end the process
  call.on("error", () => {})
  return Object.assign(call, {
    onStatus: (listener: (status: Status) => void) => {
      call.on("status", listener)
    }
  })
}

const settled = (settle: Settle) => (error: Grpc.ServiceError | null, response?: Buffer): void =>
  settle(error, response)

/** A channel to the server of these options. */
export const make = (options: GrpcJsOptions): Channel => {
  const client = new Grpc.Client(
    options.address,
    channelCredentials(options.credentials ?? {}),
    channelOptions(options)
  )
  return {
    unary: (opening, message, settle) =>
      client.makeUnaryRequest(
        opening.path,
        identity,
        identity,
        message,
        metadataOf(opening),
        callOptions(opening),
        settled(settle)
      ),
    clientStreaming: (opening, settle) =>
      client.makeClientStreamRequest(
        opening.path,
        identity,
        identity,
        metadataOf(opening),
        callOptions(opening),
        settled(settle)
      ),
    serverStreaming: (opening, message) =>
      incoming(
        client.makeServerStreamRequest(
          opening.path,
          identity,
          identity,
          message,
          metadataOf(opening),
          callOptions(opening)
        )
      ),
    bidiStreaming: (opening) =>
      incoming(
        client.makeBidiStreamRequest<Buffer, Buffer>(
          opening.path,
          identity,
          identity,
          metadataOf(opening),
          callOptions(opening)
        )
      ),
    close: () => client.close()
  }
}
