/**
 * What must hold in every history, whatever went wrong. Each invariant is a small machine that reads the history as it
 * is written and says at once what broke; {@link Census} looks at the world when all has come to rest.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Lifecycle from "@fast-sandbox/core/Lifecycle"
import { defaults, type Sandbox, terminalPhases } from "@fast-sandbox/core/Sandbox"
import type { Entry, History, InstanceFacts } from "./History.ts"

/** A broken invariant. */
export interface Violation {
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly invariant: string
  readonly problem: string
}

/** Reads entries; answers with what is wrong now. */
type Machine = (entry: Entry) => string | undefined

const key = ({ metadata: { name, namespace } }: Sandbox): string => `${namespace ?? ""}/${name ?? ""}`

const short = (instanceId: string): string => instanceId.slice(0, 8)

/** An agent that could be reached for so long was seen by everybody who cares, in milliseconds. */
const noticedMillis = 15_000

/** The clocks of those who count a silence start when they notice it; they may be early by the ways of messages. */
const silenceSlackMillis = 1_000

/** Since when each agent could not be reached for long enough that anybody had to notice its return. */
class Reachability {
  private readonly states = new Map<string, { reachable: boolean; since: number; silentSince: number }>()

  take({ at, event }: Entry): void {
    switch (event._tag) {
      case "AgentStarted":
        this.states.set(event.agent, { reachable: true, since: at, silentSince: at })
        break
      case "AgentSilent": {
        const state = this.states.get(event.agent)
        if (state !== undefined && state.reachable) {
          const wasNoticed = at - state.since >= noticedMillis
          this.states.set(event.agent, {
            reachable: false,
            since: at,
            silentSince: wasNoticed ? at : state.silentSince
          })
        }
        break
      }
      case "AgentReachable": {
        const state = this.states.get(event.agent)
        if (state !== undefined && !state.reachable) {
          this.states.set(event.agent, { reachable: true, since: at, silentSince: state.silentSince })
        }
        break
      }
      default:
    }
  }

  /** For how long nobody may have heard of the agent, in milliseconds. */
  silentFor(agent: string, now: number): number {
    const state = this.states.get(agent)
    return state === undefined || (state.reachable && now - state.since >= noticedMillis) ? 0 : now - state.silentSince
  }
}

/**
 * At most one instance of a sandbox lives at any time. The exceptions are those that the design makes: while the agent
 * of the old one is silent beyond the recovery timeout, a successor may be started elsewhere; and a start that was still
 * on its way when a user wiped the status that named it is known to nobody until it arrives, and ended then.
 */
const atMostOneLive = (): Machine => {
  const live = new Map<string, InstanceFacts>()
  const admitted = new Set<string>()
  /** Named by nothing but a status that was wiped before they arrived. */
  const forgotten = new Set<string>()
  const reachability = new Reachability()
  const timeouts = new Map<string, number>()
  return (entry) => {
    const { at, event } = entry
    reachability.take(entry)
    switch (event._tag) {
      case "Stored": {
        const timeout = event.after.spec.recoveryTimeoutSeconds ?? defaults.recoveryTimeoutSeconds
        const id = Assignment.claimUid(event.after)
        timeouts.set(id, Math.min(timeout * 1000, timeouts.get(id) ?? Infinity))
        const named = event.before?.status?.sandboxID
        if (event.by === "user" && named !== undefined && event.after.status?.sandboxID === undefined) {
          if (!admitted.has(named)) {
            forgotten.add(named)
          }
        }
        return undefined
      }
      case "InstanceEnded":
        live.delete(event.instanceId)
        return undefined
      case "InstanceAdmitted": {
        const { instance } = event
        const timeout = timeouts.get(instance.claimUid) ?? defaults.recoveryTimeoutSeconds * 1000
        const other = [...live.values()].find((other) =>
          other.claimUid === instance.claimUid && other.instanceId !== instance.instanceId &&
          !forgotten.has(other.instanceId) && !forgotten.has(instance.instanceId) &&
          reachability.silentFor(other.agent, at) + silenceSlackMillis < timeout
        )
        live.set(instance.instanceId, instance)
        admitted.add(instance.instanceId)
        return other === undefined
          ? undefined
          : `${instance.namespace}/${instance.name} has instance ${short(other.instanceId)} on ${other.agent} and ${
            short(instance.instanceId)
          } on ${instance.agent} at once`
      }
      default:
        return undefined
    }
  }
}

