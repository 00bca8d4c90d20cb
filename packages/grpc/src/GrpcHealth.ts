/**
 * The health of a server and of its services, by the gRPC health checking protocol.
 *
 * With {@link layer} provided, a {@link GrpcServer} reports its services as SERVING once it listens (unless somebody
 * said otherwise before) and everything as NOT_SERVING as soon as it drains. Add {@link service} to what it serves.
 *
 * Not the grpc-health-check package: that one reads a .proto file at run time, which a bundled program does not have.
 */
import type { DescService } from "@bufbuild/protobuf"
import { NotFound } from "@fast-sandbox/core/Errors"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "./gen/grpc/health/v1/health_pb.ts"
import * as GrpcService from "./GrpcService.ts"

/** Whether calls are taken. */
export type Status = "SERVING" | "NOT_SERVING"

/** The server as a whole. */
export const SERVER = ""

/** A service, or {@link SERVER}. */
export type Subject = DescService | typeof SERVER

const nameOf = (subject: Subject): string => subject === SERVER ? SERVER : subject.typeName

/** What the parts of a program say about its health. */
export class GrpcHealth extends Context.Service<GrpcHealth, {
  /** Says whether a service takes calls. */
  readonly set: (subject: Subject, status: Status) => Effect.Effect<void>
  /** Says it for subjects about which nobody has said anything yet. */
  readonly setInitial: (subjects: ReadonlyArray<Subject>, status: Status) => Effect.Effect<void>
  /** Turns all subjects NOT_SERVING: the server is about to end. */
  readonly setAllNotServing: Effect.Effect<void>
  /** What is known now, by full service name. */
  readonly statuses: Effect.Effect<ReadonlyMap<string, Status>>
  /** What is known now, then again after each change. */
  readonly changes: Stream.Stream<ReadonlyMap<string, Status>>
}>()("@fast-sandbox/grpc/GrpcHealth") {}

/** Health in memory, for one server. */
export const layer: Layer.Layer<GrpcHealth> = Layer.effect(
  GrpcHealth,
  Effect.gen(function*() {
    const ref = yield* SubscriptionRef.make<ReadonlyMap<string, Status>>(new Map())
    return GrpcHealth.of({
      set: (subject, status) => SubscriptionRef.update(ref, (known) => new Map(known).set(nameOf(subject), status)),
      setInitial: (subjects, status) =>
        SubscriptionRef.update(
          ref,
          (known) => new Map([...subjects.map((subject): [string, Status] => [nameOf(subject), status]), ...known])
        ),
      setAllNotServing: SubscriptionRef.update(
        ref,
        (known) => new Map(Array.from(known.keys(), (name): [string, Status] => [name, "NOT_SERVING"]))
      ),
      statuses: SubscriptionRef.get(ref),
      changes: SubscriptionRef.changes(ref)
    })
  })
)

/** Why the server takes no calls; undefined while it does. */
export const problem = ({ statuses }: GrpcHealth["Service"]): Effect.Effect<string | undefined> =>
  Effect.map(statuses, (known) => known.get(SERVER) === "SERVING" ? undefined : "takes no calls")

/** Answers health checks; open to everybody, because probes carry no token. */
export const service: GrpcService.GrpcService<GrpcHealth> = GrpcService.open(GrpcService.make(Health, {
  check: Effect.fnUntraced(function*(request) {
    const status = (yield* GrpcHealth.use((health) => health.statuses)).get(request.service)
    if (status === undefined) return yield* new NotFound({ kind: "service", name: request.service })
    return { status: ServingStatus[status] }
  }),
  list: Effect.fnUntraced(function*() {
    const known = yield* GrpcHealth.use((health) => health.statuses)
    return {
      statuses: Object.fromEntries(Array.from(known, ([name, status]) => [name, { status: ServingStatus[status] }]))
    }
  }),
  watch: (request) =>
    Stream.unwrap(Effect.map(GrpcHealth, (health) => health.changes)).pipe(
      Stream.map((known) => known.get(request.service) ?? "SERVICE_UNKNOWN"),
      Stream.changes,
      Stream.map((status) => ({ status: ServingStatus[status] }))
    )
}))
