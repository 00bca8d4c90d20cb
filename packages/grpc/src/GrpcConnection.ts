/**
 * What clients of gRPC services have in common: where the server is, how they prove
 * themselves, what a call may say, and the calls that a service's descriptor makes.
 */
import type {
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape
} from "@bufbuild/protobuf"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Stream from "effect/Stream"
import type { GrpcError } from "./GrpcError.ts"

/**
 * Largest message that is sent or accepted, in bytes. containerd's own limit, so that what fits one fits the other.
 */
export const MAX_MESSAGE_BYTES = 16 * 1024 * 1024

/** On TCP, an idle connection with calls on it is probed this often: below the idle limit of usual NATs (60 s). */
export const KEEPALIVE_TIME_MILLIS = 30_000

/** A probe that stays without an answer for this long means that the connection is dead. */
export const KEEPALIVE_TIMEOUT_MILLIS = 10_000

/** A server that does not answer an attempt to connect within this time can't be reached. */
export const CONNECT_TIMEOUT_MILLIS = 10_000

const unixPrefix = "unix:"

/** The path in an address that is a unix socket's. */
export const unixPathOf = (address: string): string | undefined =>
  address.startsWith(unixPrefix) ? address.slice(unixPrefix.length) : undefined

/** PEM text or bytes. */
export type Pem = string | Uint8Array

/** How a client encrypts and proves itself. */
export interface Credentials {
  /** Encrypts. Without it the connection is plain text: right for unix sockets and loopback only. */
  readonly tls?: {
    /** Who must have signed the server's certificate; left out: the system's authorities. */
    readonly ca?: Pem | undefined
    /** What the client shows to a server that asks for a certificate. */
    readonly certificate?: { readonly chain: Pem; readonly key: Redacted.Redacted<Pem> } | undefined
    /** The name that the server's certificate must carry, when it is not the address's. */
    readonly serverName?: string | undefined
  } | undefined
  /** Sent as `authorization: Bearer <token>`; runs for every call, so that it may read a rotating token. */
  readonly token?: Effect.Effect<Redacted.Redacted> | undefined
}

/** What {@link make} connects to, and how. */
export interface Options {
  /** `unix:/absolute/path` or `host:port`. */
  readonly address: string
  readonly credentials?: Credentials | undefined
  /** Largest message that is sent or accepted, in bytes; {@link MAX_MESSAGE_BYTES} by default. */
  readonly maxMessageBytes?: number | undefined
  /** Sent with every call. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
  /**
   * How often a connection with calls on it is probed. {@link KEEPALIVE_TIME_MILLIS} on TCP by default, and never on a unix
   * socket: servers that are not ours end connections that are probed often.
   */
  readonly probeMillis?: number | undefined
  /**
   * Finds out that the server hangs, where it does not end connections by itself then: see {@link PulseOptions}. Without
   * it, calls to a server that hangs fail at their deadlines.
   */
  readonly pulse?: PulseOptions | undefined
}

/** When a server is asked whether it hangs. Calls that have a deadline are failed with UNAVAILABLE when it does. */
export interface PulseOptions {
  /** A unary call that costs the server nothing and takes an empty message. */
  readonly method: DescMethod
  /** A call that is older, in milliseconds, has the server asked; an answer that takes longer does not come. */
  readonly patienceMillis: number
  /** How soon a server that hangs is asked again, in milliseconds. */
  readonly retryMillis: number
}

/** What a single call may say. */
export interface CallOptions {
  /** The server stops working on the call, and the call fails with DEADLINE_EXCEEDED, after this time. */
  readonly deadline?: Duration.Input | undefined
  readonly metadata?: Readonly<Record<string, string>> | undefined
}

/** The calls of a service; `E` is what they fail with. */
export type GrpcClient<S extends DescService, E = GrpcError> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O> ? (
      request: MessageInitShape<I>,
      options?: CallOptions
    ) => Effect.Effect<MessageShape<O>, E>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O> ? (
        request: MessageInitShape<I>,
        options?: CallOptions
      ) => Stream.Stream<MessageShape<O>, E>
    : S["method"][K] extends DescMethodClientStreaming<infer I, infer O> ? <E2 = never, R2 = never>(
        requests: Stream.Stream<MessageInitShape<I>, E2, R2>,
        options?: CallOptions
      ) => Effect.Effect<MessageShape<O>, E | E2, R2>
    : S["method"][K] extends DescMethodBiDiStreaming<infer I, infer O> ? <E2 = never, R2 = never>(
        requests: Stream.Stream<MessageInitShape<I>, E2, R2>,
        options?: CallOptions
      ) => Stream.Stream<MessageShape<O>, E | E2, R2>
    : never
}
