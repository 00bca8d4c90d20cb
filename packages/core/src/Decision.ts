/**
 * What to do next for one sandbox. One pure function looks at the resource, at what the agents say and at the clock, and
 * names a single step; a controller carries the step out and asks again. It is level-triggered: it never remembers what
 * woke it, so events may be lost, doubled or late, and a status or an annotation that somebody edited is only another
 * input.
 *
 * What holds whatever it is shown:
 * - A new instance is started only after the end of the one before is proven: the agent said so, the agent's Pod is
 *   gone, or the agent was silent beyond the recovery timeout and the status names a successor, so that the old instance
 *   is deleted as soon as its agent returns.
 * - Every start has an instance id of its own, recorded in the status before the agent hears of it.
 * - The same world twice gives no write.
 */
import * as Data from "effect/Data"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import * as Assignment from "./Assignment.ts"
import * as Conditions from "./Conditions.ts"
import * as Instant from "./Instant.ts"
import { claimUidAnnotation, finalizer, forceDeleteAnnotation } from "./Names.ts"
import * as Recovery from "./Recovery.ts"
import { defaults, type Phase, type Sandbox, type SandboxStatus, type Startup, terminalPhases } from "./Sandbox.ts"

/** Silence of an agent that is worth telling, in milliseconds: a reconnecting stream is back before. */
export const silenceNoticeMillis = 5_000

/** An instance of the sandbox, as its agent last described it. */
export interface ObservedInstance {
  readonly instanceId: string
  readonly pod: string
  readonly podUid: string
  readonly node: string
  /** The agent answers now; otherwise this is the last that was heard. */
  readonly reachable: boolean
  /** The agent knows the resource's uid. */
  readonly bound: boolean
  readonly state: "Creating" | "Running" | "Stopping" | "Exited"
  /** For Exited: Completed, Error, OOMKilled, Stopped, StartFailed. */
  readonly reason: string
  readonly message: string
  readonly exitCode?: number | undefined
  readonly signal?: number | undefined
  /** RFC 3339, as the next two. */
  readonly createdAt?: string | undefined
  readonly startedAt?: string | undefined
  readonly finishedAt?: string | undefined
  readonly startup?: Startup | undefined
  readonly endpoints: ReadonlyArray<string>
}

/**
 * What is known of an agent.
 * - Synced: it answers, and what it does not list is not there
 * - Silent: its Pod exists but it has not answered since
 * - Missing: the cache shows no such Pod, which may be the cache's lateness
 * - Gone: the API itself said that there is no such Pod
 * - Unknown: the caches are not filled yet
 */
export type AgentPresence = Data.TaggedEnum<{
  Synced: {}
  Silent: { readonly sinceMillis: number }
  Missing: {}
  Gone: {}
  Unknown: {}
}>

/** Constructors of {@link AgentPresence}. */
export const AgentPresence = Data.taggedEnum<AgentPresence>()

/**
 * Why an agent certainly did not start an instance.
 * - NoRoom: another agent may
 * - Fatal: none will
 */
export type StartRefusal = Data.TaggedEnum<{
  NoRoom: {}
  Fatal: { readonly reason: string; readonly message: string; readonly atMillis: number }
}>

/** Constructors of {@link StartRefusal}. */
export const StartRefusal = Data.taggedEnum<StartRefusal>()

/** All that a decision depends on. */
export interface World {
  readonly sandbox: Sandbox
  /** The sandbox's instances on all agents; not those of another resource with the same name. */
  readonly instances: ReadonlyArray<ObservedInstance>
  /** By the uid of the agent's Pod. */
  readonly presence: (podUid: string) => AgentPresence
  /** Instances whose agent answered that they are gone. */
  readonly provenGone: ReadonlySet<string>
  /** Instances that an agent was asked to start and did not answer for: they may run, or may be about to. */
  readonly unanswered: ReadonlyArray<Assignment.Assignment>
  /**
   * Set for a resource that somebody handled before but that has no status: since when, in milliseconds since the epoch,
   * agents of its pool are awaited that never said what they hold. One of them may have the sandbox's instance.
   */
  readonly unheardSinceMillis: number | undefined
  /** By instance id. */
  readonly refusals: ReadonlyMap<string, StartRefusal>
  /** A draw of `Recovery.drawDelays`. */
  readonly recoveryDelaysMillis: ReadonlyArray<number>
  /** Milliseconds since the epoch. */
  readonly now: number
}