/** No agent holds more instances than it has slots, and gives no port twice. */
const withinCapacity = (): Machine => {
  const slots = new Map<string, number>()
  const live = new Map<string, Map<string, ReadonlyArray<number>>>()
  return ({ event }) => {
    switch (event._tag) {
      case "AgentStarted":
        slots.set(event.agent, event.slots)
        return undefined
      case "InstanceEnded":
        live.get(event.agent)?.delete(event.instanceId)
        return undefined
      case "InstanceAdmitted": {
        const { agent, instanceId, ports } = event.instance
        const holders = live.get(agent) ?? new Map<string, ReadonlyArray<number>>()
        live.set(agent, holders)
        const port = [...holders.values()].flat().find((port) => ports.includes(port))
        holders.set(instanceId, ports)
        return holders.size > (slots.get(agent) ?? 0)
          ? `agent ${agent} holds ${holders.size} instances in ${slots.get(agent) ?? 0} slots`
          : port === undefined
          ? undefined
          : `agent ${agent} gave port ${port} twice`
      }
      default:
        return undefined
    }
  }
}

/** An instance id stands for one start on one agent. */
const freshInstances = (): Machine => {
  const agents = new Map<string, string>()
  return ({ event }) => {
    if (event._tag !== "InstanceAdmitted") {
      return undefined
    }
    const { agent, instanceId } = event.instance
    const first = agents.get(instanceId)
    agents.set(instanceId, agent)
    return first === undefined || first === agent
      ? undefined
      : `instance ${short(instanceId)} was started on ${first} and on ${agent}`
  }
}

/** A delete that was asked for may reach its sandbox, or the next one of the name, for so long, in milliseconds. */
const deleteReachMillis = 45_000

/** What users were told and what they want gone, by claim uid. */
class Promises {
  /** Acknowledged creates: the sandbox's key, and when. */
  readonly acknowledged = new Map<string, { readonly sandbox: string; readonly at: number }>()
  /** Sandboxes that a delete was meant for, or may have hit. */
  readonly unwanted = new Set<string>()
  private readonly current = new Map<string, Set<string>>()
  private readonly deleting = new Map<string, number>()

  take({ at, event }: Entry): void {
    switch (event._tag) {
      case "CreateAcknowledged":
        this.acknowledged.set(event.id, { sandbox: event.sandbox, at })
        this.exists(event.sandbox, event.id, at)
        break
      case "Stored":
        if (event.before === undefined) {
          this.exists(key(event.after), Assignment.claimUid(event.after), at)
        }
        break
      case "InstanceAdmitted":
        this.exists(`${event.instance.namespace}/${event.instance.name}`, event.instance.claimUid, at)
        break
      case "DeleteInvoked":
        this.deleting.set(event.sandbox, at)
        for (const id of this.current.get(event.sandbox) ?? []) {
          this.unwanted.add(id)
        }
        break
      default:
    }
  }

  private exists(sandbox: string, id: string, at: number): void {
    const ids = this.current.get(sandbox) ?? new Set<string>()
    this.current.set(sandbox, ids.add(id))
    const deletedAt = this.deleting.get(sandbox)
    if (deletedAt !== undefined && at < deletedAt + deleteReachMillis) {
      this.unwanted.add(id)
    }
  }
}

/** What a user was told to exist exists until a user wants it gone. */
const nothingLost = (): Machine => {
  const promises = new Promises()
  return (entry) => {
    promises.take(entry)
    const { event } = entry
    if (event._tag !== "Removed") {
      return undefined
    }
    const id = Assignment.claimUid(event.sandbox)
    return promises.acknowledged.has(id) && !promises.unwanted.has(id)
      ? `${key(event.sandbox)} (${id}) was acknowledged, nobody deleted it, and ${event.by} removed it`
      : undefined
  }
}

/** How late the cache of a replica that acknowledges a create may be, in milliseconds: a name may be taken by then. */
const cacheLagMillis = 10_000

