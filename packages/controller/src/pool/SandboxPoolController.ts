/**
 * Keeps the agent Pods of every SandboxPool: looks at the Pods, at their agents and at the demand, lets `PoolPlan` say
 * what is missing and what is too much, and carries it out. It owns the Pods directly; their garbage collection, when a
 * pool is deleted, is Kubernetes' own.
 *
 * Its cache may be late. What it made or deleted itself counts from the answer on, so a look that comes too early sees
 * neither too few nor too many Pods.
 */
import * as Instant from "@fast-sandbox/core/Instant"
import {
  agentAppLabel,
  drainAnnotation,
  drainedByAnnotation,
  poolLabel,
  templateHashAnnotation
} from "@fast-sandbox/core/Names"
import { type Sandbox, terminalPhases } from "@fast-sandbox/core/Sandbox"
import type { SandboxPool, SandboxPoolStatus } from "@fast-sandbox/core/SandboxPool"
import { defaults, keptWarm } from "@fast-sandbox/core/SandboxPool"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import { refOf } from "@fast-sandbox/kube/KubeObject"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import type { Change } from "@fast-sandbox/kube/Store"
import * as WorkQueue from "@fast-sandbox/kube/WorkQueue"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { Agents, type AgentView } from "../agents/Agents.ts"
import { Caches, keyOf, poolKeyOf } from "../Caches.ts"
import * as AgentPod from "./AgentPod.ts"
import { Demand } from "./Demand.ts"
import * as PoolPlan from "./PoolPlan.ts"
import * as PoolStatus from "./PoolStatus.ts"

/** Names the controller in the managed fields of what it writes. */
export const fieldManager = "fast-sandbox-pool-controller"

/** Pools that are looked at at once. */
const workers = 4

/** Changes of counts within this time become one look, and at most one write. */
const countPause = Duration.seconds(1)

/** How long the cache gets to show a Pod that was made, in milliseconds. What it never shows was deleted at once. */
const expectationMillis = 60_000

/** An agent that could not be told what to keep warm is told again after this, when it is still connected. */
const warmPause = Duration.seconds(5)

/** How long the cache gets to show what a conflict says is there. */
const conflictPause = Duration.millis(500)

/** Options of {@link layer}. */
export interface SandboxPoolControllerOptions {
  /** The agent's image, for pools whose template names none. */
  readonly agentImage: string
  /** How agents that are reached over the network get their certificates. */
  readonly enrollment?: Effect.Effect<AgentPod.Enrollment | undefined> | undefined
}

/** What is remembered of a pool between two looks. It may be lost at any moment: the pauses begin anew then. */
class Memory {
  /** Pods that were made, until the cache shows them. */
  readonly created = new Map<string, { readonly pod: Pod; readonly at: number }>()
  /** Uids of Pods that were deleted, until the cache shows that. */
  readonly removed = new Set<string>()
  surplusSince: number | undefined
  failures = { count: 0, at: 0 }
  problem: PoolStatus.CreateProblem | undefined
}

const ownerOf = ({ metadata }: Pod): string | undefined =>
  metadata.ownerReferences?.find(({ controller }) => controller === true)?.uid

const poolOf = ({ metadata }: Pod): ReadonlyArray<string> => {
  const name = metadata.labels?.[poolLabel]
  return name === undefined ? [] : [`${metadata.namespace ?? ""}/${name}`]
}

const isEnded = ({ status }: Pod): boolean => status?.phase === "Failed" || status?.phase === "Succeeded"

const millisOf = (text: string | null | undefined): number => Option.getOrElse(Instant.parseMillis(text), () => 0)

/** Instances that hold a slot, together with sandboxes whose instance is still on its way. */
const usedOf = (view: AgentView | undefined, assigned: ReadonlyArray<Sandbox>): number => {
  const live = [...view?.instances.values() ?? []].filter(({ state }) => state !== InstanceState.EXITED)
  const shown = new Set(view?.instances.keys())
  const coming = assigned.filter(({ status }) =>
    (status?.phase === undefined || !terminalPhases.has(status.phase)) && !shown.has(status?.sandboxID ?? "")
  )
  return Math.max(live.length, view?.slotsUsed ?? 0) + coming.length
}

