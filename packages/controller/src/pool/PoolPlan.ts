/**
 * How many agents a pool should have, and which of them should go: one pure function from what is there to what is to
 * be done. It never removes an agent that holds a sandbox: an agent is drained first (it is given nothing more), and
 * removed when it has been empty and drained for long enough that no create can be on its way to it.
 */
import * as Instant from "@fast-sandbox/core/Instant"
import { defaults, type SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import * as Backoff from "@fast-sandbox/kube/Backoff"
import * as Option from "effect/Option"

/** Pods made in one step: a mistake in a template or in the demand costs so many Pods, not hundreds. */
export const maxCreates = 10

/** A surplus is given back after it lasted this long, in milliseconds: demand comes in waves. */
export const surplusMillis = 60_000

/** A create that chose an agent before its drain was seen has arrived or failed after this time, in milliseconds. */
export const drainQuietMillis = 5_000

/** A Pod whose agent does not answer by then is replaced, in milliseconds: pulling the agent's image takes minutes. */
export const startDeadlineMillis = 300_000

/** An agent that fell silent without any sandbox is replaced after this time, in milliseconds. */
export const silenceDeadlineMillis = 300_000

/** Pauses between Pods that do not come up: 10 s doubling to 5 min. */
export const createBackoff: Backoff.Backoff = Backoff.exponential({
  name: "pool",
  base: "10 seconds",
  cap: "5 minutes"
})

/**
 * For how long an agent that fell silent still counts with its free slots, in milliseconds: a restart takes a second or
 * two, a new Pod takes longer.
 */
export const silenceGraceMillis = 15_000

/** What is known of an agent Pod. */
export interface AgentFacts {
  readonly pod: string
  readonly uid: string
  /** Milliseconds since the epoch. */
  readonly createdAt: number
  /** Made from the template as it is now. */
  readonly current: boolean
  /**
   * starting: never answered; ready: answers; silent: answered before; failed: its Pod ended; terminating: deleted.
   */
  readonly state: "starting" | "ready" | "silent" | "failed" | "terminating"
  /** Milliseconds since the epoch when the state began. */
  readonly since: number
  /** When it was asked to drain: the annotation's text. */
  readonly drain: string | undefined
  /** A person asked for it, not this plan. */
  readonly drainedByUser: boolean
  readonly slots: number
  /** Sandboxes that are there or on their way. */
  readonly used: number
  /** Finished sandboxes whose logs it still serves. */
  readonly records: number
  /** Why its node can't run sandboxes; undefined where it can, or where that is not known. */
  readonly runtimeProblem: string | undefined
}

/** What a plan is made from. */
export interface PoolFacts {
  readonly spec: SandboxPoolSpec
  readonly agents: ReadonlyArray<AgentFacts>
  /** Sandboxes that wait for a slot. */
  readonly pending: number
  /** Since when there has been a surplus, as the last plan said. */
  readonly surplusSince: number | undefined
  /** Pods in a row that never came up, and when the last one was given up. */
  readonly failures: { readonly count: number; readonly at: number }
  /** Milliseconds since the epoch. */
  readonly now: number
}

/** Why an agent is removed. */
export type RemovalReason = "Drained" | "NeverReady" | "PodFailed" | "Silent"

/** What is to be done. */
export interface PoolPlan {
  readonly create: number
  /** Agents that take nothing more from now on. */
  readonly drain: ReadonlyArray<AgentFacts>
  /** Agents whose drain is taken back, because they are needed after all. */
  readonly resume: ReadonlyArray<AgentFacts>
  readonly remove: ReadonlyArray<{ readonly agent: AgentFacts; readonly reason: RemovalReason }>
  /** Agents that are wanted. */
  readonly desired: number
  /** More were wanted than poolMax allows. */
  readonly limited: boolean
  readonly surplusSince: number | undefined
  /** When to plan again although nothing changes, in milliseconds since the epoch. */
  readonly wakeAt: number | undefined
}

const countsUntil = ({ since, state }: AgentFacts): number =>
  state === "ready" || state === "starting" ? Infinity : state === "silent" ? since + silenceGraceMillis : 0

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, number) => total + number, 0)

/** Those that cost least to lose first: the fewest sandboxes, then the fewest logs, then the youngest. */
const byLoss = (a: AgentFacts, b: AgentFacts): number =>
  a.used - b.used || a.records - b.records || b.createdAt - a.createdAt || a.pod.localeCompare(b.pod)

const drainedAt = ({ drain }: AgentFacts, now: number): number =>
  Option.getOrElse(Instant.parseMillis(drain), () => now)

const removals = ({ agents, now }: PoolFacts): PoolPlan["remove"] =>
  agents.flatMap((agent): PoolPlan["remove"] => {
    if (agent.state === "failed") {
      return [{ agent, reason: "PodFailed" }]
    }
    if (agent.used > 0 || agent.state === "terminating") {
      return []
    }
    if (agent.state === "starting" && now >= agent.since + startDeadlineMillis) {
      return [{ agent, reason: "NeverReady" }]
    }
    if (agent.state === "silent" && now >= agent.since + silenceDeadlineMillis) {
      return [{ agent, reason: "Silent" }]
    }
    const isDrained = agent.drain !== undefined &&
      (agent.state === "starting" || now >= drainedAt(agent, now) + drainQuietMillis)
    return isDrained ? [{ agent, reason: "Drained" }] : []
  })

