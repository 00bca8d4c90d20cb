/**
 * Makes Sandboxes come true: looks at a resource and at what the agents say, lets `core/Decision` name the next step, and
 * carries it out, until there is nothing left to do. Whatever wakes it (the resource, an agent, a pool, the clock) it
 * looks at everything again, so a lost or doubled wake-up changes nothing.
 *
 * It runs on the elected leader only. Instances that no resource of theirs exists for any more are deleted here as well;
 * those that were never bound to a resource belong to the Fast-Path server, which adopts them.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Conditions from "@fast-sandbox/core/Conditions"
import * as Decision from "@fast-sandbox/core/Decision"
import { type BoundaryError, ResourceExhausted } from "@fast-sandbox/core/Errors"
import * as Identifier from "@fast-sandbox/core/Identifier"
import { finalizer } from "@fast-sandbox/core/Names"
import { RecentSet } from "@fast-sandbox/core/RecentSet"
import * as Recovery from "@fast-sandbox/core/Recovery"
import type { Sandbox, SandboxStatus } from "@fast-sandbox/core/Sandbox"
import { type Instance, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import { refOf } from "@fast-sandbox/kube/KubeObject"
import * as WorkQueue from "@fast-sandbox/kube/WorkQueue"
import * as Instruments from "@fast-sandbox/telemetry/Instruments"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { Agents, type AgentView } from "../agents/Agents.ts"
import { agentOf, Caches, keyOf, poolKeyOf } from "../Caches.ts"
import * as InstanceSpec from "../InstanceSpec.ts"
import { Registry } from "../registry/Registry.ts"
import { announce } from "./Announcement.ts"
import { Memory } from "./Memory.ts"
import * as Observation from "./Observation.ts"

/** Names the controller in the managed fields of what it writes. */
export const fieldManager = "fast-sandbox-controller"

/** Sandboxes that are looked at at once. A look does not wait for agents, just for the Kubernetes API. */
const workers = 16

/** Calls to agents under way at once. Most of them wait for programs to end. */
const maxOperations = 512

/** Steps taken for one sandbox before others get their turn; the longest chain, finalizer to start, has four. */
const maxSteps = 8

/** Agents that are remembered to be gone; one that is forgotten costs a question to the API. */
const maxGoneAgents = 10_000

/** How long a sandbox that found no agent waits when nothing wakes it: a net under lost wake-ups. */
const unplacedRetry = Duration.seconds(30)

/** Wake-ups of waiting sandboxes within this time become one: agents of a growing pool arrive in flocks. */
const wakePause = Duration.millis(50)

/** Until orphans are looked for again: what the API said of their resource may have been overtaken by the cache. */
const orphanPause = Duration.seconds(2)

/** How long the cache gets to show what a conflict says is there. */
const conflictPause = Duration.millis(500)

/** Pauses between calls to an agent that did not answer: 100 ms doubling to 10 s, jittered, until the decision changes. */
const agentRetry = Schedule.min([Schedule.exponential("100 millis", 2), Schedule.spaced("10 seconds")]).pipe(
  Schedule.jittered
)

/** Pause after a call that an agent refused for good: what it refuses may be allowed by somebody's repair. */
const refusedPause = Duration.seconds(10)

const actions = Instruments.counter(
  "fsb_sandbox_actions_total",
  "Steps that were decided for sandboxes, by kind"
)

const recoveries = Instruments.counter(
  "fsb_sandbox_recoveries_total",
  "Turns of sandboxes' recoveries: attempts that were scheduled, recoveries that held, those that were given up"
)

/** What a step leads to: the sandbox as it is then, or the end of this look and when to look again. */
type Step =
  | { readonly _tag: "Next"; readonly sandbox: Sandbox }
  | { readonly _tag: "Done"; readonly outcome: WorkQueue.Outcome }

const done = (outcome: WorkQueue.Outcome): Step => ({ _tag: "Done", outcome })

/** A write that came too late means that the cache is about to show something else. */
const next = (after: Option.Option<Sandbox>): Step =>
  Option.match(after, {
    onNone: () => done({ requeueAfter: conflictPause }),
    onSome: (sandbox): Step => ({ _tag: "Next", sandbox })
  })

