/**
 * Clients of gRPC services, typed by their protobuf-es descriptors: a unary method is a function to an Effect, a
 * streaming one takes or gives a Stream. Interrupting a call, or leaving its stream, cancels it at the server.
 *
 * {@link make} fails calls with {@link GrpcError}, for servers that are not ours; {@link makeBoundary} with the
 * failures that cross a boundary, the same ones that our servers' handlers fail with.
 */
import type { DescService } from "@bufbuild/protobuf"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Connection from "./GrpcConnection.ts"
import { type GrpcError, toBoundaryError } from "./GrpcError.ts"
import * as Calls from "./internal/calls.ts"
import type { Channel } from "./internal/channel.ts"
import * as Http2Channel from "./internal/http2Channel.ts"
import { withPulse } from "./internal/pulse.ts"

export {
  type CallOptions,
  type Credentials,
  type GrpcClient,
  MAX_MESSAGE_BYTES,
  type Options,
  type Pem
} from "./GrpcConnection.ts"

const withChannel = <A>(
  options: Connection.Options,
  use: (channel: Channel) => A
): Effect.Effect<A, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const channel = Http2Channel.make(options)
        return options.pulse === undefined ? channel : withPulse(channel, options.pulse)
      }),
      (channel) => Effect.sync(() => channel.close())
    ),
    use
  )

/**
 * A client of any gRPC server. Its connection lives as long as the scope; it is made with the first call, and again when
 * it was lost.
 */
export function make<S extends DescService>(
  service: S,
  options: Connection.Options
): Effect.Effect<Connection.GrpcClient<S, GrpcError>, never, Scope.Scope>
export function make(
  service: DescService,
  options: Connection.Options
): Effect.Effect<Calls.AnyClient, never, Scope.Scope> {
  return withChannel(options, (channel) => Calls.make(service, options, channel, (error) => error))
}

/** Clients of several services of one server, over one connection. */
export function makeAll<Services extends Readonly<Record<string, DescService>>>(
  services: Services,
  options: Connection.Options
): Effect.Effect<
  { readonly [K in keyof Services]: Connection.GrpcClient<Services[K], GrpcError> },
  never,
  Scope.Scope
>
export function makeAll(
  services: Readonly<Record<string, DescService>>,
  options: Connection.Options
): Effect.Effect<Readonly<Record<string, Calls.AnyClient>>, never, Scope.Scope> {
  return withChannel(options, (channel) =>
    Object.fromEntries(
      Object.entries(services).map(([name, service]) => [
        name,
        Calls.make(service, options, channel, (error) => error)
      ])
    ))
}

/**
 * A client of one of our servers: calls fail with what the handler failed with. A server that can't be reached is
 * `Unavailable` with its address as the target.
 */
export function makeBoundary<S extends DescService>(
  service: S,
  options: Connection.Options
): Effect.Effect<Connection.GrpcClient<S, BoundaryError>, never, Scope.Scope>
export function makeBoundary(
  service: DescService,
  options: Connection.Options
): Effect.Effect<Calls.AnyClient, never, Scope.Scope> {
  return withChannel(options, (channel) => Calls.make(service, options, channel, toBoundaryError))
}