/** When an agent that does not answer is given up. */
const deadlineOf = (agent: AgentFacts): number | undefined =>
  agent.state === "starting"
    ? agent.since + startDeadlineMillis
    : agent.state === "silent" && agent.used === 0
    ? agent.since + silenceDeadlineMillis
    : undefined

/** When an agent that was asked to drain is removed. */
const removalOf = (agent: AgentFacts, now: number): number | undefined =>
  agent.drain !== undefined && agent.used === 0 ? drainedAt(agent, now) + drainQuietMillis : undefined

/** Makes the plan. */
export const make = (facts: PoolFacts): PoolPlan => {
  const { failures, now, pending, spec } = facts
  const { bufferMax = 0, bufferMin = 0, poolMax = 0, poolMin = 0 } = spec.capacity ?? {}
  const slotsPerAgent = spec.maxSandboxesPerPod ?? defaults.maxSandboxesPerPod
  const most = poolMax === 0 ? Infinity : Math.max(poolMax, poolMin)

  const free = (agent: AgentFacts): number => now < countsUntil(agent) ? Math.max(0, agent.slots - agent.used) : 0

  const remove = removals(facts)
  const staying = facts.agents.filter((agent) =>
    agent.state !== "terminating" && !remove.some((removal) => removal.agent === agent)
  )
  const serving = staying.filter(({ drain }) => drain === undefined)
  const draining = staying.filter(({ drain }) => drain !== undefined)

  // What is missing, first from agents that were about to go, then as new Pods.
  const lacking = (agents: ReadonlyArray<AgentFacts>): number =>
    Math.max(
      Math.ceil(Math.max(0, bufferMin + pending - sum(agents.map(free))) / slotsPerAgent),
      poolMin - agents.length,
      0
    )
  const resume = draining.filter(({ current, drainedByUser, state }) => current && !drainedByUser && state === "ready")
    .toSorted((a, b) => b.used - a.used)
    .slice(0, Math.max(0, Math.min(lacking(serving), most - serving.length)))
  const kept = [...serving, ...resume]
  const missing = lacking(kept)
  // Agents that are being drained still exist; they count against the limit, or a replacement could double the pool.
  const allowed = Math.max(0, Math.min(missing, most - staying.length))

  // One agent of an older template at a time, the emptiest first, and only when the others can do without it.
  const outdated = kept.filter(({ current, state }) => !current && state === "ready").toSorted(byLoss)
  const [oldest] = outdated
  const others = kept.filter((agent) => agent !== oldest)
  const isReplacing = draining.some(({ current }) => !current) ||
    kept.some(({ current, state }) => current && state === "starting")
  const isDispensable = oldest !== undefined && lacking(others) === 0
  const hasSurge = staying.length + allowed < most
  const replaced = oldest !== undefined && allowed === 0 && !isReplacing && (isDispensable || !hasSurge) ? [oldest] : []
  const surge = oldest !== undefined && allowed === 0 && !isReplacing && !isDispensable && hasSurge ? 1 : 0
  // An agent of an older template that never came up is replaced without further ado.
  const stillborn = kept.filter(({ current, state }) => !current && state === "starting")

  // A surplus is an empty agent that neither the buffer nor the minimum needs.
  const spare = kept.filter((agent) => {
    const left = kept.filter((other) => other !== agent)
    const isIdle = agent.used === 0 && (agent.state === "ready" || agent.state === "starting") && agent.current
    return isIdle && left.length >= poolMin && sum(kept.map(free)) > Math.max(bufferMin, bufferMax) &&
      sum(left.map(free)) >= bufferMin + pending
  }).toSorted(byLoss)
  const hasSurplus = pending === 0 && outdated.length === 0 && missing === 0 && spare.length > 0
  const surplusSince = hasSurplus ? facts.surplusSince ?? now : undefined
  const isDue = surplusSince !== undefined && now >= surplusSince + surplusMillis
  const excess = kept.toSorted(byLoss).slice(0, Math.max(0, kept.length - most))
  const given = excess.length > 0 ? excess : isDue ? spare.slice(0, 1) : []

  const retryAt = failures.count === 0 ? 0 : failures.at + createBackoff.delayMillis(failures.count)
  // More Pods of a template whose runtime a node lacks would lack it, too.
  const isBlocked = kept.some(({ current, runtimeProblem }) => current && runtimeProblem !== undefined)
  const wanted = isBlocked ? 0 : allowed + surge
  const create = now >= retryAt ? Math.min(wanted, maxCreates) : 0
  const drain = [...new Set([...replaced, ...stillborn, ...given])]

  const wakes = [
    ...staying.map(deadlineOf),
    ...staying.map(countsUntil).filter(Number.isFinite),
    ...staying.map((agent) => removalOf(agent, now)),
    surplusSince === undefined ? undefined : surplusSince + surplusMillis,
    wanted > 0 ? retryAt : undefined
  ].filter((at) => at !== undefined && at > now).map(Number)

  return {
    create,
    drain,
    resume,
    remove,
    desired: kept.length - drain.length + wanted,
    limited: missing > allowed,
    surplusSince,
    wakeAt: wakes.length === 0 ? undefined : Math.min(...wakes)
  }
}