/**
 * Acknowledged creates whose resource was never written although nothing speaks against it: nobody wants them gone, no
 * other sandbox took the name, and not both the agent and the controller that knew of them were lost.
 */
export const neverWritten = ({ entries }: Pick<History, "entries">): ReadonlyArray<string> => {
  const promises = new Promises()
  const stored = new Map<string, number>()
  const written = new Set<string>()
  const homes = new Map<string, string>()
  const gone = new Set<string>()
  for (const entry of entries) {
    promises.take(entry)
    const { at, event } = entry
    if (event._tag === "Stored") {
      written.add(Assignment.claimUid(event.after))
      stored.set(key(event.after), at)
    } else if (event._tag === "InstanceAdmitted") {
      homes.set(event.instance.claimUid, event.instance.agent)
    } else if (event._tag === "AgentGone") {
      gone.add(event.agent)
    }
  }
  return Array.from(promises.acknowledged).flatMap(([id, { at, sandbox }]) =>
    written.has(id) || promises.unwanted.has(id) || (stored.get(sandbox) ?? -Infinity) >= at - cacheLagMillis ||
      gone.has(homes.get(id) ?? "")
      ? []
      : [`${sandbox} (${id}) was acknowledged and never written`]
  )
}

/** What was deleted does not come back: neither its resource nor, once that is gone, an instance that is bound to it. */
const nothingReturns = (): Machine => {
  const removed = new Map<string, string>()
  return ({ event }) => {
    switch (event._tag) {
      case "Removed":
        removed.set(Assignment.claimUid(event.sandbox), event.sandbox.metadata.uid ?? "")
        return undefined
      case "Stored": {
        const uid = removed.get(Assignment.claimUid(event.after))
        return uid === undefined || event.before !== undefined
          ? undefined
          : `${key(event.after)} was deleted as ${uid} and came back as ${event.after.metadata.uid ?? ""}`
      }
      default:
        return undefined
    }
  }
}

const isControllers = (by: string): boolean => by.startsWith("controller")

/** A terminal phase that a controller writes says why. */
const reasonsGiven = (): Machine => ({ event }) => {
  if (event._tag !== "Stored" || !isControllers(event.by)) {
    return undefined
  }
  const { conditions, message, phase, reason } = event.after.status ?? {}
  if (phase === undefined || !terminalPhases.has(phase) || phase === event.before?.status?.phase) {
    return undefined
  }
  const ready = conditions?.find(({ type }) => type === "Ready")
  return (reason ?? "") === "" && (message ?? "") === ""
    ? `${key(event.after)} is ${phase} without a reason`
    : ready === undefined || ready.status === "True" || ready.reason === ""
    ? `${key(event.after)} is ${phase} and its condition Ready does not say why`
    : undefined
}

/** Controllers move a sandbox along legal transitions only. */
const legalMoves = (): Machine => ({ event }) => {
  if (event._tag !== "Stored" || !isControllers(event.by)) {
    return undefined
  }
  const from = event.before?.status?.phase
  const to = event.after.status?.phase
  return to === undefined
    ? from === undefined ? undefined : `${key(event.after)} lost its phase ${from}`
    : Lifecycle.isLegal(from, to)
    ? undefined
    : `${key(event.after)} went from ${from ?? "nothing"} to ${to}`
}

/** A controller ends only when it is killed. */
const controllersLive = (): Machine => ({ event }) =>
  event._tag === "ControllerDied" ? `controller ${event.term} ended by itself: ${event.why}` : undefined

/** Every invariant that a history is held against, by name. */
export const invariants: { readonly [name: string]: () => Machine } = {
  "at most one live instance": atMostOneLive,
  "slots and ports within capacity": withinCapacity,
  "an instance id is started once": freshInstances,
  "nothing acknowledged is lost": nothingLost,
  "nothing deleted returns": nothingReturns,
  "every terminal state has a reason": reasonsGiven,
  "legal transitions": legalMoves,
  "controllers live until they are killed": controllersLive
}

