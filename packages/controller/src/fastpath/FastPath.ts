/**
 * The operations of the Fast-Path API on sandboxes.
 *
 * - fast: the agent starts the program, the caller has its answer, the resource is written right behind it.
 * - strong: the resource comes first, with the assignment; the answer comes after the agent's and the status.
 *
 * From the answer on a sandbox exists for every reader. Changes of one name follow each other; a delete that meets a
 * create under way wins.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import {
  AlreadyExists,
  type BoundaryError,
  Cancelled,
  FailedPrecondition,
  Internal,
  NotFound,
  Unavailable
} from "@fast-sandbox/core/Errors"
import * as Instant from "@fast-sandbox/core/Instant"
import * as LabelSelector from "@fast-sandbox/core/LabelSelector"
import { assignmentAnnotation, defaultNamespace, forceDeleteAnnotation } from "@fast-sandbox/core/Names"
import { key as keyOf, type Phase, type Sandbox } from "@fast-sandbox/core/Sandbox"
import type { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import * as SandboxValidation from "@fast-sandbox/core/SandboxValidation"
import { Traffic } from "@fast-sandbox/core/Traffic"
import type { LogsResponse } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { CreateRequest, LogsRequest, UpdateRequest } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as Instruments from "@fast-sandbox/telemetry/Instruments"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { Agents } from "../agents/Agents.ts"
import { toBoundary } from "../KubeFailure.ts"
import { Demand } from "../pool/Demand.ts"
import { Registry } from "../registry/Registry.ts"
import * as Audit from "./Audit.ts"
import { Directory, type Entry } from "./Directory.ts"
import * as FirstStatus from "./FirstStatus.ts"
import { isUncertain, Placement, timed } from "./Placement.ts"
import { SandboxLocks } from "./SandboxLocks.ts"
import * as SandboxRequest from "./SandboxRequest.ts"
import { maxBacklog, WriteBehind } from "./WriteBehind.ts"

/** A change that a watch tells. `Synced`: all that existed at its start has been told. */
export type SandboxEvent =
  | { readonly _tag: "Added" | "Modified" | "Deleted"; readonly sandbox: Sandbox }
  | { readonly _tag: "Synced" }

/** What a list or a watch is about. */
export interface Selection {
  /** Empty: `default`; `*`: all. */
  readonly namespace: string
  /** As `kubectl -l` has it. */
  readonly labelSelector: string
  /** Empty: all. */
  readonly name?: string | undefined
}

/** The operations of the Fast-Path API on sandboxes. */
export class FastPath extends Context.Service<FastPath, {
  create(request: CreateRequest): Effect.Effect<Sandbox, BoundaryError>
  /** Answers when the deletion is certain to finish. */
  delete(namespace: string, name: string): Effect.Effect<void, BoundaryError>
  /** Kills the program at once, and does not wait for the proof of its end where its agent does not answer. */
  forceDelete(namespace: string, name: string): Effect.Effect<void, BoundaryError>
  update(request: UpdateRequest): Effect.Effect<Sandbox, BoundaryError>
  /** Asks for a new instance. */
  reset(namespace: string, name: string): Effect.Effect<Sandbox, BoundaryError>
  get(namespace: string, name: string): Effect.Effect<Sandbox, BoundaryError>
  list(selection: Selection): Effect.Effect<ReadonlyArray<Sandbox>, BoundaryError>
  /** Begins with every sandbox that exists and `Synced`. */
  watch(selection: Selection): Stream.Stream<SandboxEvent, BoundaryError>
  logs(request: LogsRequest): Stream.Stream<LogsResponse, BoundaryError>
}>()("@fast-sandbox/controller/fastpath/FastPath") {
  static get layer(): Layer.Layer<
    FastPath,
    never,
    | KubeClient
    | Agents
    | Registry
    | Demand
    | Directory
    | EventRecorder
    | Placement
    | WriteBehind
    | SandboxLocks
    | Traffic
  > {
    return Layer.effect(FastPath, make)
  }
}

/** The longest wait for an agent that has to pull the image first. */
const fastLimit = Duration.minutes(5)