/**
 * The next step. All but the last four change something outside of the controller.
 * - Place: choose an agent and record the choice with {@link placed}, or the lack of one with {@link unplaced}
 * - DeleteInstances: each is asked of its agent, and counts as proven gone when the agent answers
 * - ConfirmAgentGone: ask the API itself whether the Pod exists
 */
export type Action = Data.TaggedEnum<{
  AddFinalizer: {}
  Place: { readonly draft: SandboxStatus }
  StartInstance: { readonly assignment: Assignment.Assignment }
  BindInstance: { readonly assignment: Assignment.Assignment }
  StopInstance: { readonly assignment: Assignment.Assignment }
  DeleteInstances: { readonly targets: ReadonlyArray<Assignment.Assignment> }
  ReportStatus: { readonly status: SandboxStatus }
  RemoveFinalizer: {}
  ConfirmAgentGone: { readonly assignment: Assignment.Assignment }
  WaitUntil: { readonly millis: number }
  Nothing: {}
}>

/** Constructors of {@link Action}. */
export const Action = Data.taggedEnum<Action>()

/** A status that lacks only what every report adds: conditions and observedGeneration. */
type Facts = SandboxStatus & { readonly phase: Phase }

/** When the sandbox expires, in milliseconds since the epoch. With two expiries the earlier one counts. */
export const expiryMillis = ({ metadata, spec }: Sandbox): Option.Option<number> => {
  const byTtl = spec.ttlSeconds === undefined
    ? Option.none<number>()
    : Option.map(Instant.parseMillis(metadata.creationTimestamp), (created) => created + (spec.ttlSeconds ?? 0) * 1000)
  return Option.match(Instant.parseMillis(spec.expireTime), {
    onNone: () => byTtl,
    onSome: (byTime) => Option.some(Math.min(byTime, Option.getOrElse(byTtl, () => byTime)))
  })
}

/** The status to report when an agent was chosen: a new incarnation begins. */
export const placed = (
  sandbox: Sandbox,
  draft: SandboxStatus,
  assignment: Assignment.Assignment,
  now: number
): SandboxStatus =>
  complete(sandbox, {
    ...draft,
    phase: "Scheduled",
    ...fieldsOf(assignment),
    ...accepted(sandbox)
  }, { now })

/** The status to report when no agent was found. */
export const unplaced = (
  sandbox: Sandbox,
  draft: SandboxStatus,
  unplaced: Conditions.Explanation,
  now: number
): SandboxStatus => complete(sandbox, { ...draft, phase: "Pending", ...accepted(sandbox) }, { now, unplaced })

/** The next step for a sandbox. */
export const decide = (world: World): Action => {
  const { sandbox } = world
  const instances = world.instances.filter((instance) => !world.provenGone.has(instance.instanceId))
  if (sandbox.metadata.deletionTimestamp !== undefined) {
    return deletion(world, instances)
  }
  if (!hasFinalizer(sandbox)) {
    return Action.AddFinalizer()
  }
  const current = currentOf(sandbox, instances)
  const isSuperseded = ({ instanceId }: { readonly instanceId: string }): boolean =>
    instanceId !== Option.getOrUndefined(current)?.instanceId
  const strays = world.unanswered.filter((stray) =>
    isSuperseded(stray) && !world.provenGone.has(stray.instanceId) &&
    !instances.some(({ instanceId }) => instanceId === stray.instanceId)
  )
  const targets = [
    ...instances.filter((instance) => instance.reachable && isSuperseded(instance)).map(assignmentOf),
    ...strays.filter(({ podUid }) => AgentPresence.$is("Synced")(world.presence(podUid)))
  ]
  if (targets.length > 0) {
    return Action.DeleteInstances({ targets })
  }
  const silentUntil = strays.map(({ podUid }) => world.presence(podUid)).filter(AgentPresence.$is("Silent"))
    .map(({ sinceMillis }) => sinceMillis + recoveryTimeoutMillis(sandbox))
    .filter((until) => until > world.now)
  return Option.isNone(current) && silentUntil.length > 0
    ? Action.WaitUntil({ millis: Math.max(...silentUntil) })
    : life({ world, current, situation: situationOf(world, current, instances) })
}

