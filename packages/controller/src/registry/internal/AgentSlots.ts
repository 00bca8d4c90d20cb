/**
 * The slots and ports of one agent as the Registry counts them: what the agent itself shows, and on top of it what was
 * reserved and is not shown yet. An immutable value with pure steps; the Registry keeps it in a transactional cell.
 */
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Option from "effect/Option"
import type { AgentView } from "../../agents/Agents.ts"

/**
 * How long a confirmed reservation counts when the agent never shows its instance, in milliseconds. The agent shows
 * every instance within moments, unless it was created and removed while its stream was down.
 */
const handOverMillis = 10_000

/** What was reserved on an agent and is not shown by it yet. */
export interface Pending {
  readonly instanceId: string
  /** `namespace/name` of the sandbox. */
  readonly key: string
  readonly ports: ReadonlyArray<number>
  /** When the agent said that it has the instance, in milliseconds since the epoch. */
  readonly confirmedAt: number | undefined
}

/** What one agent has to give. */
export interface AgentSlots {
  readonly view: AgentView
  /** Taken slots, as the agent shows them. */
  readonly used: number
  /** Taken ports, as the agent shows them. */
  readonly ports: ReadonlySet<number>
  /** By instance id, the key of each sandbox whose instance holds a slot, as the agent shows them. */
  readonly live: ReadonlyMap<string, string>
  /** By instance id. */
  readonly pending: HashMap.HashMap<string, Pending>
  /** Ports of `pending`. */
  readonly pendingPorts: HashSet.HashSet<number>
  /** Slots that may be reserved now; 0 for an agent that does not answer or is going away. */
  readonly free: number
}

/** The agent's own part. */
type Shown = Pick<AgentSlots, "view" | "used" | "ports" | "live">

const freeOf = ({ used, view }: Shown, pending: HashMap.HashMap<string, Pending>): number =>
  view.connection === "synced" && !view.draining
    ? Math.max(0, view.slots - used - HashMap.size(pending))
    : 0

const shownBy = (view: AgentView): Shown => {
  const live = new Map<string, string>()
  const ports = new Set(view.portsUsed)
  for (const [instanceId, { claim, spec, state }] of view.instances) {
    if (state !== InstanceState.EXITED) {
      live.set(instanceId, Sandbox.key(claim?.namespace ?? "", claim?.sandboxName ?? ""))
      for (const port of spec?.exposedPorts ?? []) {
        ports.add(port)
      }
    }
  }
  // An instance and the slot that it takes may be told one after the other; the larger count is the later news.
  return { view, used: Math.max(view.slotsUsed, live.size), ports, live }
}

const portsOf = (pending: HashMap.HashMap<string, Pending>): HashSet.HashSet<number> =>
  HashSet.fromIterable(HashMap.toValues(pending).flatMap(({ ports }) => ports))

const noPending: HashMap.HashMap<string, Pending> = HashMap.empty()

/** What an agent has to give that was not known before. */
export const ofView = (view: AgentView): AgentSlots => {
  const shown = shownBy(view)
  return {
    ...shown,
    pending: noPending,
    pendingPorts: HashSet.empty(),
    free: freeOf(shown, noPending)
  }
}

/** Takes in a newer view: reservations whose instances it shows are counted by the view from now on. */
export const observe = (self: AgentSlots, view: AgentView, now: number): AgentSlots => {
  const shown = shownBy(view)
  const pending = HashMap.filter(
    self.pending,
    ({ confirmedAt, instanceId }) =>
      !view.instances.has(instanceId) && (confirmedAt === undefined || now < confirmedAt + handOverMillis)
  )
  const handedOver = HashMap.size(pending) !== HashMap.size(self.pending)
  return {
    ...shown,
    pending: handedOver ? pending : self.pending,
    pendingPorts: handedOver ? portsOf(pending) : self.pendingPorts,
    free: freeOf(shown, pending)
  }
}

/** Whether a port is taken or promised. */
export const hasPort = ({ pendingPorts, ports }: AgentSlots, port: number): boolean =>
  ports.has(port) || HashSet.has(pendingPorts, port)

/** Whether one more sandbox with these ports has room. */
export const fits = (self: AgentSlots, ports: ReadonlyArray<number>): boolean =>
  self.free > 0 && !ports.some((port) => hasPort(self, port))

/** Whether an instance counts here: reserved, confirmed or shown. */
export const holds = ({ live, pending }: AgentSlots, instanceId: string): boolean =>
  live.has(instanceId) || HashMap.has(pending, instanceId)

/** With one more reservation. */
export const reserve = (self: AgentSlots, reservation: Pending): AgentSlots => ({
  ...self,
  pending: HashMap.set(self.pending, reservation.instanceId, reservation),
  pendingPorts: reservation.ports.reduce((ports, port) => HashSet.add(ports, port), self.pendingPorts),
  free: self.free - 1
})

/** Without a reservation, if it still counts and was not confirmed. */
export const release = (self: AgentSlots, instanceId: string): AgentSlots => {
  const reservation = HashMap.get(self.pending, instanceId)
  if (Option.isNone(reservation) || reservation.value.confirmedAt !== undefined) {
    return self
  }
  const pending = HashMap.remove(self.pending, instanceId)
  return {
    ...self,
    pending,
    pendingPorts: reservation.value.ports.reduce((ports, port) => HashSet.remove(ports, port), self.pendingPorts),
    free: freeOf(self, pending)
  }
}

/** The agent has the instance: the reservation counts until the agent shows it. */
export const confirm = (self: AgentSlots, instanceId: string, now: number): AgentSlots => {
  const reservation = HashMap.get(self.pending, instanceId)
  return Option.isNone(reservation) ? self : {
    ...self,
    pending: HashMap.set(self.pending, instanceId, { ...reservation.value, confirmedAt: now })
  }
}

/** After the end of its agent: nothing to give, nothing that runs; what is being created there still holds its name. */
export const withoutAgent = (self: AgentSlots): AgentSlots => {
  const pending = HashMap.filter(self.pending, ({ confirmedAt }) => confirmedAt === undefined)
  return { ...self, live: new Map(), pending, pendingPorts: portsOf(pending), free: 0 }
}