/** Well below the time after which the SandboxController takes a resource over: see `Assignment.creatorGraceMillis`. */
const strongLimit = Duration.millis(Assignment.creatorGraceMillis - 3_000)

/** How long a create waits for the end of the sandbox that had its name: usual grace periods, and some more. */
const predecessorLimit = Duration.seconds(30)

/** How long a repeated strong create waits until it is known what became of the first one: somewhat after it is taken over. */
const outcomeLimit = Duration.millis(Assignment.creatorGraceMillis + 3_000)

/** How long a forced delete waits for the agent to kill the program, before it goes on without the proof. */
const killLimit = Duration.seconds(5)

/** Phases of a sandbox whose program has not been started yet. */
const unstarted: ReadonlySet<Phase | undefined> = new Set<Phase | undefined>([
  undefined,
  "Pending",
  "Scheduled",
  "Starting"
])

/** How often it looks; a look costs two reads of memory. */
const predecessorInterval = Duration.millis(10)

const creates = Instruments.counter("fsb_creates_total", "Sandbox creates, by mode and outcome")

const namespaceOf = (namespace: string): string => namespace === "" ? defaultNamespace : namespace

const kubeFailure = toBoundary("sandbox")

const notFound = (namespace: string, name: string) => new NotFound({ kind: "sandbox", name: keyOf(namespace, name) })

const nameTaken = (namespace: string, name: string) =>
  new AlreadyExists({
    kind: "sandbox",
    name: keyOf(namespace, name),
    hint: "it was created with another spec or by somebody else; choose another name, or delete it first"
  })

const isDeleting = ({ sandbox: { metadata } }: Entry): boolean => metadata.deletionTimestamp !== undefined

const count = (mode: string, outcome: string) => Metric.update(Metric.withAttributes(creates, { mode, outcome }), 1)

const selected = (selection: Selection) =>
  Effect.gen(function*() {
    const namespace = namespaceOf(selection.namespace)
    const selector = yield* Effect.fromResult(LabelSelector.parse(selection.labelSelector))
    const name = selection.name ?? ""
    return {
      namespace,
      accepts: ({ metadata }: Sandbox): boolean =>
        (name === "" || metadata.name === name) && LabelSelector.matches(selector, metadata.labels),
      acceptsKey: (key: string): boolean =>
        (namespace === "*" || key.startsWith(`${namespace}/`)) && (name === "" || key.endsWith(`/${name}`))
    }
  })

/** Makes the operations. */
export const make: Effect.Effect<
  FastPath["Service"],
  never,
  KubeClient | Agents | Registry | Demand | Directory | EventRecorder | Placement | WriteBehind | SandboxLocks | Traffic