// ---------------------------------------------------------------------------------------------------------------------
// what is the case

/**
 * Where the current instance is.
 * - Nowhere: none was assigned
 * - Observed: its agent describes it
 * - Absent: its agent answers and does not list it; a start that is still on its way may yet arrive
 * - Ended: it is certain that nothing runs and nothing will
 * - Silent: its agent has not answered for so long; `fenced` when that is long enough to act without it
 */
type Situation = Data.TaggedEnum<{
  Nowhere: {}
  Observed: { readonly instance: ObservedInstance }
  Absent: { readonly assignment: Assignment.Assignment }
  Ended: {}
  AgentGone: {}
  Silent: { readonly sinceMillis: number; readonly fenced: boolean }
  Missing: { readonly assignment: Assignment.Assignment }
  Unknown: {}
}>
const Situation = Data.taggedEnum<Situation>()

interface Case {
  readonly world: World
  readonly current: Option.Option<Assignment.Assignment>
  readonly situation: Situation
}

const hasFinalizer = ({ metadata }: Sandbox): boolean => metadata.finalizers?.includes(finalizer) === true

const isLive = (instance: ObservedInstance): boolean => instance.state !== "Exited"

const assignmentOf = ({ instanceId, node, pod, podUid }: ObservedInstance): Assignment.Assignment => ({
  instanceId,
  pod,
  podUid,
  node
})

const byAge = (a: ObservedInstance, b: ObservedInstance): number =>
  Number(isLive(b)) - Number(isLive(a)) || (b.createdAt ?? "").localeCompare(a.createdAt ?? "")

/**
 * The status names the current instance. A resource without a status is one that was just created, or whose status was
 * wiped: what its agent shows is current then, before what its creator wrote.
 */
const currentOf = (
  sandbox: Sandbox,
  instances: ReadonlyArray<ObservedInstance>
): Option.Option<Assignment.Assignment> => {
  const named = Assignment.of(sandbox)
  if (sandbox.status?.phase !== undefined) {
    return named
  }
  const isNamed = (instance: ObservedInstance) => instance.instanceId === Option.getOrUndefined(named)?.instanceId
  const found = instances.find(isNamed) ?? instances.toSorted(byAge)[0]
  return found === undefined ? named : Option.some(assignmentOf(found))
}

const recoveryTimeoutMillis = ({ spec }: Sandbox): number =>
  (spec.recoveryTimeoutSeconds ?? defaults.recoveryTimeoutSeconds) * 1000

/** The status remembers a silence over a restart of the controller, which itself counts from its own start. */
const silentSince = ({ status }: Sandbox, since: number): number => {
  const ready = status?.conditions?.find((condition) => condition.type === "Ready")
  return ready?.reason === Conditions.reasons.agentSilent
    ? Math.min(since, Option.getOrElse(Instant.parseMillis(ready.lastTransitionTime), () => since))
    : since
}

const situationOf = (
  { now, presence, provenGone, sandbox }: World,
  current: Option.Option<Assignment.Assignment>,
  instances: ReadonlyArray<ObservedInstance>
): Situation => {
  if (Option.isNone(current)) {
    return Situation.Nowhere()
  }
  const assignment = current.value
  const observed = instances.find((instance) => instance.instanceId === assignment.instanceId && instance.reachable)
  if (observed !== undefined) {
    return Situation.Observed({ instance: observed })
  }
  if (provenGone.has(assignment.instanceId) || sandbox.status?.finishedAt !== undefined) {
    return Situation.Ended()
  }
  return AgentPresence.$match(presence(assignment.podUid), {
    Synced: () => Situation.Absent({ assignment }),
    Gone: () => Situation.AgentGone(),
    Missing: () => Situation.Missing({ assignment }),
    Unknown: () => Situation.Unknown(),
    Silent: ({ sinceMillis }) => {
      const since = silentSince(sandbox, sinceMillis)
      const { phase, reason } = sandbox.status ?? {}
      const wasFenced = phase === "Lost" && reason === Conditions.reasons.agentLost
      return Situation.Silent({
        sinceMillis: since,
        fenced: wasFenced || now >= since + recoveryTimeoutMillis(sandbox)
      })
    }
  })
}

