/**
 * A gRPC service and its handlers, ready to be served by a {@link GrpcServer}.
 *
 * ```ts
 * const echo = GrpcService.make(EchoService, {
 *   echo: (request) => Effect.succeed({ text: request.text }),
 *   count: ({ to }) => Stream.range(1, to).pipe(Stream.map((number) => ({ number })))
 * })
 * ```
 */
import type {
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  Message,
  MessageInitShape,
  MessageShape
} from "@bufbuild/protobuf"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { HandlerError } from "./GrpcError.ts"

/**
 * One handler for each method of a service; `R` is what they need. The requests of a client stream fail when they are
 * no messages of the method or the caller is gone.
 */
export type Handlers<S extends DescService, R> = {
  readonly [K in keyof S["method"]]: S["method"][K] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>) => Effect.Effect<MessageInitShape<O>, HandlerError, R>
    : S["method"][K] extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>) => Stream.Stream<MessageInitShape<O>, HandlerError, R>
    : S["method"][K] extends DescMethodClientStreaming<infer I, infer O> ? (
        requests: Stream.Stream<MessageShape<I>, BoundaryError>
      ) => Effect.Effect<MessageInitShape<O>, HandlerError, R>
    : S["method"][K] extends DescMethodBiDiStreaming<infer I, infer O> ? (
        requests: Stream.Stream<MessageShape<I>, BoundaryError>
      ) => Stream.Stream<MessageInitShape<O>, HandlerError, R>
    : never
}

/** What a set of handlers needs. */
export type Requirements<H> = {
  readonly [K in keyof H]: H[K] extends (request: never) => Effect.Effect<unknown, unknown, infer R> ? R
    : H[K] extends (request: never) => Stream.Stream<unknown, unknown, infer R> ? R
    : never
}[keyof H]

/** A message as a handler gives it, seen without its descriptor. */
export type Init = Record<string, unknown>

/** The requests of a client stream, seen without their descriptor. */
export type Requests = Stream.Stream<Message, BoundaryError>

/** Handlers of the four kinds of methods, seen without their descriptors. */
export type UnaryHandler<R> = (request: Message) => Effect.Effect<Init, HandlerError, R>
export type ServerStreamingHandler<R> = (request: Message) => Stream.Stream<Init, HandlerError, R>
export type ClientStreamingHandler<R> = (requests: Requests) => Effect.Effect<Init, HandlerError, R>
export type BidiStreamingHandler<R> = (requests: Requests) => Stream.Stream<Init, HandlerError, R>

/** A handler of which only its method's descriptor knows the kind. */
export type AnyHandler<R> =
  & UnaryHandler<R>
  & ServerStreamingHandler<R>
  & ClientStreamingHandler<R>
  & BidiStreamingHandler<R>

/** A service with its handlers; `R` is what the handlers need. */
export interface GrpcService<out R> {
  readonly descriptor: DescService
  readonly handlers: Readonly<Record<string, AnyHandler<R>>>
  /**
   * authorized: callers must pass the server's `authenticate` and every call its `authorize`, where it has them.
   * authenticated: whoever is known may make any call. open: callers may be anybody.
   */
  readonly access: "authorized" | "authenticated" | "open"
}

/** A service for the calls that the server's `authenticate` and `authorize` accept (for all, when it has none). */
export function make<const S extends DescService, H extends Handlers<S, unknown>>(
  descriptor: S,
  handlers: H
): GrpcService<Requirements<H>>
export function make<R>(descriptor: DescService, handlers: Readonly<Record<string, AnyHandler<R>>>): GrpcService<R> {
  return { descriptor, handlers, access: "authorized" }
}

/** A service for everybody whom the server's `authenticate` knows: there is nothing in it to be kept from any of them. */
export const authenticated = <R>(service: GrpcService<R>): GrpcService<R> => ({ ...service, access: "authenticated" })

/** A service for everybody, also on a server that authenticates: health checks come without a token. */
export const open = <R>(service: GrpcService<R>): GrpcService<R> => ({ ...service, access: "open" })
