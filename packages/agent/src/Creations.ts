/**
 * Creates on their way. A create that was admitted is finished even when its caller goes away: it is idempotent by its
 * instance id, so the caller that comes back gets the answer, and an instance that nobody comes back for is seen by
 * every watcher. Rolling back instead would race with that second attempt. Only a delete (or the end of the agent)
 * interrupts a create, between two of its steps, and what was made until then is unmade.
 */
import { create as createMessage, equals } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import {
  AlreadyExists,
  type BoundaryError,
  FailedPrecondition,
  ResourceExhausted,
  Unavailable
} from "@fast-sandbox/core/Errors"
import { RecentSet } from "@fast-sandbox/core/RecentSet"
import { Traffic } from "@fast-sandbox/core/Traffic"
import {
  type Claim,
  ClaimSchema,
  type CreateRequest,
  type Instance,
  InstanceSchema,
  InstanceSpecSchema,
  InstanceState,
  type StartupStep
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import { availableParallelism } from "node:os"
import { Endings } from "./Endings.ts"
import { ImageCatalog, type PreparedImage } from "./ImageCatalog.ts"
import { type Entry, Instances } from "./Instances.ts"
import * as Metrics from "./Metrics.ts"
import { SandboxNetwork } from "./network/SandboxNetwork.ts"
import { ParkedSlots } from "./parked/ParkedSlots.ts"
import { type Around, SandboxContainer } from "./SandboxContainer.ts"
import { Slots } from "./Slots.ts"

/**
 * Creates that are in containerd at the same time. Each one keeps about a core busy (the OCI runtime is executed twice);
 * more of them at once only make each slower.
 */
const createConcurrency: number = Math.max(2, availableParallelism())

/** Records of exited instances are kept until they are deleted. This many, a few KiB each, mean that nobody does. */
const maxInstances = 10_000

/**
 * Deleted instances that are remembered. A create can be overtaken by the delete of its instance when another controller
 * asks for that over a connection of its own; it is late by what the old connection holds, which is seconds at most.
 */
const maxForbidden = 10_000

/** Controllers delete what they have seen end within seconds. */
const recordsRetryMillis = 5000

const millisPerSecond = 1000

/**
 * - `create` answers with the running instance. A repeat with the same claim and spec gets the same answer, with others
 *   ALREADY_EXISTS. FAILED_PRECONDITION `InstanceDeleted` when a delete came in between.
 * - `settled` waits until a create of that instance, if there is one, has ended one way or the other.
 * - `forbid` is for a delete: it ends the create early, is done when that has ended, and refuses one that arrives later.
 * - `allSettled` waits for all.
 */
export class Creations extends Context.Service<Creations, {
  readonly create: (request: CreateRequest) => Effect.Effect<Instance, BoundaryError>
  readonly settled: (instanceId: string) => Effect.Effect<void>
  readonly forbid: (instanceId: string) => Effect.Effect<void>
  readonly allSettled: Effect.Effect<void>
}>()("@fast-sandbox/agent/Creations") {
  static readonly layer: Layer.Layer<
    Creations,
    never,
    Endings | ImageCatalog | Instances | ParkedSlots | SandboxContainer | SandboxNetwork | Slots | Traffic
  > = Layer.effect(Creations, Effect.suspend(() => make))
}

/** Without the resource's uid, which may have been added since. */
const unbound = (claim: Claim | undefined): Claim =>
  claim === undefined ? createMessage(ClaimSchema) : { ...claim, resourceUid: "" }

const isSame = (request: CreateRequest, { claim, spec }: Pick<Instance, "claim" | "spec">): boolean =>
  equals(
    InstanceSpecSchema,
    request.spec ?? createMessage(InstanceSpecSchema),
    spec ?? createMessage(InstanceSpecSchema)
  ) &&
  equals(ClaimSchema, unbound(request.claim), unbound(claim))

const deleted = Effect.fail(
  new FailedPrecondition({
    reason: "InstanceDeleted",
    problem: "the instance was deleted before it was created; use a new instance id"
  })
)

/** The answer of a create that others may end. */
const answerOf = (fiber: Fiber.Fiber<Instance, BoundaryError>): Effect.Effect<Instance, BoundaryError> =>
  Effect.flatMap(Fiber.await(fiber), (exit) =>
    Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
      ? deleted
      : exit)

/** The answer for an instance that is there. One that never ran is the rest of a failed start. */
const presentAnswer = (instance: Instance): Effect.Effect<Instance, Unavailable> =>
  instance.startedAt === undefined
    ? Effect.fail(
      new Unavailable({
        target: `instance ${instance.instanceId}`,
        problem: "it failed to start and is being cleared up; use a new instance id"
      })
    )
    : Effect.succeed(instance)

/** Answers a repeat with `answer`. */
const replay = <E>(
  request: CreateRequest,
  known: Pick<Instance, "claim" | "spec">,
  answer: Effect.Effect<Instance, E>
): Effect.Effect<Instance, E | AlreadyExists> =>
  isSame(request, known) ? answer : Effect.fail(
    new AlreadyExists({
      kind: "instance",
      name: request.instanceId,
      hint: "it has another claim or spec; every start needs an instance id of its own"
    })
  )

const secondsSince = (begun: number): number => (performance.now() - begun) / millisPerSecond

/** Adds the time of a step that succeeds to `steps`. */
const measure = (steps: Array<StartupStep>, name: string) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const begun = performance.now()
    return Effect.map(self, (value) => {
      steps.push({ $typeName: "agent.v1.StartupStep", name, millis: secondsSince(begun) * millisPerSecond })
      return value
    })
  })