const isExpired = ({ now, sandbox }: World): boolean => Option.exists(expiryMillis(sandbox), (expiry) => now >= expiry)

/** A resource without a phase was not handled yet: its first start accepts the revision that it was created with. */
const isResetWanted = ({ spec, status }: Sandbox): boolean =>
  status?.phase !== undefined && spec.resetRevision !== undefined && spec.resetRevision !== status.acceptedResetRevision

// ---------------------------------------------------------------------------------------------------------------------
// statuses

interface Context {
  readonly now: number
  readonly unplaced?: Conditions.Explanation | undefined
  readonly silent?: true | undefined
}

const complete = ({ metadata }: Sandbox, facts: Facts, { now, silent, unplaced }: Context): SandboxStatus => ({
  ...facts,
  ...(metadata.generation === undefined ? {} : { observedGeneration: metadata.generation }),
  conditions: Conditions.project({
    status: facts,
    generation: metadata.generation,
    now: Instant.format(now),
    unplaced,
    silent
  })
})

/** Reports the facts if they are new, else takes the step. */
const report = (world: World, facts: Facts, step: Action, silent?: true): Action => {
  const status = complete(world.sandbox, facts, { now: world.now, silent })
  return Equal.equals(status, world.sandbox.status) ? step : Action.ReportStatus({ status })
}

const accepted = ({ spec }: Sandbox): Pick<SandboxStatus, "acceptedResetRevision"> =>
  spec.resetRevision === undefined ? {} : { acceptedResetRevision: spec.resetRevision }

/** The status without what it says of the instance's end. */
const withoutEnding = (
  { exitCode: _e, finishedAt: _f, message: _m, reason: _r, signal: _s, ...rest }: SandboxStatus
): SandboxStatus => rest

/** The status without the instance: what is left when nothing is assigned. */
const withoutInstance = (status: SandboxStatus): SandboxStatus => {
  const {
    assignedPod: _p,
    assignedPodUID: _u,
    endpoints: _e,
    nodeName: _n,
    sandboxID: _i,
    startedAt: _a,
    startup: _t,
    ...rest
  } = withoutEnding(status)
  return rest
}

/** What a new incarnation begins with, when a reset asked for it. */
const afterReset = (status: SandboxStatus): SandboxStatus => {
  const { recovery: _, ...rest } = withoutInstance(status)
  return { ...rest, restarts: (status.restarts ?? 0) + 1 }
}

/** What a new incarnation begins with, when a recovery asked for it. */
const afterRecovery = (status: SandboxStatus): SandboxStatus => ({
  ...withoutInstance(status),
  restarts: (status.restarts ?? 0) + 1,
  ...(status.recovery === undefined
    ? {}
    : { recovery: { attempt: status.recovery.attempt, since: status.recovery.since } })
})

const stringsOf = (
  instance: ObservedInstance
): Partial<Pick<SandboxStatus, "startedAt" | "startup" | "endpoints">> => ({
  ...(instance.startedAt === undefined ? {} : { startedAt: instance.startedAt }),
  ...(instance.startup === undefined ? {} : { startup: instance.startup }),
  ...(instance.endpoints.length === 0 ? {} : { endpoints: instance.endpoints })
})

/** The facts that an instance's description amounts to. */
const projected = (sandbox: Sandbox, instance: ObservedInstance, phase: Phase): Facts => {
  const status = sandbox.status ?? {}
  // Fast creates ask for no revision: a revision that came with a later generation is a reset that is still to be done.
  const isFirst = status.phase === undefined && (sandbox.metadata.generation ?? 1) <= 1
  return {
    ...withoutInstance(status),
    ...(isFirst ? accepted(sandbox) : {}),
    phase,
    sandboxID: instance.instanceId,
    assignedPod: instance.pod,
    assignedPodUID: instance.podUid,
    nodeName: instance.node,
    ...stringsOf(instance)
  }
}

