/**
 * TCP connections to ports inside of running sandboxes, on their loopback device: what a program listens on for itself
 * alone can be reached, too. One process of `fsb-inside` for each connection.
 */
import {
  type BoundaryError,
  FailedPrecondition,
  Internal,
  InvalidArgument,
  ResourceExhausted
} from "@fast-sandbox/core/Errors"
import type { PortForwardHeader, PortForwardRequest } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import { codes, Inside } from "./Inside.ts"
import { sandboxEnded, Targets, whileRunning } from "./Target.ts"

/** Connections that are open at once: each is a small process. */
const maxConnections = 512

const busyRetryMillis = 1000

const maxPort = 65_535

/**
 * `connect` gives what the sandbox sends, after one empty element that says that the connection stands. The end of the
 * requests is the end of what is sent.
 */
export class Ports extends Context.Service<Ports, {
  readonly connect: (
    header: PortForwardHeader,
    requests: Stream.Stream<PortForwardRequest, BoundaryError>
  ) => Stream.Stream<Uint8Array, BoundaryError>
}>()("@fast-sandbox/agent/sessions/Ports") {
  static readonly layer: Layer.Layer<Ports, never, Inside | Targets> = Layer.effect(
    Ports,
    Effect.gen(function*() {
      const inside = yield* Inside
      const targets = yield* Targets
      let open = 0

      const slot = Effect.acquireRelease(
        Effect.suspend(() =>
          open >= maxConnections
            ? Effect.fail(
              new ResourceExhausted({
                resource: "connection",
                problem: `${maxConnections} forwarded connections are open on this agent`,
                retryAfterMillis: busyRetryMillis
              })
            )
            : Effect.sync(() => {
              open++
            })
        ),
        () =>
          Effect.sync(() => {
            open--
          })
      )

      const connect = Effect.fn("Ports.connect")(
        function*({ port, sandbox }: PortForwardHeader, requests: Stream.Stream<PortForwardRequest, BoundaryError>) {
          if (port < 1 || port > maxPort) {
            return yield* new InvalidArgument({ field: "port", problem: `must be between 1 and ${maxPort}` })
          }
          const target = yield* targets.enterable(sandbox)
          yield* slot
          const work = yield* inside.start(["connect", String(target.pid), target.containerId, String(port)])
          const [first, rest] = yield* Stream.peel(work.output, Sink.head())
          if (Option.isNone(first)) {
            const { code, said } = yield* work.ended
            return yield* code === codes.gone
              ? sandboxEnded(target)
              : code === codes.refused
              ? new FailedPrecondition({
                reason: "ConnectionRefused",
                problem: `nothing listens on port ${port} in the sandbox`
              })
              : new Internal({ problem: said })
          }
          yield* Stream.runForEach(
            requests,
            ({ part }) => part.case === "data" ? work.write(part.value) : Effect.void
          ).pipe(Effect.andThen(work.end), Effect.ignore, Effect.forkScoped)
          // the first byte is the process's own: see native/inside.c
          return Stream.concat(Stream.make(first.value.subarray(1)), rest).pipe(
            Stream.filter((bytes) => bytes.length > 0),
            whileRunning(target),
            (data) => Stream.concat(Stream.make(new Uint8Array()), data)
          )
        }
      )

      return Ports.of({ connect: (header, requests) => Stream.unwrap(connect(header, requests)) })
    })
  )
}