const factsOf = (
  pod: Pod,
  hash: string,
  view: AgentView | undefined,
  assigned: ReadonlyArray<Sandbox>,
  isRemoved: boolean
): PoolPlan.AgentFacts => {
  const { annotations, creationTimestamp, deletionTimestamp, name, uid } = pod.metadata
  const createdAt = millisOf(creationTimestamp)
  const state = isRemoved || deletionTimestamp !== undefined
    ? "terminating"
    : isEnded(pod)
    ? "failed"
    : view?.connection === "synced"
    ? "ready"
    : view?.connection === "stale"
    ? "silent"
    : "starting"
  const ownSlots = pod.spec.containers.flatMap(({ env }) => env ?? []).find(({ name }) => name === "FSB_SLOTS")?.value
  return {
    pod: name,
    uid,
    createdAt,
    current: annotations?.[templateHashAnnotation] === hash,
    state,
    since: Math.max(createdAt, view?.since ?? 0),
    drain: annotations?.[drainAnnotation],
    drainedByUser: annotations?.[drainedByAnnotation] !== undefined,
    slots: view?.connection === "synced" ? view.slots : Number(ownSlots ?? defaults.maxSandboxesPerPod),
    used: usedOf(view, assigned),
    records: [...view?.instances.values() ?? []].filter(({ state }) => state === InstanceState.EXITED).length,
    runtimeProblem: view?.connection === "synced" ? view.runtimeProblem : undefined
  }
}

/** Why the API refuses Pods for good; none for what may pass by itself. */
const problemOf = ({ reason }: KubeError): Option.Option<PoolStatus.CreateProblem> =>
  reason._tag === "Forbidden" || reason._tag === "Invalid" || reason._tag === "BadRequest"
    ? Option.some({
      reason: reason._tag === "Forbidden" && reason.problem.includes("exceeded quota") ? "QuotaExceeded" : reason._tag,
      message: reason.problem
    })
    : Option.none()

const isGone = ({ reason }: KubeError): boolean => reason._tag === "NotFound" || reason._tag === "Conflict"

/**
 * Whether only the status of a pool moved, which is mostly our own last report: looked at right away, counts that go on
 * moving would be reported as fast as reports come back.
 */
const isStatusOnly = (change: Change<SandboxPool>): boolean =>
  change._tag === "Modified" &&
  change.previous.metadata.generation === change.object.metadata.generation &&
  change.previous.metadata.deletionTimestamp === change.object.metadata.deletionTimestamp