const ended = (sandbox: Sandbox, instance: ObservedInstance): Facts => {
  const succeeded = instance.exitCode === 0 && (instance.signal ?? 0) === 0 && instance.reason !== "StartFailed"
  const phase = instance.reason === "Stopped" ? "Stopped" : succeeded ? "Succeeded" : "Failed"
  return {
    ...projected(sandbox, instance, phase),
    ...(instance.exitCode === undefined ? {} : { exitCode: instance.exitCode }),
    ...(instance.signal === undefined || instance.signal === 0 ? {} : { signal: instance.signal }),
    ...(instance.reason === "" ? {} : { reason: instance.reason }),
    ...(instance.message === "" ? {} : { message: instance.message }),
    ...(instance.finishedAt === undefined ? {} : { finishedAt: instance.finishedAt })
  }
}

const lost = (status: SandboxStatus, why: Conditions.Explanation): Facts => ({
  ...withoutEnding(status),
  phase: "Lost",
  ...why
})

// ---------------------------------------------------------------------------------------------------------------------
// steps

const waitUntil = (now: number, ...instants: ReadonlyArray<number | undefined>): Action => {
  const ahead = instants.filter((instant) => instant !== undefined && instant > now).map(Number)
  return ahead.length === 0 ? Action.Nothing() : Action.WaitUntil({ millis: Math.min(...ahead) })
}

/** Moments at which a sandbox that is left alone has to be looked at again. */
const rest = (world: World, ...instants: ReadonlyArray<number | undefined>): Action =>
  waitUntil(world.now, Option.getOrUndefined(expiryMillis(world.sandbox)), ...instants)

/** Stops an instance, after saying so; a terminal sandbox whose instance turned up again stays what it is. */
const stop = (world: World, instance: ObservedInstance, why: Conditions.Explanation): Action => {
  const action = Action.StopInstance({ assignment: assignmentOf(instance) })
  const { phase } = world.sandbox.status ?? {}
  return phase !== undefined && terminalPhases.has(phase)
    ? action
    : report(world, { ...projected(world.sandbox, instance, "Stopping"), ...why }, action)
}

const deletion = (world: World, instances: ReadonlyArray<ObservedInstance>): Action => {
  const { sandbox } = world
  const reachable = instances.filter((instance) => instance.reachable)
  if (reachable.length > 0) {
    return Action.DeleteInstances({ targets: reachable.map(assignmentOf) })
  }
  if (!hasFinalizer(sandbox)) {
    return Action.Nothing()
  }
  const current = currentOf(sandbox, instances)
  // With a phase the status alone says where the instance is, so it has to say it.
  const assigned = Option.isSome(current) ? fieldsOf(current.value) : {}
  const wait = (message: string): Action => {
    const force = sandbox.metadata.annotations?.[forceDeleteAnnotation] ?? "false"
    return force === "false"
      ? report(world, { ...sandbox.status, ...assigned, phase: "Deleting", message }, Action.Nothing())
      : Action.RemoveFinalizer()
  }
  return Situation.$match(situationOf(world, current, instances), {
    Nowhere: () => Action.RemoveFinalizer(),
    Ended: () => Action.RemoveFinalizer(),
    AgentGone: () => Action.RemoveFinalizer(),
    Absent: ({ assignment }) => Action.DeleteInstances({ targets: [assignment] }),
    Observed: ({ instance }) => Action.DeleteInstances({ targets: [assignmentOf(instance)] }),
    Missing: ({ assignment }) => Action.ConfirmAgentGone({ assignment }),
    Unknown: () => Action.Nothing(),
    Silent: () =>
      wait(`its agent does not answer; the annotation ${forceDeleteAnnotation}=true deletes without proof of its end`)
  })
}

/** Ends the current instance, whatever it takes, then goes on. */
const endThen = (
  { situation, world }: Case,
  why: Conditions.Explanation,
  then: () => Action
): Action =>
  Situation.$match(situation, {
    Nowhere: then,
    Ended: then,
    AgentGone: then,
    Observed: ({ instance }) => isLive(instance) ? stop(world, instance, why) : then(),
    Absent: ({ assignment }) => Action.DeleteInstances({ targets: [assignment] }),
    Missing: ({ assignment }) => Action.ConfirmAgentGone({ assignment }),
    Unknown: () => Action.Nothing(),
    Silent: ({ fenced, sinceMillis }) =>
      fenced ? then() : waitUntil(world.now, sinceMillis + recoveryTimeoutMillis(world.sandbox))
  })