const count = (tier: string, result: "started" | "failed") =>
  Metric.update(Metric.withAttributes(Metrics.creates, { tier, result }), 1)

/** Counts a start and the time of it and of its steps. */
const record = Effect.fnUntraced(function*(tier: string, seconds: number, steps: ReadonlyArray<StartupStep>) {
  yield* count(tier, "started")
  yield* Metric.update(Metric.withAttributes(Metrics.createDuration, { tier }), seconds)
  for (const { millis, name: step } of steps) {
    yield* Metric.update(Metric.withAttributes(Metrics.stepDuration, { tier, step }), millis / millisPerSecond)
  }
})

/** Failures are the caller's to read in full; only a defect needs its stack in the log. */
const summaryOf = (cause: Cause.Cause<BoundaryError>): string => {
  const failure = Cause.findError(cause)
  return Result.isSuccess(failure)
    ? failure.success.message
    : Cause.hasInterruptsOnly(cause)
    ? "it was interrupted"
    : Cause.pretty(cause)
}

/** A create on its way: everybody who asks for the same instance waits for the same end. */
interface Creation {
  readonly request: CreateRequest
  readonly fiber: Fiber.Fiber<Instance, BoundaryError>
}

const make = Effect.gen(function*() {
  const catalog = yield* ImageCatalog
  const endings = yield* Endings
  const instances = yield* Instances
  const network = yield* SandboxNetwork
  const sandboxes = yield* SandboxContainer
  const slots = yield* Slots
  const parked = yield* ParkedSlots
  const traffic = yield* Traffic
  const scope = yield* Effect.scope
  const permits = yield* Semaphore.make(createConcurrency)
  const creations = new Map<string, Creation>()
  const forbidden = new RecentSet<string>(maxForbidden)

  /** Takes a slot and shows the instance as CREATING. */
  const admit = Effect.fnUntraced(function*(request: CreateRequest, steps: Array<StartupStep>) {
    if (instances.all().length >= maxInstances) {
      return yield* new ResourceExhausted({
        resource: "instance record",
        problem: `the agent keeps ${maxInstances} records; delete instances that have exited`,
        retryAfterMillis: recordsRetryMillis
      })
    }
    const ports = request.spec?.exposedPorts ?? []
    const createdAt = timestampFromMs(yield* Clock.currentTimeMillis)
    const instance: Instance = {
      ...createMessage(InstanceSchema),
      instanceId: request.instanceId,
      claim: request.claim,
      spec: request.spec,
      state: InstanceState.CREATING,
      createdAt,
      endpoints: [...network.endpoints(ports)]
    }
    // Nothing comes between the slot and the instance that gives it back.
    return yield* slots.admit(request.instanceId, ports).pipe(
      measure(steps, "admit"),
      Effect.map(() => instances.add(instance))
    )
  })

  /** Makes the sandbox of an admitted instance; `restore` lets an interruption in. */
  const launch = (
    entry: Entry,
    steps: Array<StartupStep>,
    restore: <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<Instance, BoundaryError> => {
    const begun = performance.now()
    let hasContainer = false
    let tier: "parked" | "prepared" | "cold" = "prepared"
    const around: Around = (step) => (self) =>
      restore(Effect.void).pipe(
        Effect.andThen(Effect.suspend(() => {
          hasContainer = true
          return self
        })),
        Effect.tapError((error) =>
          Effect.sync(() => {
            // Something else has this id: it is not ours to remove.
            hasContainer = hasContainer && !(step === "record" && error._tag === "AlreadyExists")
          })
        ),
        measure(steps, step)
      )
    const makeContainer = (image: PreparedImage) =>
      permits.withPermits(1)(sandboxes.make(entry.instance, image, around)).pipe(
        // Preparing again is cheap; a wrong memory would fail every create of this image.
        Effect.tapError(() => catalog.distrust(image))
      )
    return Effect.gen(function*() {
      const found = yield* restore(catalog.prepare(entry.instance.spec?.image ?? "")).pipe(measure(steps, "image"))
      tier = found.tier
      entry.stopSignal = found.prepared.stopSignal
      const served = yield* parked.claim(entry, found.prepared, (step) => measure(steps, step)).pipe(
        Effect.tapError(() =>
          Effect.sync(() => {
            hasContainer = entry.containerId !== entry.id
          })
        )
      )
      if (served !== undefined) {
        tier = served === "parked" ? served : tier
        hasContainer = true
      } else {
        yield* makeContainer(found.prepared)
      }
      const startedAt = timestampFromMs(yield* Clock.currentTimeMillis)
      const instance = instances.update(entry, {
        state: InstanceState.RUNNING,
        startedAt,
        startup: { $typeName: "agent.v1.Startup", tier, steps }
      })
      const seconds = secondsSince(begun)
      yield* endings.follow(entry)
      // The answer goes first.
      yield* Effect.forkIn(Effect.andThen(instances.saveLater(entry), record(tier, seconds, steps)), scope)
      return instance
    }).pipe(
      Effect.onError((cause) =>
        count(tier, "failed").pipe(
          Effect.andThen(Effect.logInfo("a create failed", { instance: entry.id }, summaryOf(cause))),
          Effect.andThen(endings.unmake(entry, hasContainer))
        )
      )
    )
  }

  const start = (request: CreateRequest): Effect.Effect<Instance, BoundaryError> =>
    Effect.uninterruptibleMask((restore) => {
      const steps: Array<StartupStep> = []
      return Effect.flatMap(admit(request, steps), (entry) => launch(entry, steps, restore))
    })

  const begin = (request: CreateRequest): Effect.Effect<Instance, BoundaryError> =>
    Effect.forkIn(traffic.during(start(request)), scope, { startImmediately: true }).pipe(
      Effect.tap((fiber) =>
        Effect.sync(() => {
          creations.set(request.instanceId, { request, fiber })
          fiber.addObserver(() => creations.delete(request.instanceId))
        })
      ),
      // No fiber without its entry in the map, however early the caller goes away.
      Effect.uninterruptible,
      Effect.flatMap(answerOf)
    )

  const settled = (instanceId: string) =>
    Effect.suspend(() => {
      const creation = creations.get(instanceId)
      return creation === undefined ? Effect.void : Effect.asVoid(Fiber.await(creation.fiber))
    })

  return Creations.of({
    create: (request) =>
      Effect.suspend(() => {
        const creation = creations.get(request.instanceId)
        if (creation !== undefined) {
          return replay(request, creation.request, answerOf(creation.fiber))
        }
        const entry = instances.get(request.instanceId)
        return forbidden.has(request.instanceId)
          ? deleted
          : entry === undefined
          ? begin(request)
          : replay(request, entry.instance, presentAnswer(entry.instance))
      }),
    settled,
    forbid: (instanceId) =>
      Effect.suspend(() => {
        forbidden.add(instanceId)
        const creation = creations.get(instanceId)
        return creation === undefined ? Effect.void : Fiber.interrupt(creation.fiber)
      }),
    allSettled: Effect.suspend(() =>
      Effect.forEach([...creations.keys()], settled, { concurrency: "unbounded", discard: true })
    )
  })
})