/** Runs the controller until it is interrupted. */
export const run = Effect.fnUntraced(
  function*({ agentImage, enrollment = Effect.succeed(undefined) }: SandboxPoolControllerOptions) {
    const kube = yield* KubeClient
    const agents = yield* Agents
    const demand = yield* Demand
    const recorder = yield* EventRecorder
    const { pools, sandboxes } = yield* Caches

    const pods = yield* Reflector.make(Pod, {
      labelSelector: `${agentAppLabel.key}=${agentAppLabel.value}`,
      indices: { pool: poolOf }
    })
    const queue = yield* WorkQueue.make({ name: "pools" })
    const memories = new Map<string, Memory>()

    /** The pool's own Pods: the cache's, and those that it does not show yet. */
    const podsOf = Effect.fnUntraced(function*(key: string, pool: SandboxPool, memory: Memory) {
      const now = yield* Clock.currentTimeMillis
      const cached = (yield* pods.byIndex("pool", key)).filter((pod) => ownerOf(pod) === pool.metadata.uid)
      const shown = new Set(cached.map(({ metadata }) => metadata.uid))
      for (const [uid, { at }] of memory.created) {
        if (shown.has(uid) || at < now - expectationMillis) {
          memory.created.delete(uid)
        }
      }
      for (const uid of memory.removed) {
        if (!shown.has(uid) && !memory.created.has(uid)) {
          memory.removed.delete(uid)
        }
      }
      return [...cached, ...Array.from(memory.created.values(), ({ pod }) => pod)]
    })

    const createPods = Effect.fnUntraced(function*(
      pool: SandboxPool,
      memory: Memory,
      pod: ReturnType<typeof AgentPod.render>["pod"],
      count: number
    ) {
      for (let made = 0; made < count; made++) {
        const created = yield* Effect.result(kube.create(Pod, pod, { fieldManager }))
        const now = yield* Clock.currentTimeMillis
        if (created._tag === "Success") {
          memory.problem = undefined
          memory.created.set(created.success.metadata.uid, { pod: created.success, at: now })
          continue
        }
        const problem = problemOf(created.failure)
        if (Option.isNone(problem)) {
          return yield* created.failure
        }
        memory.problem = problem.value
        memory.failures = { count: memory.failures.count + 1, at: now }
        yield* recorder.record(Kinds.SandboxPool, pool, { type: "Warning", ...problem.value })
        return
      }
    })

    const annotate = (pod: PoolPlan.AgentFacts, namespace: string, drain: string | null) =>
      kube.patch(Pod, { name: pod.pod, namespace }, {
        type: "merge",
        body: { metadata: { uid: pod.uid, annotations: { [drainAnnotation]: drain } } }
      }, { fieldManager }).pipe(Effect.catchIf(isGone, () => Effect.void))

    const removePod = Effect.fnUntraced(function*(
      pool: SandboxPool,
      memory: Memory,
      { agent, reason }: PoolPlan.PoolPlan["remove"][number]
    ) {
      const { namespace } = pool.metadata
      yield* kube.delete(Pod, { name: agent.pod, namespace }, { preconditions: { uid: agent.uid } }).pipe(
        Effect.catchIf(isGone, () => Effect.void)
      )
      memory.removed.add(agent.uid)
      if (reason !== "Drained") {
        const now = yield* Clock.currentTimeMillis
        memory.failures = { count: memory.failures.count + 1, at: now }
        yield* recorder.record(Kinds.SandboxPool, pool, {
          type: "Warning",
          reason,
          message: `agent ${agent.pod} is replaced`
        })
      }
    })

    /** Agents that keep something else warm than their pool says are told. False when one could not be. */
    const warm = Effect.fnUntraced(function*(pool: SandboxPool, views: ReadonlyArray<AgentView>) {
      const wanted = keptWarm(pool.spec)
      const told = yield* Effect.forEach(
        views.filter(({ warmImages }) => !Equal.equals(warmImages, wanted)),
        ({ pod, uid }) =>
          agents.warm(uid, wanted).pipe(
            Effect.tapError((error) =>
              Effect.logInfo("an agent was not told what to keep warm", { agent: pod }, error)
            ),
            Effect.isSuccess
          ),
        { concurrency: workers }
      )
      return told.every((isTold) => isTold)
    })

    const report = (pool: SandboxPool, status: SandboxPoolStatus) =>
      Equal.equals(status, pool.status)
        ? Effect.succeed(true)
        : kube.updateStatus(Kinds.SandboxPool, { ...pool, status }, { fieldManager }).pipe(
          Effect.as(true),
          Effect.catchIf(isGone, () => Effect.succeed(false))
        )

    const reconcile = Effect.fn("SandboxPoolController.reconcile")(function*(key: string) {
      const found = yield* pools.get(refOf(key))
      if (Option.isNone(found)) {
        memories.delete(key)
        return
      }
      const pool = found.value
      if (pool.metadata.deletionTimestamp !== undefined) {
        return
      }
      const memory = memories.get(key) ?? new Memory()
      memories.set(key, memory)
      const namespace = pool.metadata.namespace ?? ""
      const rendered = AgentPod.render(pool, agentImage, yield* enrollment)
      const existing = yield* podsOf(key, pool, memory)
      const found_ = yield* Effect.forEach(
        existing,
        Effect.fnUntraced(function*(pod) {
          const { uid } = pod.metadata
          const view = Option.getOrUndefined(yield* agents.get(uid))
          const assigned = yield* sandboxes.byIndex("agent", uid)
          return { view, facts: factsOf(pod, rendered.hash, view, assigned, memory.removed.has(uid)) }
        })
      )
      const facts = found_.map(({ facts }) => facts)
      const now = yield* Clock.currentTimeMillis
      if (facts.some(({ current, state }) => current && state === "ready")) {
        memory.failures = { count: 0, at: 0 }
      }
      const plan = PoolPlan.make({
        spec: pool.spec,
        agents: facts,
        pending: (yield* sandboxes.byIndex("waiting", key)).length + (yield* demand.recent(key)),
        surplusSince: memory.surplusSince,
        failures: memory.failures,
        now
      })
      memory.surplusSince = plan.surplusSince
      yield* Effect.forEach(plan.resume, (agent) => annotate(agent, namespace, null), { discard: true })
      yield* Effect.forEach(plan.drain, (agent) => annotate(agent, namespace, Instant.format(now)), { discard: true })
      yield* Effect.forEach(plan.remove, (removal) => removePod(pool, memory, removal), { discard: true })
      yield* createPods(pool, memory, rendered.pod, plan.create)
      const views = found_.flatMap(({ view }) => view?.connection === "synced" ? [view] : [])
      const isWarmed = yield* warm(pool, views)
      const isReported = yield* report(
        pool,
        PoolStatus.make({
          pool,
          agents: facts,
          views,
          plan,
          problem: memory.problem,
          failures: memory.failures.count,
          now
        })
      )
      if (!isReported) {
        return { requeueAfter: conflictPause }
      }
      const pauses = [
        ...(plan.wakeAt === undefined ? [] : [Duration.millis(plan.wakeAt - now)]),
        ...(isWarmed ? [] : [warmPause])
      ]
      return pauses.length === 0 ? undefined : { requeueAfter: pauses.reduce((one, other) => Duration.min(one, other)) }
    })

    // -----------------------------------------------------------------------------------------------------------------
    // what wakes it

    const connections = new Map<string, AgentView["connection"]>()

    /** A new or lost agent is looked at now, a slot that was taken or freed with the next ones. */
    const takeInAgent = Effect.fnUntraced(function*(uid: string) {
      const view = yield* agents.get(uid)
      if (Option.isNone(view)) {
        connections.delete(uid)
        return
      }
      const { connection, namespace, pool } = view.value
      const isNew = connections.get(uid) !== connection
      connections.set(uid, connection)
      const key = `${namespace}/${pool}`
      yield* isNew ? queue.add(key) : queue.addAfter(key, countPause)
    })

    yield* Effect.all([sandboxes.synced, pools.synced, pods.synced, agents.firstSync], {
      concurrency: "unbounded",
      discard: true
    })
    yield* agents.changes.pipe(
      Stream.runForEach((change) => takeInAgent(change.uid)),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* pools.changes.pipe(
      Stream.runForEach((change) =>
        change._tag === "Synced"
          ? Effect.void
          : isStatusOnly(change)
          ? queue.addAfter(keyOf(change.object), countPause)
          : queue.add(keyOf(change.object))
      ),
      Effect.forkScoped
    )
    yield* pods.changes.pipe(
      Stream.runForEach((change) =>
        change._tag === "Synced"
          ? Effect.void
          : Effect.forEach(poolOf(change.object), queue.add, { discard: true })
      ),
      Effect.forkScoped
    )
    yield* sandboxes.changes.pipe(
      Stream.runForEach((change) =>
        change._tag === "Synced"
          ? Effect.void
          : change.object.status?.phase === "Pending"
          ? queue.add(poolKeyOf(change.object))
          : queue.addAfter(poolKeyOf(change.object), countPause)
      ),
      Effect.forkScoped
    )
    yield* demand.changes.pipe(Stream.runForEach(queue.add), Effect.forkScoped)
    yield* queue.run({ workers }, reconcile)
    return yield* Effect.never
  },
  Effect.scoped
)