const expire = (self: Case): Action => {
  const { situation, world } = self
  const status = world.sandbox.status ?? {}
  const { phase } = status
  const why = { reason: Conditions.reasons.expired, message: "the sandbox reached its expiry" }
  if (Situation.$is("Observed")(situation) && !isLive(situation.instance)) {
    const { recovery: _, ...facts } = ended(world.sandbox, situation.instance)
    // What ended by itself before it could be stopped ended so.
    const isOwnEnd = facts.phase !== "Stopped" && phase !== "Stopping" &&
      (phase === undefined || !terminalPhases.has(phase))
    return report(world, isOwnEnd ? facts : { ...facts, phase: "Expired", ...why }, Action.Nothing())
  }
  return endThen(self, why, () => {
    const { recovery: _, ...facts } = status
    return report(
      world,
      phase === "Expired" ? { ...facts, phase } : { ...withoutEnding(facts), phase: "Expired", ...why },
      Action.Nothing()
    )
  })
}

/** A sandbox that failed or was lost: it stays so, or the next recovery is scheduled, or begun. */
const failed = (self: Case, facts: Facts): Action => {
  const { world } = self
  const { now, sandbox } = world
  const status = sandbox.status ?? {}
  if ((sandbox.spec.failurePolicy ?? defaults.failurePolicy) === "Manual") {
    const { recovery: _, ...rest } = facts
    return report(world, rest, Action.Nothing())
  }
  const due = status.recovery?.nextAt
  if (due !== undefined && status.phase !== undefined && terminalPhases.has(status.phase)) {
    const dueMillis = Option.getOrElse(Instant.parseMillis(due), () => now)
    // An instant that no draw can give was not written by a controller; waiting for it could mean for ever.
    const at = dueMillis > now + Recovery.longestMillis ? now : dueMillis
    const { recovery } = status
    return now >= at
      ? endThen(
        self,
        { reason: Conditions.reasons.restarting, message: "a recovery starts a new instance" },
        () => Action.Place({ draft: afterRecovery(status) })
      )
      : report(world, recovery === undefined ? facts : { ...facts, recovery }, rest(world, at))
  }
  const attempt = (status.recovery?.attempt ?? 0) + 1
  const delay = world.recoveryDelaysMillis[attempt - 1]
  if (delay === undefined) {
    const message = status.reason === Conditions.reasons.recoveryExhausted && status.message !== undefined
      ? status.message
      : `given up after ${attempt - 1} recoveries; last: ${facts.message ?? facts.reason ?? facts.phase}`
    return report(
      world,
      { ...facts, phase: "Failed", reason: Conditions.reasons.recoveryExhausted, message },
      Action.Nothing()
    )
  }
  const recovery = { attempt, since: Instant.format(now), nextAt: Instant.format(Math.ceil(now + delay)) }
  return report(world, { ...facts, recovery }, rest(world, now + delay))
}

/** The life of a sandbox that nobody deletes. */
const life = (self: Case): Action => {
  const { situation, world } = self
  const { sandbox } = world
  const status = sandbox.status ?? {}
  const phase = status.phase
  if (phase === undefined && !Situation.$is("Observed")(situation) && Option.isSome(self.current)) {
    const created = Option.getOrElse(Instant.parseMillis(sandbox.metadata.creationTimestamp), () => 0)
    if (world.now < created + Assignment.creatorGraceMillis) {
      return waitUntil(world.now, created + Assignment.creatorGraceMillis)
    }
  }
  if (phase === undefined && !Situation.$is("Observed")(situation) && world.unheardSinceMillis !== undefined) {
    const heardAt = world.unheardSinceMillis + recoveryTimeoutMillis(sandbox)
    if (world.now < heardAt) {
      return waitUntil(world.now, heardAt)
    }
  }
  const isSettled = phase !== undefined && terminalPhases.has(phase) && phase !== "Expired" &&
    status.recovery?.nextAt === undefined
  if (isExpired(world) && !isSettled) {
    return expire(self)
  }
  if (isResetWanted(sandbox) && !isExpired(world)) {
    return endThen(
      self,
      { reason: Conditions.reasons.reset, message: "a reset asked for a new instance" },
      () => Action.Place({ draft: afterReset(status) })
    )
  }
  if (phase === "Expired") {
    return expire(self)
  }
  return Situation.$match(situation, {
    Nowhere: () => nowhere(self),
    Observed: ({ instance }) => observed(self, instance),
    Absent: ({ assignment }) => absent(self, assignment),
    Ended: () =>
      neverStarted(sandbox)
        ? Action.Place({ draft: {} })
        : settled(self, { reason: Conditions.reasons.instanceLost, message: "the agent lost the instance" }),
    AgentGone: () => agentGone(self),
    Missing: ({ assignment }) =>
      phase !== undefined && terminalPhases.has(phase) ? settled(self) : Action.ConfirmAgentGone({ assignment }),
    Unknown: () => Action.Nothing(),
    Silent: ({ fenced, sinceMillis }) => silent(self, sinceMillis, fenced)
  })
}

