/**
 * What happens to a call between its headers and its handler: who makes it is found out before a byte of its body is
 * read, and a body that has to come as a whole has to come in time. Strangers and slow senders cost a paused HTTP/2
 * stream, never a buffered message.
 */
import { type BoundaryError, DeadlineExceeded, Unavailable } from "@fast-sandbox/core/Errors"
import * as Grpc from "@grpc/grpc-js"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type { Caller, Metadata, Peer } from "../GrpcCaller.ts"
import { toStatus } from "../GrpcStatus.ts"

/** The status that ends a call. */
export type Status = ReturnType<typeof toStatus>

/** Whoever was admitted, by the headers of the call: the same object from the interceptor to the handler. */
export type Admitted = WeakMap<Grpc.Metadata, Caller>

/** How calls of one listener are admitted. */
export interface Options {
  readonly transport: Peer["transport"]
  /** Runs the search for the caller; absent: everybody is admitted as anonymous. */
  readonly authenticate:
    | ((path: string, metadata: Metadata, peer: Peer) => Fiber.Fiber<Caller, BoundaryError>)
    | undefined
  /** Whether the method of this path is for everybody. */
  readonly isOpen: (path: string) => boolean
  /** A request that is no stream has to be complete after this time. */
  readonly requestTimeoutMillis: number
  readonly admitted: Admitted
  /** Hears of calls that no handler will see. */
  readonly refused: (path: string, status: Status) => void
}

/** The headers as handlers read them. */
export const metadataOf = (metadata: Grpc.Metadata): Metadata => ({
  get: (name) => metadata.get(name).find((value) => typeof value === "string")
})

/** Admits the calls of one listener. */
export const interceptor = (options: Options): Grpc.ServerInterceptor => ({ path, requestStream }, call) => {
  let timer: NodeJS.Timeout | undefined
  let search: Fiber.Fiber<Caller, BoundaryError> | undefined
  const refuse = (status: Status) => {
    clearTimeout(timer)
    options.refused(path, status)
    call.sendStatus(status)
  }
  const statusOf = (cause: Cause.Cause<BoundaryError>): Status => {
    const failure = Cause.findError(cause)
    // what interrupts the search while its caller waits is the end of the server
    return toStatus(
      Result.isSuccess(failure)
        ? failure.success
        : new Unavailable({ target: path, problem: "the server is going away; try again" })
    )
  }
  const awaitBody = () => {
    if (requestStream) return
    timer = setTimeout(
      () =>
        refuse(toStatus(
          new DeadlineExceeded({
            operation: `the request, which has to be complete within ${options.requestTimeoutMillis / 1000} seconds,`
          })
        )),
      options.requestTimeoutMillis
    )
  }
  return new Grpc.ServerInterceptingCall(call, {
    start: (next) =>
      next({
        onReceiveMetadata: (metadata, next) => {
          const pass = () => {
            awaitBody()
            next(metadata)
          }
          if (options.authenticate === undefined || options.isOpen(path)) return pass()
          search = options.authenticate(path, metadataOf(metadata), {
            transport: options.transport,
            address: call.getPeer(),
            certificate: call.getAuthContext().sslPeerCertificate
          })
          search.addObserver((exit) => {
            if (Exit.isFailure(exit)) return refuse(statusOf(exit.cause))
            options.admitted.set(metadata, exit.value)
            pass()
          })
        },
        onReceiveMessage: (message, next) => {
          clearTimeout(timer)
          next(message)
        },
        onReceiveHalfClose: (next) => {
          clearTimeout(timer)
          next()
        },
        onCancel: () => {
          clearTimeout(timer)
          search?.interruptUnsafe()
        }
      })
  })
}
