/**
 * Finds an agent for a new sandbox and starts its first instance there. The Registry reserves, the agent decides: one
 * that refuses, or can't be reached, is left out and the next best is asked.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import { type BoundaryError, DeadlineExceeded } from "@fast-sandbox/core/Errors"
import * as Identifier from "@fast-sandbox/core/Identifier"
import { assignmentAnnotation, claimUidAnnotation } from "@fast-sandbox/core/Names"
import type { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import type { Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Instruments from "@fast-sandbox/telemetry/Instruments"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Agents, NotConnected } from "../agents/Agents.ts"
import * as InstanceSpec from "../InstanceSpec.ts"
import { Registry, type ReserveError } from "../registry/Registry.ts"
import type { Wanted } from "./SandboxRequest.ts"

/** A started sandbox. */
export interface Placed {
  /** With the assignment, as its resource is to be written. */
  readonly manifest: Wanted
  readonly assignment: Assignment.Assignment
  readonly instance: Instance
}

/** How a sandbox is started. */
export interface StartOptions<E, R> {
  /** The whole time for it, with all agents that are asked. */
  readonly limit: Duration.Duration
  readonly prepare: Prepare<E, R>
}

/** What is done with a sandbox between the choice of its agent and the call: its resource's uid, empty without one. */
export type Prepare<E, R> = (manifest: Wanted) => Effect.Effect<string, E, R>

/** Starts first instances. */
export class Placement extends Context.Service<Placement, {
  /**
   * Fails with ResourceExhausted when no agent has room, with NotFound for an unknown pool, with AlreadyExists when the
   * name is held, and with what the agent says when the program can't be started. An instance that may have been
   * started by a call that failed or was interrupted is ended in the background, unless its resource exists: then the
   * SandboxController finds it.
   */
  start<E, R>(
    wanted: Wanted,
    pool: SandboxPool,
    options: StartOptions<E, R>
  ): Effect.Effect<Placed, E | ReserveError | BoundaryError, R | KubeClient>
  /** Whether this instance's fate is still being decided here, so that nobody else may adopt it. */
  isOwn(instanceId: string): boolean
  /** The caller of `start` has recorded the instance. */
  settled(instanceId: string): Effect.Effect<void>
  /** The caller of `start` does not want the instance after all: it is ended, in the background if that takes long. */
  withdraw(assignment: Assignment.Assignment): Effect.Effect<void>
}>()("@fast-sandbox/controller/fastpath/Placement") {
  static get layer(): Layer.Layer<Placement, never, Agents | Registry> {
    return Layer.effect(Placement, make)
  }
}

/** Agents that are asked for one create: if so many refuse one after the other, the view is too old to go on. */
const maxCandidates = 5

/** 100 ms, 200 ms ... capped at 5 s, as long as the agent's Pod exists: what was given up must not come back. */
const undoPolicy = Schedule.min([Schedule.exponential("100 millis", 2), Schedule.spaced("5 seconds")]).pipe(
  Schedule.jittered
)

/** How long whoever gave a create up waits for the end of its instance, which goes on in the background. */
const undoPatience = Duration.seconds(10)

const stepDurations = Instruments.seconds(
  "fsb_create_step_duration_seconds",
  "Duration of the steps of creates",
  Metric.exponentialBoundaries({ start: 0.0005, factor: 2, count: 18 })
)

const nanosPerSecond = 1e9

/** Measures a step of a create. */
export const timed = (step: string) => {
  const histogram = Metric.withAttributes(stepDurations, { step })
  return <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Clock.clockWith((clock) => {
      const before = clock.monotonicTimeNanosUnsafe()
      return Effect.onExit(
        self,
        () => Metric.update(histogram, Number(clock.monotonicTimeNanosUnsafe() - before) / nanosPerSecond)
      )
    })
}

const encoder = new TextEncoder()

/** Whether another agent may have room where this one had none. */
const isNextWorthAsking = (error: BoundaryError): boolean =>
  error._tag === "ResourceExhausted" || error instanceof NotConnected

/** Whether a failed create may have taken effect all the same. */
export const isUncertain = (error: BoundaryError): boolean =>
  error._tag === "Unavailable" || error._tag === "DeadlineExceeded" || error._tag === "Cancelled"