/** Nothing is assigned. */
const nowhere = (self: Case): Action => {
  const { world } = self
  const status = world.sandbox.status ?? {}
  return status.phase !== undefined && terminalPhases.has(status.phase)
    ? settled(self)
    : Action.Place({ draft: withoutInstance(status) })
}

/** The start was refused for good; a request for it that was still on its way may yet arrive, and nobody waits for it. */
const wasRefused = ({ finishedAt, phase, startedAt }: SandboxStatus): boolean =>
  phase === "Failed" && finishedAt !== undefined && startedAt === undefined

const livePhases = { Creating: "Starting", Running: "Running", Stopping: "Stopping", Exited: "Stopped" } as const

/** The current instance is described by its agent. */
const observed = (self: Case, instance: ObservedInstance): Action => {
  const { world } = self
  const { now, sandbox } = world
  const status = sandbox.status ?? {}
  const isManual = (sandbox.spec.failurePolicy ?? defaults.failurePolicy) === "Manual"
  if (status.phase === "Lost" && isManual) {
    // Whoever was told that it is lost may have replaced it; its return must not make two of it.
    return isLive(instance)
      ? Action.StopInstance({ assignment: assignmentOf(instance) })
      : settled(self)
  }
  if (isLive(instance) && wasRefused(status)) {
    return Action.DeleteInstances({ targets: [assignmentOf(instance)] })
  }
  if (!isLive(instance)) {
    const facts = ended(sandbox, instance)
    return facts.phase === "Succeeded" ? succeeded(world, facts) : failed(self, facts)
  }
  const bindAt = instance.bound
    ? undefined
    : Option.getOrElse(Instant.parseMillis(sandbox.metadata.creationTimestamp), () => 0) + Assignment.creatorGraceMillis
  const stableAt = status.recovery === undefined
    ? undefined
    : Option.getOrUndefined(
      Option.map(Instant.parseMillis(instance.startedAt), (started) => started + Recovery.stableRunMillis)
    )
  if (instance.state === "Creating" && status.phase === "Running" && status.sandboxID === instance.instanceId) {
    // Another replica heard its agent's answer already, and wrote it.
    return rest(world)
  }
  const phase = livePhases[instance.state]
  const { recovery, ...facts } = projected(sandbox, instance, phase)
  const isStable = phase === "Running" && stableAt !== undefined && now >= stableAt
  return report(
    world,
    recovery === undefined || isStable
      ? facts
      // The instance lives, so no next one is planned any more.
      : { ...facts, recovery: { attempt: recovery.attempt, since: recovery.since } },
    bindAt !== undefined && now >= bindAt
      ? Action.BindInstance({ assignment: assignmentOf(instance) })
      : rest(world, bindAt, stableAt)
  )
}

const succeeded = (world: World, facts: Facts): Action => {
  const { recovery: _, ...rest } = facts
  return report(world, rest, Action.Nothing())
}

/** The agent answers and does not know the current instance: its start is still to be made, or it is lost. */
const absent = (self: Case, assignment: Assignment.Assignment): Action => {
  const { world } = self
  const { sandbox } = world
  const status = sandbox.status ?? {}
  if (status.phase === "Scheduled" || status.phase === "Starting") {
    const refusal = world.refusals.get(assignment.instanceId)
    if (refusal === undefined) {
      return Action.StartInstance({ assignment })
    }
    return StartRefusal.$match(refusal, {
      NoRoom: () => Action.Place({ draft: withoutInstance(status) }),
      Fatal: ({ atMillis, message, reason }) =>
        failed(self, {
          ...withoutEnding(status),
          phase: "Failed",
          reason,
          message,
          finishedAt: Instant.format(atMillis)
        })
    })
  }
  return neverStarted(sandbox)
    // Its request may still be on its way: the agent forbids it first.
    ? Action.DeleteInstances({ targets: [assignment] })
    : lostOrSettled(self, assignment)
}