/** Holds a history against all invariants while it is written; violations are collected. */
export const watch = (history: History): ReadonlyArray<Violation> => {
  const violations: Array<Violation> = []
  const machines = Object.entries(invariants).map(([invariant, make]) => ({ invariant, machine: make() }))
  history.onAdd((entry) => {
    for (const { invariant, machine } of machines) {
      const problem = machine(entry)
      if (problem !== undefined) {
        violations.push({ at: entry.at, invariant, problem })
      }
    }
  })
  return violations
}

/** Holds a finished history against one invariant. */
export const check = (invariant: string, events: ReadonlyArray<Entry>): ReadonlyArray<string> => {
  const machine = invariants[invariant]?.()
  return machine === undefined
    ? [`there is no invariant ${invariant}`]
    : events.flatMap((entry) => machine(entry) ?? [])
}

// ---------------------------------------------------------------------------------------------------------------------
// rest

/** An instance as an agent really has it. */
export interface HeldInstance {
  readonly instanceId: string
  readonly agent: string
  readonly live: boolean
  readonly claimUid: string
  readonly resourceUid: string
  readonly sandbox: string
}

/** What is there when all has come to rest. */
export interface Census {
  readonly now: number
  readonly sandboxes: ReadonlyArray<Sandbox>
  readonly instances: ReadonlyArray<HeldInstance>
  /** Of each pool (`namespace/name`) that exists: free slots that its agents really have, ports aside. */
  readonly freeSlots: ReadonlyMap<string, number>
  /** What a controller counts as free. */
  readonly countedFree: ReadonlyMap<string, number>
  /** Keys of sandboxes that a user pinned by a finalizer of their own. */
  readonly pinned: ReadonlySet<string>
}

/** Phases in which a sandbox may stay for ever. */
const restful = new Set(["Running", ...terminalPhases])

const sandboxAtRest = (census: Census, sandbox: Sandbox): string | undefined => {
  const { metadata, spec, status } = sandbox
  const name = key(sandbox)
  const own = census.instances.filter(({ resourceUid }) => resourceUid === metadata.uid)
  const live = own.filter((instance) => instance.live)
  const phase = status?.phase
  if (metadata.deletionTimestamp !== undefined) {
    return census.pinned.has(name) ? undefined : `${name} is still being deleted (${phase ?? "no phase"})`
  }
  if (phase === "Pending") {
    const free = census.freeSlots.get(`${metadata.namespace ?? ""}/${spec.poolRef}`)
    return free === undefined || free === 0 || (spec.exposedPorts ?? []).length > 0
      ? undefined
      : `${name} waits although pool ${spec.poolRef} has ${free} free slots`
  }
  if (phase === undefined || !restful.has(phase)) {
    return `${name} is stuck in ${phase ?? "no phase"}`
  }
  if (phase === "Running") {
    const [instance] = live
    return live.length !== 1 || instance?.instanceId !== status?.sandboxID
      ? `${name} is Running as ${short(status?.sandboxID ?? "?")} but has live instances [${
        live.map(({ instanceId }) => short(instanceId))
      }]`
      : own.length > 1
      ? `${name} has records of ${own.length} instances`
      : undefined
  }
  return live.length > 0 ? `${name} is ${phase} but instance ${short(live[0]?.instanceId ?? "")} lives` : undefined
}

/** What is not as the API says. */
export const atRest = (census: Census): ReadonlyArray<Violation> => {
  const uids = new Set(census.sandboxes.map(({ metadata }) => metadata.uid))
  const problems = [
    ...census.sandboxes.map((sandbox) => sandboxAtRest(census, sandbox)),
    ...census.instances.map(({ agent, instanceId, live, resourceUid, sandbox }) =>
      uids.has(resourceUid)
        ? undefined
        : `${live ? "live" : "ended"} instance ${short(instanceId)} of ${sandbox} on ${agent} belongs to ${
          resourceUid === "" ? "no resource" : `resource ${resourceUid}, which is gone`
        }`
    ),
    ...Array.from(census.freeSlots, ([pool, free]) => {
      const counted = census.countedFree.get(pool)
      return counted === undefined || counted === free
        ? undefined
        : `pool ${pool} has ${free} free slots, the Registry counts ${counted}`
    })
  ]
  return problems.flatMap((problem) =>
    problem === undefined ? [] : [{ at: census.now, invariant: "at rest the world is what the API says", problem }]
  )
}
