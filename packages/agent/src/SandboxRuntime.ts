/**
 * The sandboxes of one agent, from admission to the last trace of them. A stop or delete, once begun, is carried through
 * also when its caller goes away, as a create is (see `Creations`).
 */
import { create as createMessage } from "@bufbuild/protobuf"
import { type BoundaryError, NotFound } from "@fast-sandbox/core/Errors"
import { ClaimSchema, type CreateRequest, type Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import { toBoundary } from "./ContainerdFailure.ts"
import { Creations } from "./Creations.ts"
import { Endings } from "./Endings.ts"
import { type Entry, Instances } from "./Instances.ts"
import { NodeEvents } from "./NodeEvents.ts"
import { ParkedSlots } from "./parked/ParkedSlots.ts"
import { SandboxContainer } from "./SandboxContainer.ts"
import { Slots } from "./Slots.ts"

/** The answer to a bind means that it is written; containerd may be restarting: 50 ... 400 ms. */
const recordPolicy = Schedule.exponential("50 millis").pipe(Schedule.upTo({ times: 4 }))

/** At the end of the agent, creates that were admitted get this long to finish. */
const drainCreates = "10 seconds"

/** The output of an instance: in the log of this container, complete when `ended` is. */
export interface Output {
  readonly containerId: string
  readonly ended: Effect.Effect<void>
}

/**
 * - `create` is a replay when the instance exists with the same claim and spec, ALREADY_EXISTS with others.
 * - `bind` answers when the resource's uid is recorded.
 * - `stop` and `delete` answer when it is done; `graceSeconds` absent means the instance's own. A delete interrupts a
 *   create of the same instance.
 * - `output` tells where an instance's output goes, and gives what completes when its program and its logger have ended.
 * - `drain` admits nothing more and, as told, ends all sandboxes within their grace periods.
 */
export class SandboxRuntime extends Context.Service<SandboxRuntime, {
  readonly create: (request: CreateRequest) => Effect.Effect<Instance, BoundaryError>
  readonly bind: (instanceId: string, resourceUid: string) => Effect.Effect<void, BoundaryError>
  readonly stop: (instanceId: string, graceSeconds?: number) => Effect.Effect<Instance, BoundaryError>
  readonly delete: (instanceId: string, graceSeconds?: number) => Effect.Effect<void, BoundaryError>
  readonly list: Effect.Effect<ReadonlyArray<Instance>>
  readonly output: (instanceId: string) => Effect.Effect<Output, NotFound>
  readonly drain: (sandboxes: "stop" | "leave") => Effect.Effect<void>
}>()("@fast-sandbox/agent/SandboxRuntime") {
  /** Built when everything that was found in containerd is taken up: from then on it may be asked. */
  static readonly layer: Layer.Layer<
    SandboxRuntime,
    never,
    Creations | Endings | Instances | NodeEvents | ParkedSlots | SandboxContainer | Slots
  > = Layer.effect(SandboxRuntime, Effect.suspend(() => make))
}

const make = Effect.gen(function*() {
  yield* NodeEvents
  const creations = yield* Creations
  const endings = yield* Endings
  const instances = yield* Instances
  const sandboxes = yield* SandboxContainer
  const slots = yield* Slots
  const parked = yield* ParkedSlots
  const scope = yield* Effect.scope

  const find = (instanceId: string): Effect.Effect<Entry, NotFound> =>
    Effect.suspend(() => {
      const entry = instances.get(instanceId)
      return entry === undefined
        ? Effect.fail(new NotFound({ kind: "instance", name: instanceId }))
        : Effect.succeed(entry)
    })

  /** Runs in a fiber of the agent's. */
  const carryThrough = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.flatMap(Effect.forkIn(effect, scope, { startImmediately: true }), Fiber.join)

  const forget = (entry: Entry) =>
    Effect.suspend(() =>
      instances.get(entry.id) === entry
        ? Effect.andThen(sandboxes.forget(entry.containerId), Effect.sync(() => instances.forget(entry)))
        : Effect.void
    ).pipe(entry.record.withPermits(1), Effect.mapError((error) => error.boundary))

  return SandboxRuntime.of({
    create: creations.create,
    bind: Effect.fn("SandboxRuntime.bind")(function*(instanceId, resourceUid) {
      yield* creations.settled(instanceId)
      const entry = yield* find(instanceId)
      const claim = entry.instance.claim ?? createMessage(ClaimSchema)
      if (claim.resourceUid !== resourceUid) {
        instances.update(entry, { claim: { ...claim, resourceUid } })
      }
      yield* instances.save(entry).pipe(Effect.retry(recordPolicy), Effect.mapError(toBoundary))
    }),
    stop: Effect.fn("SandboxRuntime.stop")(function*(instanceId, graceSeconds) {
      yield* creations.settled(instanceId)
      const entry = yield* find(instanceId)
      yield* carryThrough(endings.halt(entry, graceSeconds))
      return entry.instance
    }),
    delete: Effect.fn("SandboxRuntime.delete")(function*(instanceId, graceSeconds) {
      if (instances.get(instanceId) === undefined) {
        // It may be on its way and not admitted yet.
        yield* creations.forbid(instanceId)
      }
      const entry = yield* find(instanceId)
      entry.isDeleting = true
      yield* carryThrough(
        creations.forbid(instanceId).pipe(
          Effect.andThen(
            Effect.suspend(() => instances.get(instanceId) === entry ? endings.halt(entry, graceSeconds) : Effect.void)
          ),
          Effect.andThen(forget(entry))
        )
      )
    }),
    list: Effect.sync(() => instances.all().map(({ instance }) => instance)),
    output: (instanceId) =>
      Effect.map(find(instanceId), ({ containerId, ended }) => ({ containerId, ended: Deferred.await(ended) })),
    drain: Effect.fn("SandboxRuntime.drain")(function*(what) {
      yield* slots.drain
      yield* Effect.timeoutOption(creations.allSettled, drainCreates)
      yield* parked.close
      if (what === "stop") {
        yield* Effect.forEach(
          instances.all(),
          (entry) =>
            endings.halt(entry, undefined).pipe(
              Effect.catch((error) => Effect.logError("a sandbox was left behind", error.message))
            ),
          { concurrency: "unbounded", discard: true }
        )
      }
    })
  })
})
