/**
 * What a handler may know about the call that it serves: who makes it, from where, and its headers.
 */
import * as Context from "effect/Context"
import type { PeerCertificate } from "node:tls"

/** Who makes a call, as the server's `authenticate` found out. Names and groups are those of Kubernetes. */
export interface Caller {
  readonly name: string
  readonly groups: ReadonlyArray<string>
  readonly uid?: string | undefined
  /** Further words of whoever found the caller out, for whoever decides what it may do. */
  readonly extra?: Readonly<Record<string, ReadonlyArray<string>>> | undefined
}

/** Where a call comes from. */
export interface Peer {
  /** The kind of the listener that took the call: who reaches a unix socket was let in by the mode of its file. */
  readonly transport: "tcp" | "unix"
  /** `host:port`, or `unknown` for a caller on a unix socket and for one that is already gone: never a reason to trust. */
  readonly address: string
  /** The certificate that the caller proved to own; only over mutual TLS. */
  readonly certificate: PeerCertificate | undefined
}

/** The headers of a call. */
export interface Metadata {
  /** The first value of a header, binary ones (`-bin`) left out; names are case-insensitive. */
  readonly get: (name: string) => string | undefined
}

/** Longest token that is looked at, in characters; tokens of service accounts have a thousand. */
const MAX_TOKEN_LENGTH = 16 * 1024

const bearerPattern = /^Bearer +([A-Za-z0-9._~+/=-]+)$/i

/** The bearer token of a call; none when it sends none, or something that can't be one. */
export const bearerOf = (metadata: Metadata): string | undefined => {
  const header = metadata.get("authorization") ?? ""
  return header.length > MAX_TOKEN_LENGTH ? undefined : bearerPattern.exec(header)?.[1]
}

/** The caller of a server that does not authenticate; the name that Kubernetes gives such callers. */
export const anonymous: Caller = { name: "system:anonymous", groups: [] }

/** The caller of the call that the current fiber serves. */
export const GrpcCaller: Context.Reference<Caller> = Context.Reference<Caller>(
  "@fast-sandbox/grpc/GrpcCaller",
  { defaultValue: () => anonymous }
)

/** Where the call comes from that the current fiber serves; `unknown` outside of a call. */
export const GrpcPeerAddress: Context.Reference<string> = Context.Reference<string>(
  "@fast-sandbox/grpc/GrpcCaller/GrpcPeerAddress",
  { defaultValue: () => "unknown" }
)

const noMetadata: Metadata = { get: () => undefined }

/** The headers of the call that the current fiber serves; empty outside of a call. */
export const GrpcMetadata: Context.Reference<Metadata> = Context.Reference<Metadata>(
  "@fast-sandbox/grpc/GrpcCaller/GrpcMetadata",
  { defaultValue: () => noMetadata }
)