/** Errors after which the same call may succeed. For the others the agent has decided. */
const isTransient = (error: BoundaryError): boolean =>
  error._tag === "Unavailable" || error._tag === "DeadlineExceeded" || error._tag === "Cancelled" ||
  error._tag === "Internal" || error._tag === "NotFound"

const refusalOf = (error: BoundaryError, atMillis: number): Decision.StartRefusal =>
  error._tag === "ResourceExhausted"
    ? Decision.StartRefusal.NoRoom()
    : Decision.StartRefusal.Fatal({
      reason: error._tag === "FailedPrecondition" ? error.reason : Conditions.reasons.startFailed,
      message: error.message,
      atMillis
    })

const encoder = new TextEncoder()

const claimOf = (sandbox: Sandbox) => ({
  namespace: sandbox.metadata.namespace ?? "",
  sandboxName: sandbox.metadata.name ?? "",
  claimUid: Assignment.claimUid(sandbox),
  resourceUid: sandbox.metadata.uid ?? "",
  manifest: encoder.encode(JSON.stringify({ ...sandbox, status: undefined }))
})

/** The sandbox goes back to those that wait for a place. */
const poolGone = ({ spec }: Sandbox) =>
  new ResourceExhausted({ resource: "slots", problem: `pool ${spec.poolRef} was deleted`, retryAfterMillis: 0 })

const isNotFound = (error: KubeError): boolean => error.reason._tag === "NotFound"

/** The object as it is after the write; none when the write came too late, so that the sandbox has to be seen anew. */
const written = <R>(memory: Memory, before: Sandbox, write: Effect.Effect<Sandbox, KubeError, R>) =>
  write.pipe(
    Effect.map((object) => {
      memory.wrote(before, object)
      return Option.some(object)
    }),
    Effect.catchIf(
      ({ reason }) => reason._tag === "Conflict" || reason._tag === "NotFound",
      () => Effect.succeed(Option.none<Sandbox>())
    )
  )

const needsOperation = (action: Decision.Action): boolean =>
  action._tag === "StartInstance" || action._tag === "StopInstance" || action._tag === "DeleteInstances" ||
  action._tag === "BindInstance"

const startOf = (instanceId: string): string => `start ${instanceId}`

/** Whether the start under way shows already. Its answer is still to be heard: it alone says why a start failed. */
const isBeingStarted = (
  { operation }: Memory,
  { status }: Sandbox,
  instances: ReadonlyArray<Decision.ObservedInstance>
): boolean =>
  instances.some(({ instanceId, state }) =>
    state === "Creating" && instanceId === status?.sandboxID && operation === startOf(instanceId)
  )

