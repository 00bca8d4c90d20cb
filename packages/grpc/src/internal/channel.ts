/**
 * What carries calls: bytes of messages with headers in one direction, bytes of messages and a status in the other.
 */
import type * as Pump from "./pump.ts"

/** How a call ended. `code` is one of gRPC's numbers. */
export interface Status {
  readonly code: number
  readonly details: string
  /** The trailers. */
  readonly metadata?: { readonly get: (key: string) => ReadonlyArray<string | Uint8Array> | undefined } | undefined
}

/** gRPC's numbers of the codes that a channel makes itself. */
export const codeNumbers = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  deadlineExceeded: 4,
  permissionDenied: 7,
  resourceExhausted: 8,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16
} as const

/** How a call begins. */
export interface Opening {
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Milliseconds since the epoch. */
  readonly deadline: number | undefined
}

/** A call under way. */
export interface Cancellable {
  readonly cancel: () => void
}

/** The requests of a call, to be written. */
export interface Outgoing extends Pump.Sink<Buffer>, Cancellable {
  /** There are no more. */
  end(): void
}

/** The responses of a call, to be read. */
export interface Incoming extends Pump.Source<Buffer>, Cancellable {
  /** Called once, before or after the last message was read. */
  onStatus(listener: (status: Status) => void): void
}

/** The one response of a call, or the status that it failed with. */
export type Settle = (failure: Status | null, response?: Buffer) => void

/** A connection to one server, which is made with the first call and again whenever it was lost. */
export interface Channel {
  unary(opening: Opening, message: Buffer, settle: Settle): Cancellable
  clientStreaming(opening: Opening, settle: Settle): Outgoing
  serverStreaming(opening: Opening, message: Buffer): Incoming
  bidiStreaming(opening: Opening): Incoming & Outgoing
  close(): void
}
