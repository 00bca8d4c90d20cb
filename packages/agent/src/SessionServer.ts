/**
 * The agent's gRPC service for what goes on inside of its sandboxes: `agent.v1.SessionService`.
 */
import { SessionService } from "@fast-sandbox/grpc/gen/agent/v1/session_pb"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import * as HeaderFirst from "@fast-sandbox/grpc/HeaderFirst"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { Attachments } from "./sessions/Attachments.ts"
import { Copies } from "./sessions/Copies.ts"
import { CopySockets } from "./sessions/CopySockets.ts"
import { Execs } from "./sessions/Execs.ts"
import { Fifos } from "./sessions/Fifos.ts"
import { Ports } from "./sessions/Ports.ts"
import { Targets } from "./sessions/Target.ts"
import { Usage } from "./sessions/Usage.ts"

/** The service with its handlers. */
export const service = GrpcService.make(SessionService, {
  exec: (requests) =>
    Stream.unwrap(Effect.gen(function*() {
      const { header, rest } = yield* HeaderFirst.open(requests)
      const execs = yield* Execs
      return execs.run(header.value, rest)
    })),
  attach: (requests) =>
    Stream.unwrap(Effect.gen(function*() {
      const { header, rest } = yield* HeaderFirst.open(requests)
      const attachments = yield* Attachments
      return attachments.attach(header.value, rest)
    })),
  copyTo: Effect.fnUntraced(function*(requests) {
    const { header, rest } = yield* HeaderFirst.open(requests)
    const copies = yield* Copies
    return yield* copies.put(header.value, rest)
  }, Effect.scoped),
  copyFrom: (request) =>
    Stream.unwrap(Copies.useSync((copies) => copies.get(request))).pipe(Stream.map((data) => ({ data }))),
  copyDirectly: (request) => Stream.unwrap(Copies.useSync((copies) => copies.direct(request))),
  portForward: (requests) =>
    Stream.unwrap(Effect.gen(function*() {
      const { header, rest } = yield* HeaderFirst.open(requests)
      const ports = yield* Ports
      return ports.connect(header.value, rest)
    })).pipe(Stream.map((data) => ({ data }))),
  stats: (request) => Stream.unwrap(Usage.useSync((usage) => usage.stats(request))),
  processes: (request) =>
    Effect.map(Usage.use((usage) => usage.processes(request)), (processes) => ({ processes: [...processes] }))
})

/** What the handlers need. */
export const layer = Layer.mergeAll(Attachments.layer, Execs.layer, Copies.layer, Ports.layer, Usage.layer).pipe(
  Layer.provideMerge(Layer.mergeAll(Targets.layer, Fifos.layer, CopySockets.layer))
)