/** Runs the controller until it is interrupted. */
export const run: Effect.Effect<never, never, KubeClient | Caches | Agents | Registry | EventRecorder> = Effect.gen(
  function*() {
    const kube = yield* KubeClient
    const agents = yield* Agents
    const registry = yield* Registry
    const recorder = yield* EventRecorder
    const scope = yield* Effect.scope

    const { pools, sandboxes } = yield* Caches
    const queue = yield* WorkQueue.make({ name: "sandboxes" })
    const operations = yield* FiberMap.make<string>()
    const permits = yield* Semaphore.make(maxOperations)
    const wakes = yield* Queue.sliding<void>(1)

    const memories = new Map<string, Memory>()
    /** Sandboxes that found no agent. */
    const unplaced = new Set<string>()
    /** Pods that the API itself said are gone; uids are never given again. */
    const goneAgents = new RecentSet<string>(maxGoneAgents)
    /** The instances of each agent when it was last looked at. */
    const seen = new Map<
      string,
      { readonly connection: AgentView["connection"]; readonly instances: AgentView["instances"] }
    >()

    const memoryOf = (key: string): Memory => {
      const memory = memories.get(key) ?? new Memory()
      memories.set(key, memory)
      return memory
    }

    // -------------------------------------------------------------------------------------------------------------------
    // calls to agents, beside the queue: one at a time for each sandbox

    const endOperation = Effect.fnUntraced(function*(key: string, memory: Memory) {
      if (memory.operation !== undefined) {
        memory.operation = undefined
        yield* FiberMap.remove(operations, key)
      }
    })

    /** Carries out a call in the background, unless it is under way already, and has the sandbox looked at afterwards. */
    const operate = Effect.fnUntraced(
      function*(key: string, memory: Memory, name: string, call: Effect.Effect<void, BoundaryError, KubeClient>) {
        if (memory.operation === name) {
          return
        }
        yield* endOperation(key, memory)
        memory.operation = name
        yield* call.pipe(
          permits.withPermit,
          Effect.tapError((error) => Effect.logDebug("an agent did not do what it was asked", error)),
          Effect.retry({ schedule: agentRetry, while: isTransient }),
          Effect.tapError((error) => Effect.logWarning("an agent refused", error)),
          Effect.onExit((exit) =>
            Effect.suspend(() => {
              if (Exit.hasInterrupts(exit) || memory.operation !== name) {
                return Effect.void
              }
              memory.operation = undefined
              return Exit.isSuccess(exit) ? queue.add(key) : queue.addAfter(key, refusedPause)
            })
          ),
          Effect.ignore,
          Effect.annotateLogs({ sandbox: key, operation: name }),
          FiberMap.run(operations, key)
        )
      }
    )

    const release = Effect.fnUntraced(function*(memory: Memory) {
      const { reservation } = memory
      memory.reservation = undefined
      if (reservation !== undefined) {
        yield* Scope.close(reservation.scope, Exit.void)
      }
    })

    /** The agent has what the slot was held for. */

    const confirm = Effect.fnUntraced(function*(memory: Memory) {
      if (memory.reservation !== undefined) {
        yield* registry.confirm(memory.reservation.reservation)
      }

      yield* release(memory)
    })

    const start = Effect.fnUntraced(function*(
      sandbox: Sandbox,
      memory: Memory,
      assignment: Assignment.Assignment
    ) {
      const { instanceId, podUid } = assignment
      memory.asksFor(assignment)
      const pool = yield* pools.get(refOf(poolKeyOf(sandbox)))
      const result = yield* Effect.result(Effect.gen(function*() {
        const spec = yield* InstanceSpec.make(
          sandbox,
          yield* Effect.fromOption(pool).pipe(Effect.mapError(() => poolGone(sandbox)))
        )
        return yield* agents.create(podUid, { instanceId, claim: claimOf(sandbox), spec })
      }))
      const now = yield* Clock.currentTimeMillis
      if (result._tag === "Success") {
        memory.answered(result.success, now)
        memory.refusedBy.clear()
        yield* confirm(memory)
        return
      }
      const { failure } = result
      if (isTransient(failure)) {
        const view = yield* agents.get(podUid)
        // An agent that is going away admits nothing more; that it did not admit this one either, it has to say.
        if (!Option.exists(view, ({ draining }) => draining)) {
          return yield* failure
        }
      }
      // A controller that was killed may have asked before, and its call may be on its way still: what was refused now
      // must not be admitted later.
      yield* agents.delete(podUid, instanceId)
      memory.refused(assignment, isTransient(failure) ? Decision.StartRefusal.NoRoom() : refusalOf(failure, now))
      yield* release(memory)
    })

    const stop = Effect.fnUntraced(function*(memory: Memory, { instanceId, podUid }: Assignment.Assignment) {
      const answer: Instance | undefined = yield* agents.stop(podUid, instanceId).pipe(
        Effect.catchTag("NotFound", () => Effect.succeed(undefined))
      )
      const now = yield* Clock.currentTimeMillis
      return answer === undefined ? memory.isGone(instanceId, now) : memory.answered(answer, now)
    })

    const deleteAll = (memory: Memory, targets: ReadonlyArray<Assignment.Assignment>) =>
      Effect.forEach(targets, ({ instanceId, podUid }) =>
        agents.delete(podUid, instanceId).pipe(
          Effect.andThen(Clock.currentTimeMillis),
          Effect.map((now) => memory.isGone(instanceId, now))
        ), { concurrency: "unbounded", discard: true })

    // -------------------------------------------------------------------------------------------------------------------
    // writes

    const setFinalizers = (memory: Memory, sandbox: Sandbox, finalizers: ReadonlyArray<string>) =>
      written(
        memory,
        sandbox,
        kube.patch(Kinds.Sandbox, refOf(keyOf(sandbox)), {
          type: "merge",
          body: { metadata: { resourceVersion: sandbox.metadata.resourceVersion, finalizers } }
        }, { fieldManager })
      )

    const report = Effect.fnUntraced(function*(memory: Memory, sandbox: Sandbox, status: SandboxStatus) {
      const after = yield* written(
        memory,
        sandbox,
        kube.updateStatus(Kinds.Sandbox, { ...sandbox, status }, { fieldManager })
      )
      if (Option.isSome(after)) {
        yield* announce(recorder, after.value, sandbox.status, status)
        const outcome = Recovery.turnOf(sandbox.status, status)
        if (outcome !== undefined) yield* Metric.update(Metric.withAttributes(recoveries, { outcome }), 1)
      }
      return after
    })

    // -------------------------------------------------------------------------------------------------------------------
    // steps

    /** Chooses an agent, holds its slot, and records both or why there is none. */
    const place = Effect.fnUntraced(function*(memory: Memory, sandbox: Sandbox, draft: SandboxStatus) {
      const { name = "", namespace = "" } = sandbox.metadata
      const instanceId = yield* Identifier.fresh
      const now = yield* Clock.currentTimeMillis
      yield* release(memory)
      const holder = yield* registry.holder(namespace, name)
      const reserved = yield* Effect.uninterruptible(Effect.gen(function*() {
        const held = yield* Scope.fork(scope)
        const result = yield* registry.reserve({
          instanceId,
          namespace,
          name,
          pool: sandbox.spec.poolRef,
          image: sandbox.spec.image,
          ports: sandbox.spec.exposedPorts ?? [],
          excluding: memory.refusedBy,
          replacing: Option.getOrUndefined(holder)
        }).pipe(Scope.provide(held), Effect.result)
        if (result._tag === "Success") {
          memory.reservation = { reservation: result.success, scope: held }
        } else {
          yield* Scope.close(held, Exit.void)
        }
        return result
      }))
      if (reserved._tag === "Success") {
        memory.refusals.clear()
        const { node, pod, uid } = reserved.success.agent
        const status = Decision.placed(sandbox, draft, { instanceId, pod, podUid: uid, node }, now)
        return yield* report(memory, sandbox, status)
      }
      const { failure } = reserved
      const status = Decision.unplaced(sandbox, draft, {
        reason: failure._tag === "NotFound" ? Conditions.reasons.poolNotFound : Conditions.reasons.noCapacity,
        message: failure.message
      }, now)
      unplaced.add(keyOf(sandbox))
      memory.refusedBy.clear()
      return Equal.equals(status, sandbox.status)
        ? Option.some(sandbox)
        : yield* report(memory, sandbox, status)
    })

    /** Asks the API itself, because a cache that is late must not cost a sandbox its life. */
    const confirmGone = Effect.fnUntraced(function*(
      { metadata: { namespace } }: Sandbox,
      { pod, podUid }: Assignment.Assignment
    ) {
      const found = yield* kube.get(Pod, { name: pod, namespace }).pipe(
        Effect.map(({ metadata }) => metadata.uid === podUid),
        Effect.catchIf(isNotFound, () => Effect.succeed(false))
      )
      if (!found) {
        goneAgents.add(podUid)
      }
      return !found
    })

    const untilExpiry = Effect.fnUntraced(function*(sandbox: Sandbox, atMost?: Duration.Duration) {
      const now = yield* Clock.currentTimeMillis
      const expiry = Option.map(Decision.expiryMillis(sandbox), (at) => at - now)
      const millis = Option.filter(expiry, (left) => left > 0)
      const cap = atMost === undefined ? [] : [Duration.toMillis(atMost)]
      const waits = [...Option.toArray(millis), ...cap]
      return waits.length === 0 ? undefined : { requeueAfter: Duration.millis(Math.min(...waits)) }
    })

    /** Instances of the sandbox on all agents, as far as they are known. */
    const observe = Effect.fnUntraced(function*(sandbox: Sandbox, memory: Memory, views: ReadonlyArray<AgentView>) {
      const now = yield* Clock.currentTimeMillis
      const assigned = Option.getOrUndefined(Assignment.of(sandbox))
      const key = keyOf(sandbox)
      return views.flatMap((view) => {
        // News of a start may be later than the answer that it failed.
        const shown = Observation.instancesOf(view, key).filter((instance) =>
          Observation.belongsTo(instance, sandbox) &&
          !(instance.state === InstanceState.CREATING && memory.refusals.has(instance.instanceId))
        ).map((instance) => memory.shown(instance, now))
        const answer = assigned?.podUid === view.uid && !view.instances.has(assigned.instanceId)
          ? memory.answerOf(assigned.instanceId, now)
          : undefined
        return [...shown, ...(answer === undefined ? [] : [answer])].map((instance) =>
          Observation.observe(view, instance)
        )
      })
    })

    const viewsOf = (memory: Memory, sandbox: Sandbox | undefined) =>
      Effect.forEach(
        new Set([...memory.homes, ...(sandbox === undefined ? [] : agentOf(sandbox))]),
        agents.get
      ).pipe(Effect.map((views) => views.filter(Option.isSome).map(({ value }) => value)))

    /** Deletes instances that were bound to a resource which the API itself says is not there any more. */
    const deleteOrphans = Effect.fnUntraced(function*(
      key: string,
      memory: Memory,
      sandbox: Sandbox | undefined,
      views: ReadonlyArray<AgentView>
    ) {
      const orphans = views.filter(({ connection }) => connection === "synced").flatMap((view) =>
        Observation.instancesOf(view, key).filter((instance) =>
          Observation.isOrphan(instance, sandbox?.metadata.uid) &&
          !memory.provenGone.has(instance.instanceId)
        ).map((instance) => ({ instance, target: { ...view, instanceId: instance.instanceId, podUid: view.uid } }))
      )
      if (orphans.length === 0) {
        return true
      }
      const uid = yield* kube.get(Kinds.Sandbox, refOf(key)).pipe(
        Effect.map(({ metadata }) => metadata.uid),
        Effect.catchIf(isNotFound, () => Effect.succeed(undefined))
      )
      const targets = orphans.filter(({ instance }) => Observation.isOrphan(instance, uid)).map(({ target }) => target)
      if (targets.length === 0) {
        // Only the cache is late: the resource of a create that was just answered.
        return false
      }
      yield* Effect.logInfo("deleting instances without a resource").pipe(
        Effect.annotateLogs({ sandbox: key, instances: targets.map(({ instanceId }) => instanceId).join(" ") })
      )
      yield* deleteAll(memory, targets).pipe(
        permits.withPermit,
        Effect.retry({ schedule: agentRetry, while: isTransient }),
        Effect.catch((error) => Effect.logWarning("an agent refused to delete an instance", error)),
        FiberMap.run(operations, `${key}#orphans`, { onlyIfMissing: true })
      )
      return false
    })

    /** Since when agents are awaited that may have an instance of a sandbox whose status was wiped. */
    const unheardSince = Effect.fnUntraced(function*(memory: Memory, { metadata, spec, status }: Sandbox) {
      if (status?.phase !== undefined || memory.isNew) {
        return undefined
      }
      const unheard = (yield* agents.list).filter(({ connection, namespace, pool }) =>
        connection === "connecting" && namespace === metadata.namespace && pool === spec.poolRef
      )
      return unheard.length === 0 ? undefined : Math.max(...unheard.map(({ since }) => since))
    })

    /** Carries out one step. Answers with the sandbox as it is then, or with when to look again. */
    const carryOut = (
      key: string,
      memory: Memory,
      sandbox: Sandbox,
      action: Decision.Action
    ): Effect.Effect<Step, KubeError, KubeClient> => {
      const operating = (name: string, call: Effect.Effect<void, BoundaryError, KubeClient>) =>
        operate(key, memory, name, call).pipe(Effect.andThen(untilExpiry(sandbox)), Effect.map(done))
      const { metadata } = sandbox
      return Decision.Action.$match(action, {
        AddFinalizer: () =>
          Effect.suspend(() => {
            memory.isNew = sandbox.status?.phase === undefined
            return Effect.map(setFinalizers(memory, sandbox, [...metadata.finalizers ?? [], finalizer]), next)
          }),
        RemoveFinalizer: () =>
          Effect.map(
            setFinalizers(memory, sandbox, metadata.finalizers?.filter((name) => name !== finalizer) ?? []),
            () => done(undefined)
          ),
        ReportStatus: ({ status }) => Effect.map(report(memory, sandbox, status), next),
        Place: ({ draft }) =>
          Effect.flatMap(place(memory, sandbox, draft), (after) =>
            unplaced.has(key)
              ? Effect.map(untilExpiry(sandbox, unplacedRetry), done)
              : Effect.succeed(next(after))),
        StartInstance: ({ assignment }) =>
          operating(startOf(assignment.instanceId), start(sandbox, memory, assignment)),
        BindInstance: ({ assignment }) =>
          operating(
            `bind ${assignment.instanceId}`,
            agents.bind(assignment.podUid, assignment.instanceId, metadata.uid ?? "")
          ),
        StopInstance: ({ assignment }) => operating(`stop ${assignment.instanceId}`, stop(memory, assignment)),
        DeleteInstances: ({ targets }) =>
          Effect.gen(function*() {
            // Who deletes on the word of a cache that is late deletes what somebody else has just started.
            const fresh = metadata.deletionTimestamp === undefined
              ? yield* kube.get(Kinds.Sandbox, refOf(key)).pipe(Effect.option)
              : Option.some(sandbox)
            if (!Option.exists(fresh, (fresh) => fresh.metadata.resourceVersion === metadata.resourceVersion)) {
              return next(Option.none())
            }
            const name = `delete ${targets.map(({ instanceId }) => instanceId).join(" ")}`
            return yield* operating(name, deleteAll(memory, targets))
          }),
        ConfirmAgentGone: ({ assignment }) =>
          Effect.map(
            confirmGone(sandbox, assignment),
            (isGone) => next(isGone ? Option.some(sandbox) : Option.none())
          ),
        WaitUntil: ({ millis }) =>
          Effect.map(
            Clock.currentTimeMillis,
            (now) => done({ requeueAfter: Duration.millis(Math.max(1, millis - now)) })
          ),
        Nothing: () => Effect.succeed(done(undefined))
      })
    }

    const reconcile = Effect.fn("SandboxController.reconcile")(function*(key: string) {
      const memory = memoryOf(key)
      const cached = yield* sandboxes.get(refOf(key))
      unplaced.delete(key)
      if (Option.isNone(cached)) {
        yield* endOperation(key, memory)
        yield* release(memory)
        const views = yield* viewsOf(memory, undefined)
        if (yield* deleteOrphans(key, memory, undefined, views)) {
          memories.delete(key)
          return
        }
        return { requeueAfter: orphanPause }
      }
      memory.recoveryDelaysMillis ??= yield* Recovery.drawDelays
      let sandbox = memory.newest(cached.value)
      for (let step = 0; step < maxSteps; step++) {
        const views = yield* viewsOf(memory, sandbox)
        const isClean = yield* deleteOrphans(key, memory, sandbox, views)
        const instances = yield* observe(sandbox, memory, views)
        const action = Decision.decide({
          sandbox,
          instances,
          presence: (podUid) => {
            const view = views.find(({ uid }) => uid === podUid)
            return view !== undefined
              ? Observation.presenceOf(view)
              : goneAgents.has(podUid)
              ? Decision.AgentPresence.Gone()
              : Decision.AgentPresence.Missing()
          },
          provenGone: memory.provenGone,
          unanswered: memory.unanswered,
          unheardSinceMillis: yield* unheardSince(memory, sandbox),
          refusals: memory.refusals,
          recoveryDelaysMillis: memory.recoveryDelaysMillis,
          now: yield* Clock.currentTimeMillis
        })
        if (!needsOperation(action) && !isBeingStarted(memory, sandbox, instances)) {
          yield* endOperation(key, memory)
        }
        if (
          action._tag !== "StartInstance" || action.assignment.instanceId !== memory.reservation?.reservation.instanceId
        ) {
          yield* release(memory)
        }
        yield* Metric.update(Metric.withAttributes(actions, { action: action._tag }), 1)
        const result = yield* carryOut(key, memory, sandbox, action)
        if (result._tag === "Done") {
          return result.outcome ?? (isClean ? undefined : { requeueAfter: orphanPause })
        }
        sandbox = result.sandbox
      }
      return { requeueAfter: Duration.millis(1) }
    })

    // -------------------------------------------------------------------------------------------------------------------
    // what wakes it

    const lookAt = (instance: Instance, uid: string) =>
      Option.match(Observation.keyOf(instance), {
        onNone: () => Effect.void,
        onSome: (key) => {
          memoryOf(key).homes.add(uid)
          return queue.add(key)
        }
      })

    const lookAtAssigned = Effect.fnUntraced(function*(uid: string) {
      const assigned = yield* sandboxes.byIndex("agent", uid)
      yield* Effect.forEach(assigned, (sandbox) => queue.add(keyOf(sandbox)), { discard: true })
    })

    const takeInAgent = Effect.fnUntraced(function*(uid: string) {
      const found = yield* agents.get(uid)
      const before = seen.get(uid)
      if (Option.isNone(found)) {
        seen.delete(uid)
        yield* Effect.forEach(before?.instances.values() ?? [], (instance) => lookAt(instance, uid), { discard: true })
        yield* lookAtAssigned(uid)
        // also those that wait for its answer about an instance that no status names any more
        const waiting = [...memories].filter(([, { homes }]) => homes.has(uid))
        yield* Effect.forEach(waiting, ([key]) => queue.add(key), { discard: true })
        return
      }
      const view = found.value
      seen.set(uid, view)
      const isReconnected = before?.connection !== view.connection
      const changed = Observation.changed(before?.instances, view.instances)
      yield* Effect.forEach(
        isReconnected ? [...changed, ...view.instances.values()] : changed,
        (instance) => lookAt(instance, uid),
        { discard: true }
      )
      if (isReconnected) {
        yield* lookAtAssigned(uid)
      }
      if (view.connection === "synced" && !view.draining && view.slotsUsed < view.slots) {
        yield* Queue.offer(wakes, undefined)
      }
    })

    yield* agents.changes.pipe(
      Stream.runForEach((change) => takeInAgent(change.uid)),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* Effect.all([sandboxes.synced, pools.synced, agents.firstSync], { concurrency: "unbounded", discard: true })
    yield* Effect.forEach(yield* agents.list, ({ uid }) => takeInAgent(uid), { discard: true })
    yield* sandboxes.changes.pipe(
      Stream.runForEach((change) => change._tag === "Synced" ? Effect.void : queue.add(keyOf(change.object))),
      Effect.forkScoped
    )
    yield* pools.changes.pipe(Stream.runForEach(() => Queue.offer(wakes, undefined)), Effect.forkScoped)
    yield* Queue.take(wakes).pipe(
      Effect.delay(wakePause),
      Effect.andThen(Effect.suspend(() => Effect.forEach([...unplaced], queue.add, { discard: true }))),
      Effect.forever,
      Effect.forkScoped
    )
    yield* queue.run({ workers }, reconcile)
    return yield* Effect.never
  }
).pipe(Effect.scoped)

/** Runs the controller for as long as the layer lives. */
export const layer: Layer.Layer<never, never, KubeClient | Caches | Agents | Registry | EventRecorder> = Layer
  .effectDiscard(
    Effect.forkScoped(run)
  )
