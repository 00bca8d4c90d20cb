/**
 * Clients of our servers that cost a program little: the same calls as `GrpcClient`'s, over Node's own HTTP/2. For
 * programs that come and go, and for libraries that others embed.
 */
import type { DescService } from "@bufbuild/protobuf"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { GrpcClient, Options } from "./GrpcConnection.ts"
import { toBoundaryError } from "./GrpcError.ts"
import * as Calls from "./internal/calls.ts"
import * as Http2Channel from "./internal/http2Channel.ts"

/**
 * A client of one of our servers: calls fail with what the handler failed with. It connects with the first call, and
 * again when the connection was lost; a server that can't be reached is `Unavailable` with its address as the target.
 */
export function makeBoundary<S extends DescService>(
  service: S,
  options: Options
): Effect.Effect<GrpcClient<S, BoundaryError>, never, Scope.Scope>
export function makeBoundary(
  service: DescService,
  options: Options
): Effect.Effect<Calls.AnyClient, never, Scope.Scope> {
  return Calls.make(service, options, () => Http2Channel.make(options), toBoundaryError)
}
