/**
 * The slots and ports of one agent as the Registry counts them: what the agent itself shows, and on top of it what was
 * reserved and is not shown yet. An immutable value with pure steps; the Registry keeps it in a transactional cell.
 */
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { AgentView } from "../../agents/Agents.ts"
import * as Reservations from "./Reservations.ts"

/**
 * How long a confirmed reservation counts when the agent never shows its instance, in milliseconds. The agent shows
 * every instance within moments, unless it was created and removed while its stream was down.
 */
const handOverMillis = 10_000

/** What one agent has to give. */
export interface AgentSlots {
  readonly view: AgentView
  /** Taken slots, as the agent shows them. */
  readonly used: number
  /** Taken ports, as the agent shows them. */
  readonly ports: ReadonlySet<number>
  /** By instance id, the key of each sandbox whose instance holds a slot, as the agent shows them. */
  readonly live: ReadonlyMap<string, string>
  readonly pending: Reservations.Reservations
  /** Ports of `pending`; the same set for as long as they are the same. */
  readonly pendingPorts: ReadonlySet<number>
  /** Slots that may be reserved now; 0 for an agent that does not answer or is going away. */
  readonly free: number
}

/** The agent's own part. */
type Shown = Pick<AgentSlots, "view" | "used" | "ports" | "live">

const freeOf = ({ used, view }: Shown, pending: Reservations.Reservations): number =>
  view.connection === "synced" && !view.draining
    ? Math.max(0, view.slots - used - Reservations.sizeOf(pending))
    : 0

/** `known` are the keys of instances that were shown before: an instance never changes its name. */
const shownBy = (view: AgentView, known: AgentSlots["live"]): Shown => {
  const live = new Map<string, string>()
  const ports = new Set(view.portsUsed)
  for (const [instanceId, { claim, spec, state }] of view.instances) {
    if (state !== InstanceState.EXITED) {
      live.set(
        instanceId,
        known.get(instanceId) ?? Sandbox.key(claim?.namespace ?? "", claim?.sandboxName ?? "")
      )
      for (const port of spec?.exposedPorts ?? []) {
        ports.add(port)
      }
    }
  }
  // An instance and the slot that it takes may be told one after the other; the larger count is the later news.
  return { view, used: Math.max(view.slotsUsed, live.size), ports, live }
}

const noPorts: ReadonlySet<number> = new Set()
const nothingLive: AgentSlots["live"] = new Map()

const portsOf = (pending: Reservations.Reservations): ReadonlySet<number> => {
  const ports = Reservations.toArray(pending).flatMap(({ ports }) => ports)
  return ports.length === 0 ? noPorts : new Set(ports)
}

/** What an agent has to give that was not known before. */
export const ofView = (view: AgentView): AgentSlots => {
  const shown = shownBy(view, nothingLive)
  return { ...shown, pending: undefined, pendingPorts: noPorts, free: freeOf(shown, undefined) }
}

/** Takes in a newer view: reservations whose instances it shows are counted by the view from now on. */
export const observe = (self: AgentSlots, view: AgentView, now: number): AgentSlots => {
  const shown = shownBy(view, self.live)
  const pending = Reservations.filter(
    self.pending,
    ({ confirmedAt, instanceId }) =>
      !view.instances.has(instanceId) && (confirmedAt === undefined || now < confirmedAt + handOverMillis)
  )
  return {
    ...shown,
    pending,
    pendingPorts: pending === self.pending ? self.pendingPorts : portsOf(pending),
    free: freeOf(shown, pending)
  }
}

/** Whether a port is taken or promised. */
export const hasPort = ({ pendingPorts, ports }: AgentSlots, port: number): boolean =>
  ports.has(port) || pendingPorts.has(port)

/** Whether one more sandbox with these ports has room. */
export const fits = (self: AgentSlots, ports: ReadonlyArray<number>): boolean =>
  self.free > 0 && !ports.some((port) => hasPort(self, port))

/** Whether an instance counts here: reserved, confirmed or shown. */
export const holds = ({ live, pending }: AgentSlots, instanceId: string): boolean =>
  live.has(instanceId) || Reservations.find(pending, instanceId) !== undefined

/** Everything that counts here: instance ids, and the keys of their sandboxes. */
export const held = ({ live, pending }: AgentSlots): ReadonlyArray<readonly [instanceId: string, key: string]> => [
  ...live,
  ...Reservations.toArray(pending).map(({ instanceId, key }) => [instanceId, key] as const)
]

/** With one more reservation. */
export const reserve = (self: AgentSlots, reserved: Reservations.Reserved): AgentSlots => ({
  ...self,
  pending: Reservations.add(self.pending, reserved),
  pendingPorts: reserved.ports.length === 0 ? self.pendingPorts : new Set([...self.pendingPorts, ...reserved.ports]),
  free: self.free - 1
})

/** Without a reservation, if it still counts and was not confirmed. */
export const release = (self: AgentSlots, instanceId: string): AgentSlots => {
  const reserved = Reservations.find(self.pending, instanceId)
  if (reserved === undefined || reserved.confirmedAt !== undefined) {
    return self
  }
  const pending = Reservations.replace(self.pending, instanceId, undefined)
  return {
    ...self,
    pending,
    pendingPorts: reserved.ports.length === 0 ? self.pendingPorts : portsOf(pending),
    free: freeOf(self, pending)
  }
}

/** The agent has the instance: the reservation counts until the agent shows it. */
export const confirm = (self: AgentSlots, instanceId: string, now: number): AgentSlots => {
  const reserved = Reservations.find(self.pending, instanceId)
  return reserved === undefined
    ? self
    : { ...self, pending: Reservations.replace(self.pending, instanceId, { ...reserved, confirmedAt: now }) }
}

/** After the end of its agent: nothing to give, nothing that runs; what is being created there still holds its name. */
export const withoutAgent = (self: AgentSlots): AgentSlots => {
  const pending = Reservations.filter(self.pending, ({ confirmedAt }) => confirmedAt === undefined)
  return { ...self, live: nothingLive, pending, pendingPorts: portsOf(pending), free: 0 }
}
