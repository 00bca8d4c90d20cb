/**
 * What a handler may know about the call that it serves: who makes it, from where, and its headers.
 */
import * as Context from "effect/Context"
import type { PeerCertificate } from "node:tls"

/** Who makes a call, as the server's `authenticate` found out. Names and groups are those of Kubernetes. */
export interface Caller {
  readonly name: string
  readonly groups: ReadonlyArray<string>
}

/** Where a call comes from. */
export interface Peer {
  /**
   * `host:port`, or `unknown` for a caller on a unix socket and for one that is already gone: never a reason to trust.
   * A server that trusts its unix socket and asks for proof on TCP is two servers.
   */
  readonly address: string
  /** The certificate that the caller proved to own; only over mutual TLS. */
  readonly certificate: PeerCertificate | undefined
}

/** The headers of a call. */
export interface Metadata {
  /** The first value of a header, binary ones (`-bin`) left out; names are case-insensitive. */
  readonly get: (name: string) => string | undefined
}

/** The caller of a server that does not authenticate; the name that Kubernetes gives such callers. */
export const anonymous: Caller = { name: "system:anonymous", groups: [] }

/** The caller of the call that the current fiber serves. */
export const GrpcCaller: Context.Reference<Caller> = Context.Reference<Caller>(
  "@fast-sandbox/grpc/GrpcCaller",
  { defaultValue: () => anonymous }
)

const noMetadata: Metadata = { get: () => undefined }

/** The headers of the call that the current fiber serves; empty outside of a call. */
export const GrpcMetadata: Context.Reference<Metadata> = Context.Reference<Metadata>(
  "@fast-sandbox/grpc/GrpcCaller/GrpcMetadata",
  { defaultValue: () => noMetadata }
)
