/**
 * Clients of gRPC services, typed by their protobuf-es descriptors: a unary method is a function to an Effect, a
 * streaming one takes or gives a Stream. Interrupting a call, or leaving its stream, cancels it at the server.
 *
 * {@link make} fails calls with {@link GrpcError}, for servers that are not ours; {@link makeBoundary} with the
 * failures that cross a boundary, the same ones that our servers' handlers fail with. Both speak through grpc-js;
 * programs that have to start fast take `Http2Client`.
 */
import type { DescService } from "@bufbuild/protobuf"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type * as Grpc from "@grpc/grpc-js"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Connection from "./GrpcConnection.ts"
import { type GrpcError, toBoundaryError } from "./GrpcError.ts"
import * as Calls from "./internal/calls.ts"
import * as GrpcJsChannel from "./internal/grpcJsChannel.ts"

export {
  type CallOptions,
  type Credentials,
  type GrpcClient,
  KEEPALIVE_TIME_MILLIS,
  KEEPALIVE_TIMEOUT_MILLIS,
  MAX_MESSAGE_BYTES,
  type Pem,
  RECONNECT_BACKOFF_MILLIS
} from "./GrpcConnection.ts"

/** What {@link make} connects to, and how. */
export interface Options extends Connection.Options {
  /** Further options of the grpc-js channel. */
  readonly channel?: Grpc.ClientOptions | undefined
}

/**
 * A client of any gRPC server. The channel lives as long as the scope and connects with the first call; clients of the
 * same address and options share one connection.
 */
export function make<S extends DescService>(
  service: S,
  options: Options
): Effect.Effect<Connection.GrpcClient<S, GrpcError>, never, Scope.Scope>
export function make(service: DescService, options: Options): Effect.Effect<Calls.AnyClient, never, Scope.Scope> {
  return Calls.make(service, options, () => GrpcJsChannel.make(options), (error) => error)
}

/**
 * A client of one of our servers: calls fail with what the handler failed with. A server that can't be reached is
 * `Unavailable` with its address as the target.
 */
export function makeBoundary<S extends DescService>(
  service: S,
  options: Options
): Effect.Effect<Connection.GrpcClient<S, BoundaryError>, never, Scope.Scope>
export function makeBoundary(
  service: DescService,
  options: Options
): Effect.Effect<Calls.AnyClient, never, Scope.Scope> {
  return Calls.make(service, options, () => GrpcJsChannel.make(options), toBoundaryError)
}