/** Makes it; undoing goes on until the scope closes. */
export const make: Effect.Effect<Placement["Service"], never, Agents | Registry | Scope.Scope> = Effect.gen(
  function*() {
    const agents = yield* Agents
    const registry = yield* Registry
    const scope = yield* Effect.scope

    /** Instances that are being started or ended here. */
    const own = new Set<string>()

    /** Ends an instance of which nobody knows whether it was started. */
    const undo = ({ instanceId, podUid }: Assignment.Assignment) =>
      agents.delete(podUid, instanceId, 0).pipe(
        Effect.retry({
          schedule: undoPolicy,
          while: () => Effect.map(agents.get(podUid), Option.isSome)
        }),
        Effect.tapError((error) => Effect.logWarning("an instance that was given up could not be ended", error)),
        Effect.ignore,
        Effect.annotateLogs({ instance: instanceId }),
        Effect.ensuring(Effect.sync(() => own.delete(instanceId))),
        Effect.forkIn(scope),
        Effect.flatMap(Fiber.await),
        Effect.timeoutOption(undoPatience)
      )

    const attempt = Effect.fnUntraced(function*<E, R>(
      wanted: Wanted,
      spec: InstanceSpec.InstanceSpec,
      excluding: ReadonlySet<string>,
      endsAt: number,
      prepare: Prepare<E, R>
    ) {
      const { name, namespace } = wanted.metadata
      const instanceId = yield* Identifier.fresh
      const reservation = yield* registry.reserve({
        instanceId,
        namespace,
        name,
        pool: wanted.spec.poolRef,
        image: wanted.spec.image,
        ports: wanted.spec.exposedPorts ?? [],
        excluding
      }).pipe(timed("reserve"))
      const { node, pod, uid: podUid } = reservation.agent
      const assignment: Assignment.Assignment = { instanceId, pod, podUid, node }
      const manifest: Wanted = {
        ...wanted,
        metadata: {
          ...wanted.metadata,
          annotations: { ...wanted.metadata.annotations, [assignmentAnnotation]: Assignment.encode(assignment) }
        }
      }
      const resourceUid = yield* prepare(manifest)
      own.add(instanceId)
      const asked = yield* agents.create(podUid, {
        instanceId,
        claim: {
          namespace,
          sandboxName: name,
          claimUid: wanted.metadata.annotations[claimUidAnnotation] ?? "",
          manifest: encoder.encode(JSON.stringify(manifest)),
          resourceUid
        },
        spec
      }).pipe(
        timed("agent"),
        Effect.timeoutOrElse({
          duration: Duration.millis(Math.max(0, endsAt - (yield* Clock.currentTimeMillis))),
          orElse: () => Effect.fail(new DeadlineExceeded({ operation: `the start of ${namespace}/${name}` }))
        }),
        // Callers shield the rest, so that what was started is never forgotten; waiting for the agent can be given up.
        Effect.interruptible,
        Effect.onInterrupt(() => resourceUid === "" ? undo(assignment) : Effect.sync(() => own.delete(instanceId))),
        Effect.result
      )
      if (Result.isFailure(asked)) {
        if (isNextWorthAsking(asked.failure)) {
          own.delete(instanceId)
          return Result.fail({ podUid, error: asked.failure })
        }
        if (resourceUid === "" || !isUncertain(asked.failure)) {
          yield* undo(assignment)
        } else {
          own.delete(instanceId)
        }
        return yield* asked.failure
      }
      yield* registry.confirm(reservation)
      return Result.succeed({ manifest, assignment, instance: asked.success })
    }, Effect.scoped)

    return Placement.of({
      isOwn: (instanceId) => own.has(instanceId),
      settled: (instanceId) => Effect.sync(() => own.delete(instanceId)),
      withdraw: (assignment) => Effect.asVoid(undo(assignment)),
      start: Effect.fnUntraced(function*(wanted, pool, { limit, prepare }) {
        const endsAt = (yield* Clock.currentTimeMillis) + Duration.toMillis(limit)
        const spec = yield* InstanceSpec.make(wanted, pool)
        const refusers = new Set<string>()
        for (;;) {
          const result = yield* attempt(wanted, spec, refusers, endsAt, prepare)
          if (Result.isSuccess(result)) {
            return result.success
          }
          const { error, podUid } = result.failure
          refusers.add(podUid)
          if (refusers.size === maxCandidates) {
            return yield* error
          }
          yield* Effect.logDebug("an agent refused, the next best is asked", error)
        }
      })
    })
  }
)
