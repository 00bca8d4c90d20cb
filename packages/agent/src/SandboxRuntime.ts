/**
 * The sandboxes of one agent, from admission to the last trace of them.
 *
 * Whoever calls may go away at any moment. A create that was admitted is finished all the same, in a fiber of the
 * agent's: it is idempotent by its instance id, so the caller that comes back gets the answer, and an instance that
 * nobody comes back for is seen by every watcher; rolling back instead would race with that second attempt. A stop or
 * delete, once begun, is carried through for the same reason. Only a delete interrupts a create, between two of its
 * steps, and what was made until then is unmade.
 *
 * Exits come from containerd's events, one subscription for all. After every gap in them, and at the start, the agent
 * compares its table with what containerd has.
 */
import { create as createMessage, equals } from "@bufbuild/protobuf"
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt"
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { type ContainerdEvent, Events } from "@fast-sandbox/containerd/Events"
import { anchorLabel } from "@fast-sandbox/containerd/ShimGroups"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { type Process, Tasks } from "@fast-sandbox/containerd/Tasks"
import { AlreadyExists, type BoundaryError, NotFound, type Unavailable } from "@fast-sandbox/core/Errors"
import {
  type Claim,
  ClaimSchema,
  type CreateRequest,
  type Instance,
  InstanceSchema,
  InstanceSpecSchema,
  InstanceState,
  type StartupStep,
  StartupStepSchema
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { availableParallelism } from "node:os"
import { AgentConfig } from "./AgentConfig.ts"
import { toBoundary } from "./ContainerdFailure.ts"
import { ImageCatalog } from "./ImageCatalog.ts"
import * as InstanceRecord from "./InstanceRecord.ts"
import { type Entry, Instances, type ProgramExit } from "./Instances.ts"
import { outcome } from "./InstanceState.ts"
import * as Metrics from "./Metrics.ts"
import { type Around, type LeftBehind, SandboxContainer, type Step } from "./SandboxContainer.ts"
import { Slots } from "./Slots.ts"

/**
 * Creates that are in containerd at the same time. Each one keeps about a core busy (the OCI runtime is executed twice);
 * more of them at once only make each slower.
 */
export const createConcurrency: number = Math.max(2, availableParallelism())

/** Unlike creates, ends wait more than they work; still every one executes the OCI runtime. */
const endConcurrency = 8

/** After SIGKILL the kernel needs milliseconds; longer than this, an event must have been lost. */
const killNotice = "2 seconds"

/** A program that ends faster than this after its stop signal is not worth a note that it was asked to. */
const promptEnd = "100 millis"

/** What can't be removed now is tried again this often, for as long as the agent runs. */
const stuckPolicy = Schedule.spaced("10 seconds")

/** containerd may be restarting when we look. */
const lookPolicy = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")])

/** At the end of the agent, creates that were admitted get this long to finish. */
const drainCreates = "10 seconds"

const defaultGraceSeconds = 10

/**
 * - `create` is a replay when the instance exists with the same claim and spec, ALREADY_EXISTS with others.
 * - `stop` and `delete` answer when it is done; `graceSeconds` absent means the instance's own.
 * - `ended` completes when an instance's program and its logger have ended.
 * - `drain` admits nothing more and, as told, ends all sandboxes within their grace periods.
 */
export class SandboxRuntime extends Context.Service<SandboxRuntime, {
  readonly create: (request: CreateRequest) => Effect.Effect<Instance, BoundaryError>
  readonly bind: (instanceId: string, resourceUid: string) => Effect.Effect<void, BoundaryError>
  readonly stop: (instanceId: string, graceSeconds?: number) => Effect.Effect<Instance, BoundaryError>
  readonly delete: (instanceId: string, graceSeconds?: number) => Effect.Effect<void, BoundaryError>
  readonly list: Effect.Effect<ReadonlyArray<Instance>>
  readonly ended: (instanceId: string) => Effect.Effect<Effect.Effect<void>, NotFound>
  readonly drain: (sandboxes: "stop" | "leave") => Effect.Effect<void>
}>()("@fast-sandbox/agent/SandboxRuntime") {
  /** Built when everything that was found in containerd is taken up: from then on it may be asked. */
  static readonly layer: Layer.Layer<
    SandboxRuntime,
    never,
    | AgentConfig
    | Containers
    | Events
    | ImageCatalog
    | Instances
    | SandboxContainer
    | Slots
    | Snapshots
    | Tasks
  > = Layer.effect(SandboxRuntime, Effect.suspend(() => make))
}

/** A create on its way: everybody who asks for the same instance waits for the same end. */
interface Creation {
  readonly request: CreateRequest
  readonly fiber: Fiber.Fiber<Instance, BoundaryError>
}

const isSame = (request: CreateRequest, { claim, spec }: Pick<Instance, "claim" | "spec">): boolean =>
  equals(
    InstanceSpecSchema,
    request.spec ?? createMessage(InstanceSpecSchema),
    spec ?? createMessage(InstanceSpecSchema)
  ) &&
  // The resource's uid may have been added since.
  equals(ClaimSchema, unbound(request.claim), unbound(claim))

const unbound = (claim: Claim | undefined): Claim =>
  claim === undefined ? createMessage(ClaimSchema) : { ...claim, resourceUid: "" }

const notFound = (instanceId: string): NotFound => new NotFound({ kind: "instance", name: instanceId })

const make = Effect.gen(function*() {
  const settings = yield* AgentConfig
  const catalog = yield* ImageCatalog
  const containers = yield* Containers
  const events = yield* Events
  const instances = yield* Instances
  const sandboxes = yield* SandboxContainer
  const slots = yield* Slots
  const snapshots = yield* Snapshots
  const tasks = yield* Tasks
  const scope = yield* Effect.scope

  const creating = yield* Semaphore.make(createConcurrency)
  const creations = new Map<string, Creation>()

  const find = (instanceId: string): Effect.Effect<Entry, NotFound> =>
    Effect.suspend(() => {
      const entry = instances.get(instanceId)
      return entry === undefined ? Effect.fail(notFound(instanceId)) : Effect.succeed(entry)
    })

  // --- The end of an instance -------------------------------------------------------------------------------------

  const complain = (entry: Entry) => (error: LeftBehind) =>
    Effect.suspend(() => {
      const { stuck } = entry
      entry.stuck = Deferred.makeUnsafe()
      if (entry.instance.state !== InstanceState.STOPPING || entry.instance.message !== error.message) {
        instances.update(entry, { state: InstanceState.STOPPING, message: error.message })
      }
      return Effect.logError("an instance leaves something behind", { instance: entry.id }, error.message).pipe(
        Effect.andThen(Deferred.fail(stuck, error.boundary))
      )
    })

  /** Removes until it is proven gone, however long that takes; those who wait are told after each failed attempt. */
  const persist = (entry: Entry, removal: Effect.Effect<void, LeftBehind>): Effect.Effect<void> =>
    removal.pipe(
      Effect.tapError(complain(entry)),
      Effect.retry(stuckPolicy),
      Effect.orDie
    )

  const endedInstance = (entry: Entry, exit: ProgramExit, oomKills: number): Instance => {
    const { exitCode, message, reason, signal } = outcome({
      exitCode: exit.exitCode,
      wasStopped: entry.isStopRequested,
      oomKills
    })
    const { exitCode: _, ...instance } = entry.instance
    return {
      ...instance,
      state: InstanceState.EXITED,
      reason,
      message,
      signal,
      finishedAt: timestampFromMs(exit.atMillis),
      ...(exitCode === undefined ? {} : { exitCode })
    }
  }

  /**
   * Follows a running instance to its end. The record learns of the end before the task is deleted, because with the
   * task containerd forgets the exit code; a sandbox that is being deleted needs no record.
   */
  const supervise = Effect.fnUntraced(function*(entry: Entry) {
    const exit = yield* Deferred.await(entry.exit)
    const oomKills = Math.max(entry.oomKills, yield* sandboxes.oomKills(entry.id))
    const ended = endedInstance(entry, exit, oomKills)
    if (!entry.isDeleting) {
      yield* instances.save(entry, ended).pipe(
        Effect.catch((error) =>
          Effect.logWarning("an exit could not be recorded", { instance: entry.id }, error.message)
        )
      )
    }
    yield* persist(entry, sandboxes.reclaim(entry.id))
    yield* slots.release(entry.id)
    const { claim } = entry.instance
    instances.update(entry, { ...ended, ...(claim === undefined ? {} : { claim }) })
    yield* Metric.update(Metric.withAttributes(Metrics.ends, { reason: ended.reason }), 1)
    yield* Deferred.succeed(entry.ended, undefined)
  })

  const follow = (entry: Entry) => Effect.asVoid(Effect.forkIn(supervise(entry), scope, { startImmediately: true }))

  /** Finds out by itself whether a program has ended, where an event may have been missed. */
  const lookAt = Effect.fnUntraced(function*(entry: Entry) {
    const { exitCode, exitedAtMillis, status } = yield* sandboxes.observe(entry.id)
    if (status === "stopped") {
      yield* Deferred.succeed(entry.exit, { exitCode, atMillis: exitedAtMillis })
    } else if (status === "absent") {
      yield* Deferred.succeed(entry.exit, { exitCode: undefined, atMillis: yield* Clock.currentTimeMillis })
    }
  })

  const exited = (entry: Entry, within: Duration.Input) =>
    Deferred.await(entry.exit).pipe(Effect.timeoutOption(within), Effect.map(Option.isSome))

  const askToEnd = Effect.fnUntraced(function*(entry: Entry, grace: Duration.Duration) {
    if (!entry.isSignalled) {
      entry.isSignalled = true
      yield* sandboxes.signal(entry.id, entry.stopSignal)
    }
    const first = Duration.min(grace, Duration.fromInputUnsafe(promptEnd))
    if (yield* exited(entry, first)) {
      return
    }
    if (!entry.isDeleting) {
      yield* Effect.ignore(instances.save(entry))
    }
    yield* exited(entry, Duration.subtract(grace, first))
  })

  const killAndWait = (entry: Entry): Effect.Effect<void, ContainerdError> =>
    sandboxes.kill(entry.id).pipe(
      Effect.andThen(exited(entry, killNotice)),
      Effect.flatMap((isOver) => isOver ? Effect.void : Effect.andThen(lookAt(entry), killAndWait(entry)))
    )

  /** Stop signal, grace period, SIGKILL. The shortest grace period wins when several ask. */
  const end = Effect.fn("SandboxRuntime.end")(function*(entry: Entry, graceSeconds: number | undefined) {
    entry.isStopRequested = true
    if (entry.instance.state === InstanceState.RUNNING) {
      instances.update(entry, { state: InstanceState.STOPPING })
    }
    const grace = Duration.seconds(
      graceSeconds ?? entry.instance.spec?.terminationGracePeriodSeconds ?? defaultGraceSeconds
    )
    yield* Effect.gen(function*() {
      if (Duration.toMillis(grace) > 0) {
        yield* askToEnd(entry, grace)
      }
      if (!(yield* Deferred.isDone(entry.exit))) {
        yield* killAndWait(entry)
      }
    }).pipe(
      Effect.tapError((error) =>
        Effect.logWarning("an instance could not be signalled", { instance: entry.id }, error.message)
      ),
      Effect.retry(lookPolicy),
      Effect.orDie
    )
  })

  /** Waits until the slot is back, or fails when something is left behind for now. */
  const untilEnded = (entry: Entry): Effect.Effect<void, Unavailable> =>
    Effect.suspend(() => Effect.raceFirst(Deferred.await(entry.ended), Deferred.await(entry.stuck)))

  /** Runs in a fiber of the agent's, so that it is carried through when the caller goes away. */
  const carryThrough = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.forkIn(effect, scope, { startImmediately: true }).pipe(Effect.flatMap(Fiber.join))

  const halt = Effect.fnUntraced(function*(entry: Entry, graceSeconds: number | undefined) {
    if (entry.instance.state !== InstanceState.EXITED) {
      // The slot may be back before the signals are through with (somebody else's shorter grace period).
      yield* Effect.raceFirst(end(entry, graceSeconds), Deferred.await(entry.ended))
      yield* untilEnded(entry)
    }
  })

  // --- The beginning ----------------------------------------------------------------------------------------------

  /** Unmakes what a failed or interrupted create has made. The slot comes back when that is proven. */
  const rollBack = (entry: Entry, hasRecord: boolean): Effect.Effect<void> => {
    const remove = hasRecord
      ? Effect.andThen(sandboxes.reclaim(entry.id), sandboxes.forget(entry.id))
      : Effect.void
    const close = slots.release(entry.id).pipe(
      Effect.andThen(Effect.sync(() => instances.forget(entry))),
      Effect.andThen(Deferred.succeed(entry.ended, undefined)),
      Effect.asVoid
    )
    return remove.pipe(
      Effect.andThen(close),
      Effect.catch((error) =>
        complain(entry)(error).pipe(
          Effect.andThen(Effect.forkIn(Effect.andThen(persist(entry, remove), close), scope)),
          Effect.asVoid
        )
      )
    )
  }

  const measure = (steps: Array<StartupStep>, name: string) => <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      const begun = performance.now()
      return Effect.tap(self, () =>
        Effect.suspend(() => {
          const millis = performance.now() - begun
          steps.push(createMessage(StartupStepSchema, { name, millis }))
          return Metric.update(Metric.withAttributes(Metrics.stepDuration, { step: name }), millis / millisPerSecond)
        }))
    })

  const counted = (tier: string, result: "started" | "failed") =>
    Metric.update(Metric.withAttributes(Metrics.creates, { tier, result }), 1)

  const start = (request: CreateRequest): Effect.Effect<Instance, BoundaryError> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const begun = performance.now()
        const id = request.instanceId
        const steps: Array<StartupStep> = []
        const ports = request.spec?.exposedPorts ?? []
        const reservation = yield* slots.admit(id, ports).pipe(measure(steps, "admit"))
        const entry = instances.add(
          createMessage(InstanceSchema, {
            instanceId: id,
            ...(request.claim === undefined ? {} : { claim: request.claim }),
            ...(request.spec === undefined ? {} : { spec: request.spec }),
            state: InstanceState.CREATING,
            createdAt: timestampFromMs(yield* Clock.currentTimeMillis),
            endpoints: ports.map((port) => `${settings.podIp}:${port}`)
          }),
          0
        )
        yield* reservation.handOver
        let hasRecord = false
        const around: Around = (step: Step) => (self) =>
          restore(Effect.void).pipe(
            Effect.andThen(Effect.suspend(() => {
              hasRecord = true
              return self
            })),
            Effect.tapError((error) =>
              Effect.sync(() => {
                // Something else has this id: it is not ours to remove.
                hasRecord = hasRecord && !(step === "record" && error._tag === "AlreadyExists")
              })
            ),
            measure(steps, step)
          )
        let tier: string = "prepared"
        return yield* Effect.gen(function*() {
          const found = yield* restore(catalog.prepare(request.spec?.image ?? "")).pipe(measure(steps, "image"))
          tier = found.tier
          entry.stopSignal = found.prepared.stopSignal
          yield* creating.withPermits(1)(sandboxes.make(entry.instance, found.prepared, around))
          const instance = instances.update(entry, {
            state: InstanceState.RUNNING,
            startedAt: timestampFromMs(yield* Clock.currentTimeMillis),
            startup: { $typeName: "agent.v1.Startup", tier, steps }
          })
          yield* follow(entry)
          yield* instances.saveLater(entry)
          yield* counted(tier, "started")
          yield* Metric.update(
            Metric.withAttributes(Metrics.createDuration, { tier }),
            (performance.now() - begun) / millisPerSecond
          )
          return instance
        }).pipe(
          Effect.onError((cause) =>
            counted(tier, "failed").pipe(
              Effect.andThen(Effect.logInfo("a create failed", { instance: id }, Cause.pretty(cause))),
              Effect.andThen(rollBack(entry, hasRecord))
            )
          )
        )
      }).pipe(Effect.scoped)
    )

  const replay = (
    request: CreateRequest,
    known: Pick<Instance, "claim" | "spec">
  ): Effect.Effect<void, AlreadyExists> =>
    isSame(request, known) ? Effect.void : Effect.fail(
      new AlreadyExists({
        kind: "instance",
        name: request.instanceId,
        hint: "it has another claim or spec; every start needs an instance id of its own"
      })
    )

  const create = Effect.fn("SandboxRuntime.create")(function*(
    request: CreateRequest
  ): Effect.fn.Return<Instance, BoundaryError> {
    const id = request.instanceId
    yield* Effect.annotateCurrentSpan({ "sandbox.instance": id })
    return yield* Effect.suspend(() => {
      const creation = creations.get(id)
      if (creation !== undefined) {
        return Effect.andThen(replay(request, creation.request), Fiber.join(creation.fiber))
      }
      const entry = instances.get(id)
      if (entry !== undefined) {
        return Effect.as(replay(request, entry.instance), entry.instance)
      }
      return Effect.flatMap(
        Effect.forkIn(start(request), scope),
        (fiber) => {
          creations.set(id, { request, fiber })
          fiber.addObserver(() => creations.delete(id))
          return Fiber.join(fiber)
        }
      )
    })
  })

  const bind = Effect.fn("SandboxRuntime.bind")(function*(
    instanceId: string,
    resourceUid: string
  ): Effect.fn.Return<void, BoundaryError> {
    const creation = creations.get(instanceId)
    if (creation !== undefined) {
      yield* Fiber.await(creation.fiber)
    }
    const entry = yield* find(instanceId)
    const claim = entry.instance.claim ?? createMessage(ClaimSchema)
    if (claim.resourceUid !== resourceUid) {
      instances.update(entry, { claim: { ...claim, resourceUid } })
      yield* instances.save(entry).pipe(Effect.retry(recordPolicy), Effect.mapError(toBoundary))
    }
  })

  const stop = Effect.fn("SandboxRuntime.stop")(function*(
    instanceId: string,
    graceSeconds?: number
  ): Effect.fn.Return<Instance, BoundaryError> {
    const creation = creations.get(instanceId)
    if (creation !== undefined) {
      yield* Fiber.await(creation.fiber)
    }
    const entry = yield* find(instanceId)
    yield* carryThrough(halt(entry, graceSeconds))
    return entry.instance
  })

  const remove = Effect.fnUntraced(function*(
    entry: Entry,
    graceSeconds: number | undefined
  ): Effect.fn.Return<void, BoundaryError> {
    entry.isDeleting = true
    yield* halt(entry, graceSeconds)
    yield* Effect.suspend(() =>
      instances.get(entry.id) === entry
        ? sandboxes.forget(entry.id).pipe(
          Effect.mapError((error) => error.boundary),
          Effect.andThen(Effect.sync(() => instances.forget(entry)))
        )
        : Effect.void
    ).pipe(entry.record.withPermits(1))
  })

  const deleteInstance = Effect.fn("SandboxRuntime.delete")(function*(
    instanceId: string,
    graceSeconds?: number
  ): Effect.fn.Return<void, BoundaryError> {
    const creation = creations.get(instanceId)
    if (creation !== undefined) {
      yield* Fiber.interrupt(creation.fiber)
      const entry = instances.get(instanceId)
      return entry === undefined ? undefined : yield* carryThrough(remove(entry, graceSeconds))
    }
    yield* carryThrough(remove(yield* find(instanceId), graceSeconds))
  })

  // --- What containerd says ---------------------------------------------------------------------------------------

  const exitOf = (process: Process | undefined, nowMillis: number): ProgramExit | undefined =>
    process === undefined
      ? { exitCode: undefined, atMillis: nowMillis }
      : process.status === "stopped"
      ? { exitCode: process.exitCode, atMillis: process.exitedAtMillis }
      : undefined

  /** After a gap in the events: ends that nobody told. */
  const reconcile = Effect.gen(function*() {
    const processes = new Map((yield* tasks.list).map((process) => [process.containerId, process]))
    const now = yield* Clock.currentTimeMillis
    for (const entry of instances.all()) {
      const exit = exitOf(processes.get(entry.id), now)
      const { state } = entry.instance
      if (exit !== undefined && (state === InstanceState.RUNNING || state === InstanceState.STOPPING)) {
        yield* Deferred.succeed(entry.exit, exit)
      }
    }
  })

  /** Takes up one container that an earlier life of this agent made. */
  const takeUp = Effect.fnUntraced(function*(
    found: { readonly instance: Instance; readonly stopSignal: number },
    process: Process | undefined,
    hasSnapshot: boolean
  ) {
    const { instance, stopSignal } = found
    const ports = instance.spec?.exposedPorts ?? []
    if (instance.state === InstanceState.EXITED && process === undefined && !hasSnapshot) {
      const entry = instances.add(instance, stopSignal)
      yield* Deferred.succeed(entry.ended, undefined)
      return
    }
    yield* slots.restore(instance.instanceId, ports)
    const wasStarted = process !== undefined && process.status !== "created" && process.status !== "unknown"
    if (instance.state === InstanceState.CREATING && !wasStarted) {
      // Nobody was told that it exists.
      yield* rollBack(instances.add(instance, stopSignal), true)
      return
    }
    const isStopping = instance.state === InstanceState.STOPPING
    const now = yield* Clock.currentTimeMillis
    const entry = instances.add({
      ...instance,
      state: isStopping ? InstanceState.STOPPING : InstanceState.RUNNING,
      startedAt: instance.startedAt ?? instance.createdAt ?? timestampFromMs(now)
    }, stopSignal)
    const exit = instance.state === InstanceState.EXITED ? recordedExit(instance, now) : exitOf(process, now)
    entry.isStopRequested = isStopping || instance.reason === "Stopped"
    entry.oomKills = instance.reason === "OOMKilled" ? 1 : 0
    yield* follow(entry)
    if (exit !== undefined) {
      yield* Deferred.succeed(entry.exit, exit)
    } else if (isStopping) {
      yield* Effect.forkIn(end(entry, undefined), scope)
    }
  })

  const recover = Effect.fn("SandboxRuntime.recover")(function*() {
    const found = (yield* containers.list(InstanceRecord.filterOf(settings))).filter(
      ({ labels }) => labels[anchorLabel] === undefined
    )
    const processes = new Map((yield* tasks.list).map((process) => [process.containerId, process]))
    const keys = new Set((yield* snapshots.list()).map(({ name }) => name))
    yield* Effect.forEach(found, (container) =>
      InstanceRecord.read(container).pipe(
        Effect.flatMap((record) => takeUp(record, processes.get(container.id), keys.has(container.snapshotKey))),
        // Left alone: what can't be understood must not be destroyed.
        Effect.catchTag("UnreadableRecord", (error) => Effect.logError(error.message))
      ), { concurrency: endConcurrency, discard: true })
    yield* catalog.refresh
    yield* Effect.logInfo("took up what was found", { instances: instances.all().length })
  })

  const recovered = yield* Deferred.make<void>()

  const onEvent = (event: ContainerdEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Subscribed":
        return (event.generation === 1 ? recover() : Effect.andThen(reconcile, catalog.changed)).pipe(
          Effect.tapError((error) => Effect.logWarning("containerd could not be asked", error.message)),
          Effect.retry(lookPolicy),
          Effect.orDie,
          Effect.andThen(Deferred.succeed(recovered, undefined)),
          Effect.asVoid
        )
      case "TaskExited": {
        const entry = event.execId === "" ? instances.get(event.containerId) : undefined
        return entry === undefined ? Effect.void : Effect.asVoid(
          Deferred.succeed(entry.exit, { exitCode: event.exitCode, atMillis: event.exitedAtMillis })
        )
      }
      case "TaskOutOfMemory":
        return Effect.sync(() => {
          const entry = instances.get(event.containerId)
          if (entry !== undefined) {
            entry.oomKills++
          }
        })
      case "ImageCreated":
      case "ImageUpdated":
      case "ImageDeleted":
        return catalog.changed
      default:
        return Effect.void
    }
  }

  yield* Stream.runForEach(events.all, onEvent).pipe(Effect.forkScoped)
  yield* Deferred.await(recovered)

  const drain = Effect.fn("SandboxRuntime.drain")(function*(what: "stop" | "leave") {
    yield* slots.drain
    yield* Effect.forEach([...creations.values()], ({ fiber }) => Fiber.await(fiber), { concurrency: "unbounded" })
      .pipe(
        Effect.timeoutOption(drainCreates)
      )
    if (what === "stop") {
      yield* Effect.forEach(
        instances.all(),
        (entry) =>
          halt(entry, undefined).pipe(
            Effect.catch((error) => Effect.logError("a sandbox was left behind", error.message))
          ),
        { concurrency: "unbounded", discard: true }
      )
    }
  })

  return SandboxRuntime.of({
    create,
    bind,
    stop,
    delete: deleteInstance,
    list: Effect.sync(() => instances.all().map(({ instance }) => instance)),
    ended: (instanceId) => Effect.map(find(instanceId), (entry) => Deferred.await(entry.ended)),
    drain
  })
})

const millisPerSecond = 1000

/** The answer to a bind means that it is written. */
const recordPolicy = Schedule.exponential("50 millis").pipe(Schedule.upTo({ times: 4 }))

const recordedExit = (instance: Instance, nowMillis: number): ProgramExit => ({
  exitCode: instance.exitCode,
  atMillis: instance.finishedAt === undefined ? nowMillis : timestampMs(instance.finishedAt)
})