/** Nobody handled the resource, and no creator claimed it: a person wrote it with an assignment of somebody else's. */
const isUnclaimed = ({ metadata, status }: Sandbox): boolean =>
  status?.phase === undefined && metadata.annotations?.[claimUidAnnotation] === undefined

/**
 * The creator wrote the resource first and did not get to the start, so that the resource is all that there is. A fast
 * create writes it behind the start.
 */
const neverStarted = (sandbox: Sandbox): boolean =>
  isUnclaimed(sandbox) || (sandbox.status?.phase === undefined && sandbox.spec.consistencyMode === "strong")

const lostOrSettled = (self: Case, assignment: Assignment.Assignment): Action => {
  const { world } = self
  const { status } = world.sandbox
  if (status?.phase !== undefined && terminalPhases.has(status.phase)) {
    return settled(self)
  }
  return failed(
    self,
    lost({ ...status, ...fieldsOf(assignment) }, {
      reason: Conditions.reasons.instanceLost,
      message: `agent ${assignment.pod} no longer has the instance`
    })
  )
}

/** How a status names an assignment. */
export const fieldsOf = (assignment: Assignment.Assignment): SandboxStatus => ({
  sandboxID: assignment.instanceId,
  assignedPod: assignment.pod,
  assignedPodUID: assignment.podUid,
  nodeName: assignment.node
})

/** A terminal sandbox stays what it is, except that a recovery may be due; a live one is lost for the reason given. */
const settled = (self: Case, why?: Conditions.Explanation): Action => {
  const { world } = self
  const status = world.sandbox.status ?? {}
  const { phase } = status
  if (phase === "Failed" || phase === "Lost" || phase === "Stopped") {
    return failed(self, { ...status, phase })
  }
  if (phase !== undefined && terminalPhases.has(phase)) {
    return report(world, { ...status, phase }, Action.Nothing())
  }
  return why === undefined ? Action.Nothing() : failed(self, lost(status, why))
}

const agentGone = (self: Case): Action => {
  const { world } = self
  const { sandbox } = world
  const { phase } = sandbox.status ?? {}
  if (phase === "Scheduled" || isUnclaimed(sandbox)) {
    return Action.Place({ draft: withoutInstance(sandbox.status ?? {}) })
  }
  const assignment = Assignment.of(sandbox)
  const status = Option.isSome(assignment) ? fieldsOf(assignment.value) : {}
  return phase !== undefined && terminalPhases.has(phase)
    ? settled(self)
    : failed(
      self,
      lost({ ...sandbox.status, ...status }, {
        reason: Conditions.reasons.agentLost,
        message: `the Pod of agent ${Option.getOrUndefined(assignment)?.pod ?? "unknown"} is gone`
      })
    )
}

const silent = (self: Case, since: number, fenced: boolean): Action => {
  const { world } = self
  const { now, sandbox } = world
  const status = sandbox.status ?? {}
  const { phase } = status
  if (phase !== undefined && terminalPhases.has(phase)) {
    return settled(self)
  }
  const timeout = recoveryTimeoutMillis(sandbox)
  const assignment = Assignment.of(sandbox)
  const fields = Option.isSome(assignment) ? fieldsOf(assignment.value) : {}
  if (fenced && phase === "Scheduled") {
    return Action.Place({ draft: withoutInstance(status) })
  }
  if (fenced) {
    return failed(
      self,
      lost({ ...status, ...fields }, {
        reason: Conditions.reasons.agentLost,
        message: `agent ${Option.getOrUndefined(assignment)?.pod ?? "unknown"} did not answer for ${timeout / 1000} s`
      })
    )
  }
  const noticeAt = since + silenceNoticeMillis
  const wait = rest(world, noticeAt, since + timeout)
  return phase === undefined || now < noticeAt ? wait : report(world, { ...status, phase }, wait, true)
}