> = Effect.gen(function*() {
  const kube = yield* KubeClient
  const agents = yield* Agents
  const directory = yield* Directory
  const demand = yield* Demand
  const placement = yield* Placement
  const recorder = yield* EventRecorder
  const registry = yield* Registry
  const writeBehind = yield* WriteBehind
  const locks = yield* SandboxLocks
  const traffic = yield* Traffic

  /** Creates under way, and how a delete tells them to give up. */
  const underWay = new Map<string, Set<Fiber.Fiber<Sandbox, BoundaryError>>>()

  const find = Effect.fnUntraced(function*(namespace: string, name: string) {
    yield* Effect.fromResult(SandboxValidation.validateRef(namespace, name))
    const known = yield* directory.get(namespace, name)
    if (Option.isSome(known)) {
      return known.value
    }
    // The cache may be late; who is told that something does not exist is told so by the API itself.
    const sandbox = yield* kube.get(Kinds.Sandbox, { namespace, name }).pipe(
      Effect.mapError((error) => error.reason._tag === "NotFound" ? notFound(namespace, name) : kubeFailure(error))
    )
    return { sandbox, unwritten: Option.none() } satisfies Entry
  })

  // -------------------------------------------------------------------------------------------------------------------
  // create

  /** The pool, from the API itself when the cache does not have it. */
  const poolOf = (namespace: string, name: string): Effect.Effect<SandboxPool, BoundaryError> =>
    Effect.flatMap(
      directory.pool(namespace, name),
      Option.match({
        onSome: Effect.succeed,
        onNone: () =>
          kube.get(Kinds.SandboxPool, { namespace, name }).pipe(
            Effect.mapError((error) =>
              error.reason._tag === "NotFound"
                ? new NotFound({
                  kind: "pool",
                  name: keyOf(namespace, name),
                  hint: "create it, or name one of the same namespace"
                })
                : toBoundary("pool")(error)
            )
          )
      })
    )

  /**
   * Waits until the name is free of a sandbox that is being deleted and of its instance, so that no name ever has two;
   * gives what lives under the name, if something does.
   */
  const predecessor = Effect.fnUntraced(function*({ metadata: { name, namespace } }: SandboxRequest.Wanted) {
    const look = Effect.gen(function*() {
      const entry = yield* directory.get(namespace, name)
      const holder = yield* registry.holder(namespace, name)
      return { entry, isFree: Option.isNone(entry) && Option.isNone(holder) }
    })
    const isSettled = ({ entry, isFree }: Effect.Success<typeof look>) =>
      isFree || (Option.isSome(entry) && !isDeleting(entry.value))
    const first = yield* look
    if (isSettled(first)) {
      return first.entry
    }
    const last = yield* look.pipe(
      Effect.repeat({ schedule: Schedule.spaced(predecessorInterval), until: isSettled }),
      Effect.timeoutOrElse({
        duration: predecessorLimit,
        orElse: () =>
          Effect.fail(
            new FailedPrecondition({
              reason: "BeingDeleted",
              problem: `the sandbox that had the name ${keyOf(namespace, name)} is still being deleted; try again later`
            })
          )
      })
    )
    return last.entry
  })

  /**
   * What became of a strong create that is asked for again. The resource alone does not tell: its first create may have
   * ended without knowing whether the program was started, which is then left to the SandboxController.
   */
  const outcome = Effect.fnUntraced(function*({ metadata: { name, namespace } }: SandboxRequest.Wanted) {
    const key = keyOf(namespace, name)
    const found = yield* directory.get(namespace, name).pipe(
      Effect.repeat({
        schedule: Schedule.spaced(predecessorInterval),
        until: (entry) => Option.isNone(entry) || !unstarted.has(entry.value.sandbox.status?.phase)
      }),
      Effect.timeoutOrElse({
        duration: outcomeLimit,
        orElse: () =>
          Effect.fail(
            new Unavailable({
              target: `sandbox ${key}`,
              problem: "it exists, but nobody knows yet whether its program was started; try again later"
            })
          )
      })
    )
    if (Option.isNone(found)) {
      return yield* new FailedPrecondition({
        reason: "NeverStarted",
        problem: `sandbox ${key} was removed before its program was started; create it with a new request`
      })
    }
    const { sandbox } = found.value
    if (sandbox.status?.phase === "Lost" && sandbox.status.startedAt === undefined) {
      return yield* new FailedPrecondition({
        reason: "NeverStarted",
        problem: `sandbox ${key} lost its agent before its program was known to run; reset or delete it`
      })
    }
    return sandbox
  })

  const fast = Effect.fnUntraced(function*(wanted: SandboxRequest.Wanted, pool: SandboxPool) {
    const depth = yield* directory.backlog
    if (depth >= maxBacklog) {
      return yield* new Unavailable({
        target: "the Kubernetes API",
        problem: `${depth} sandboxes wait for their resource to be written; try again later`
      })
    }
    const { assignment, instance, manifest } = yield* placement.start(wanted, pool, {
      limit: fastLimit,
      prepare: () => Effect.succeed("")
    })
    const { name, namespace } = manifest.metadata
    const holder = yield* directory.get(namespace, name)
    if (Option.exists(holder, ({ sandbox }) => Assignment.claimUid(sandbox) !== Assignment.claimUid(manifest))) {
      // A resource of this name was made elsewhere while the agent worked: nobody was told of this instance yet.
      yield* placement.withdraw(assignment)
      return yield* nameTaken(namespace, name)
    }
    const since = yield* Clock.currentTimeMillis
    const unwritten = { manifest, assignment, since, acknowledged: true }
    yield* directory.admit(unwritten)
    yield* placement.settled(assignment.instanceId)
    yield* writeBehind.enqueue(unwritten)
    return FirstStatus.started(manifest, assignment, instance)
  })

  /** The sandbox as the agent's view shows it now. */
  const shown = Effect.fnUntraced(function*(sandbox: Sandbox, { podUid }: Assignment.Assignment) {
    const agent = yield* agents.get(podUid)
    return FirstStatus.show(sandbox, agent, yield* Clock.currentTimeMillis)
  })

  /** Removes a resource whose sandbox never was; nothing holds its finalizer back. */
  const remove = ({ metadata: { name = "", namespace = "", uid = "" } }: Sandbox) => {
    const ref = { name, namespace }
    return kube.delete(Kinds.Sandbox, ref, { preconditions: { uid } }).pipe(
      Effect.andThen(kube.patch(Kinds.Sandbox, ref, { type: "merge", body: { metadata: { uid, finalizers: null } } })),
      Effect.catchTag("KubeError", (error) =>
        error.reason._tag === "NotFound"
          ? Effect.void
          : Effect.logWarning("the SandboxController has to remove a resource whose create failed", error)),
      Effect.asVoid
    )
  }

  const strong = Effect.fnUntraced(function*(wanted: SandboxRequest.Wanted, pool: SandboxPool) {
    let resource: Sandbox | undefined
    const write = (manifest: SandboxRequest.Wanted): Effect.Effect<Sandbox, KubeError> => {
      const { name, namespace } = manifest.metadata
      return resource === undefined
        ? kube.create(Kinds.Sandbox, manifest)
        : kube.patch(Kinds.Sandbox, { name, namespace }, {
          type: "merge",
          body: {
            metadata: {
              resourceVersion: resource.metadata.resourceVersion,
              annotations: { [assignmentAnnotation]: manifest.metadata.annotations[assignmentAnnotation] }
            }
          }
        })
    }
    const placed = yield* placement.start(wanted, pool, {
      limit: strongLimit,
      prepare: (manifest) =>
        write(manifest).pipe(
          Effect.mapError(kubeFailure),
          Effect.map((written) => {
            resource = written
            return written.metadata.uid ?? ""
          }),
          timed("prepare")
        )
    }).pipe(
      Effect.tapError((error) => {
        if (resource === undefined) {
          return Effect.void
        }
        // What may have happened although it failed is left to the SandboxController, which looks and decides; whoever
        // asks again has to find it, though the cache may be late.
        return isUncertain(error) ? directory.wrote(resource) : remove(resource)
      })
    )
    if (resource === undefined) {
      return yield* new Internal({ problem: "an instance was started before its resource was written" })
    }
    yield* placement.settled(placed.assignment.instanceId)
    const sandbox = yield* shown(resource, placed.assignment)
    const reported = (yield* FirstStatus.write({ kube, recorder }, resource, sandbox)) ?? sandbox
    yield* directory.wrote(reported)
    return reported
  })

  /** Runs a create that a delete of the same name ends. */
  const abandonable = <R>(key: string, self: Effect.Effect<Sandbox, BoundaryError, R>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(Effect.forkChild(self, { startImmediately: true }), (fiber) => {
        const others = underWay.get(key) ?? new Set()
        underWay.set(key, others.add(fiber))
        fiber.addObserver(() => {
          others.delete(fiber)
          if (others.size === 0) {
            underWay.delete(key)
          }
        })
        return restore(Fiber.await(fiber)).pipe(
          Effect.onInterrupt(() => Fiber.interrupt(fiber)),
          Effect.flatMap((exit) =>
            Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
              ? new Cancelled({ operation: `the create of ${key}, which was deleted meanwhile` })
              : exit
          )
        )
      })
    )

  const create = Effect.fnUntraced(function*(request: CreateRequest) {
    const wanted = yield* SandboxRequest.decode(request)
    const { name, namespace } = wanted.metadata
    const key = keyOf(namespace, name)
    const mode = wanted.spec.consistencyMode ?? "fast"
    yield* Effect.annotateCurrentSpan({ "sandbox.key": key, "sandbox.mode": mode })
    const body = Effect.gen(function*() {
      const existing = yield* Effect.interruptible(predecessor(wanted))
      if (Option.isSome(existing)) {
        if (SandboxRequest.isReplay(existing.value.sandbox, wanted)) {
          const sandbox = mode === "strong"
            ? yield* Effect.interruptible(outcome(wanted))
            : existing.value.sandbox
          yield* count(mode, "replayed")
          return sandbox
        }
        return yield* nameTaken(namespace, name)
      }
      yield* SandboxRequest.checkExpiry(wanted)
      const pool = yield* Effect.interruptible(poolOf(namespace, wanted.spec.poolRef))
      const sandbox = yield* mode === "strong" ? strong(wanted, pool) : fast(wanted, pool)
      yield* count(mode, "created")
      return sandbox
    })
    return yield* abandonable(key, locks.withKey(key)(Effect.uninterruptible(body))).pipe(
      traffic.during,
      Effect.provideService(KubeClient, kube),
      Effect.tapError((error) => count(mode, error._tag)),
      // Nothing else of a refused create is left for the pool to see.
      Effect.tapError((error) =>
        error._tag === "ResourceExhausted" ? demand.raise(keyOf(namespace, wanted.spec.poolRef)) : Effect.void
      ),
      Audit.mutation("create", key, request.requestId)
    )
  })

  // -------------------------------------------------------------------------------------------------------------------
  // changes

  /** The resource of a sandbox, written now if it is not yet, for a caller that holds its lock. */
  const resourceOf = Effect.fnUntraced(function*({ sandbox, unwritten }: Entry) {
    if (Option.isNone(unwritten)) {
      return sandbox
    }
    const written = yield* writeBehind.write(unwritten.value).pipe(
      Effect.catchTags({
        KubeError: (error) => Effect.fail(kubeFailure(error)),
        NameInDeletion: ({ name }) =>
          Effect.fail(
            new FailedPrecondition({
              reason: "BeingDeleted",
              problem: `an older sandbox ${name} is still being deleted`
            })
          )
      })
    )
    if (Option.isNone(written)) {
      return yield* notFound(sandbox.metadata.namespace ?? "", sandbox.metadata.name ?? "")
    }
    return written.value
  })

  const change = Effect.fnUntraced(
    function*(namespace: string, name: string, body: (sandbox: Sandbox) => { readonly [field: string]: unknown }) {
      const before = yield* resourceOf(yield* find(namespace, name))
      const after = yield* kube.patch(Kinds.Sandbox, { namespace, name }, { type: "merge", body: body(before) }).pipe(
        Effect.mapError(kubeFailure)
      )
      yield* directory.wrote(after)
      return after
    },
    (effect, namespace, name) => locks.withKey(keyOf(namespace, name))(effect)
  )

  /** Ends a sandbox that has no resource yet; whether that was possible without one. */
  const endUnwritten = Effect.fnUntraced(function*(
    namespace: string,
    name: string,
    { instanceId, podUid }: Assignment.Assignment
  ) {
    const isEnded = yield* agents.delete(podUid, instanceId).pipe(
      Effect.as(true),
      Effect.catchTags({ Unavailable: () => Effect.succeed(false), DeadlineExceeded: () => Effect.succeed(false) })
    )
    if (isEnded) {
      yield* directory.drop(namespace, name, instanceId)
    }
    return isEnded
  })

  /** Kills the program now, as far as its agent answers, and says that nobody has to wait for the proof. */
  const force = Effect.fnUntraced(function*(sandbox: Sandbox) {
    const { name = "", namespace = "", uid } = sandbox.metadata
    const assignment = Assignment.of(sandbox)
    if (Option.isSome(assignment)) {
      yield* agents.stop(assignment.value.podUid, assignment.value.instanceId, 0).pipe(
        Effect.timeoutOption(killLimit),
        Effect.catchCause((cause) => Effect.logDebug("a forced delete goes on without its agent", cause))
      )
    }
    yield* kube.patch(Kinds.Sandbox, { namespace, name }, {
      type: "merge",
      body: { metadata: { uid, annotations: { [forceDeleteAnnotation]: "true" } } }
    }).pipe(
      Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.void),
      Effect.mapError(kubeFailure)
    )
  })

  const deleteNow = Effect.fnUntraced(function*(
    namespace: string,
    name: string,
    how: { readonly wasUnderWay: boolean; readonly prepare: (sandbox: Sandbox) => Effect.Effect<void, BoundaryError> }
  ) {
    const found = yield* find(namespace, name).pipe(
      Effect.asSome,
      Effect.catchTag(
        "NotFound",
        (error) => how.wasUnderWay ? Effect.succeed(Option.none<Entry>()) : Effect.fail(error)
      )
    )
    if (Option.isNone(found)) {
      return
    }
    if (
      Option.isSome(found.value.unwritten) &&
      (yield* endUnwritten(namespace, name, found.value.unwritten.value.assignment))
    ) {
      return
    }
    const resource = yield* resourceOf(found.value)
    yield* how.prepare(resource)
    const { uid } = resource.metadata
    yield* kube.delete(Kinds.Sandbox, { namespace, name }, { preconditions: { uid } }).pipe(
      Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.void),
      Effect.mapError(kubeFailure)
    )
    yield* directory.deleted(resource)
  })

  const deleteSandbox = Effect.fn("FastPath.delete")(function*(
    namespace: string,
    name: string,
    /** Comes before the deletion of a resource. */
    prepare: (sandbox: Sandbox) => Effect.Effect<void, BoundaryError>
  ) {
    const key = keyOf(namespace, name)
    const creating = [...underWay.get(key) ?? []]
    for (const fiber of creating) {
      fiber.interruptUnsafe()
    }
    const how = { wasUnderWay: creating.length > 0, prepare }
    yield* locks.withKey(key)(Effect.uninterruptible(deleteNow(namespace, name, how)))
  })

  const updateBody = Effect.fnUntraced(function*({ labels, update }: UpdateRequest) {
    const changed = Object.fromEntries(Object.entries(labels).map(([key, value]) => [key, value === "" ? null : value]))
    const metadata = Object.keys(labels).length === 0 ? {} : { metadata: { labels: changed } }
    yield* Effect.fromResult(SandboxValidation.validateLabels(labels))
    switch (update.case) {
      case "expireTimeSeconds":
        // A lifetime that counts from the creation would end the sandbox earlier than what is asked for now.
        return {
          ...metadata,
          spec: {
            expireTime: update.value === 0n ? null : yield* SandboxRequest.expireTimeOf(update.value),
            ttlSeconds: null
          }
        }
      case "resetRevision":
        yield* Effect.fromResult(SandboxValidation.validateInstant("spec.resetRevision", update.value))
        return { ...metadata, spec: { resetRevision: update.value } }
      case "failurePolicy":
        return { ...metadata, spec: { failurePolicy: yield* SandboxRequest.failurePolicyOf(update.value) } }
      case "recoveryTimeoutSeconds":
        yield* Effect.fromResult(SandboxValidation.validateRecoveryTimeout(update.value))
        return { ...metadata, spec: { recoveryTimeoutSeconds: update.value } }
      case undefined:
        return metadata
    }
  })

  // -------------------------------------------------------------------------------------------------------------------
  // reads

  const list = Effect.fn("FastPath.list")(function*(selection: Selection) {
    const { accepts, namespace } = yield* selected(selection)
    const entries = yield* directory.list(namespace)
    return entries.map(({ sandbox }) => sandbox).filter(accepts)
  })

  const watch = (selection: Selection): Stream.Stream<SandboxEvent, BoundaryError> =>
    Stream.unwrap(Effect.gen(function*() {
      const { accepts, acceptsKey, namespace } = yield* selected(selection)
      // Subscribed to before the list is made: what changes in between is told after it.
      const hints = yield* directory.hints
      /** What the watcher was told last, by key. */
      const told = new Map<string, { readonly text: string; readonly sandbox: Sandbox }>()
      const tell = (key: string, now: Sandbox | undefined): ReadonlyArray<SandboxEvent> => {
        const before = told.get(key)
        if (now === undefined) {
          told.delete(key)
          return before === undefined ? [] : [{ _tag: "Deleted", sandbox: before.sandbox }]
        }
        const text = JSON.stringify(now)
        if (before?.text === text) {
          return []
        }
        told.set(key, { text, sandbox: now })
        const isSame = before !== undefined && Assignment.claimUid(before.sandbox) === Assignment.claimUid(now)
        return before === undefined
          ? [{ _tag: "Added", sandbox: now }]
          : isSame
          ? [{ _tag: "Modified", sandbox: now }]
          : [{ _tag: "Deleted", sandbox: before.sandbox }, { _tag: "Added", sandbox: now }]
      }
      const look = (key: string) => {
        const [space = "", name = ""] = key.split("/")
        return Effect.map(
          directory.get(space, name),
          (entry) =>
            tell(key, Option.getOrUndefined(Option.filter(Option.map(entry, ({ sandbox }) => sandbox), accepts)))
        )
      }
      const first = Effect.map(directory.list(namespace), (entries): ReadonlyArray<SandboxEvent> => [
        ...entries.map(({ sandbox }) => sandbox).filter(accepts).flatMap((sandbox) =>
          tell(keyOf(sandbox.metadata.namespace ?? "", sandbox.metadata.name ?? ""), sandbox)
        ),
        { _tag: "Synced" }
      ])
      return Stream.concat(
        Stream.fromEffect(first),
        Stream.mapEffect(Stream.filter(hints, acceptsKey), look)
      ).pipe(Stream.flattenIterable)
    }))

  const logs = (request: LogsRequest): Stream.Stream<LogsResponse, BoundaryError> =>
    Stream.unwrap(Effect.gen(function*() {
      const namespace = namespaceOf(request.namespace)
      const { sandbox } = yield* find(namespace, request.sandboxName)
      const assignment = Assignment.of(sandbox)
      if (Option.isNone(assignment)) {
        return yield* new FailedPrecondition({
          reason: "NotStarted",
          problem: `sandbox ${keyOf(namespace, request.sandboxName)} has not been started yet`
        })
      }
      const { instanceId, podUid } = assignment.value
      const { follow, since, stream, tailLines, until } = request
      return agents.logs(podUid, {
        instanceId,
        follow,
        ...(tailLines === undefined ? {} : { tailLines }),
        ...(since === undefined ? {} : { since }),
        ...(until === undefined ? {} : { until }),
        ...(stream === undefined ? {} : { stream })
      })
    }))

  return FastPath.of({
    create,
    delete: (text, name) => {
      const namespace = namespaceOf(text)
      return deleteSandbox(namespace, name, () => Effect.void).pipe(Audit.mutation("delete", keyOf(namespace, name)))
    },
    forceDelete: (text, name) => {
      const namespace = namespaceOf(text)
      return deleteSandbox(namespace, name, force).pipe(Audit.mutation("force delete", keyOf(namespace, name)))
    },
    update: Effect.fn("FastPath.update")(function*(request) {
      const namespace = namespaceOf(request.namespace)
      const body = yield* updateBody(request)
      return yield* change(namespace, request.sandboxName, () => body).pipe(
        Audit.mutation("update", keyOf(namespace, request.sandboxName))
      )
    }),
    reset: Effect.fn("FastPath.reset")(function*(namespaceText, name) {
      const namespace = namespaceOf(namespaceText)
      const now = yield* Clock.currentTimeMillis
      return yield* change(namespace, name, ({ spec }) => ({
        spec: { resetRevision: revisionAfter(spec.resetRevision, now) }
      })).pipe(Audit.mutation("reset", keyOf(namespace, name)))
    }),
    get: Effect.fn("FastPath.get")(function*(namespace, name) {
      return (yield* find(namespaceOf(namespace), name)).sandbox
    }),
    list,
    watch,
    logs
  })
})

/** A revision that differs from the last one, also when two resets meet in one millisecond. */
const revisionAfter = (last: string | undefined, now: number): string => {
  const revision = Instant.format(now)
  return revision === last ? Instant.format(now + 1) : revision
}
