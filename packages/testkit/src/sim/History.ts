/**
 * What happened in a simulation, in order: what users asked for and were told, what agents really did, what the API
 * really stored, and what was done to the system. Everything that is checked is checked against this.
 */
import type { Sandbox, SandboxStatus } from "@fast-sandbox/core/Sandbox"
import { epochMillis } from "./VirtualTime.ts"

/** Who an instance belongs to and where it is; what an agent really holds, whatever anybody is told. */
export interface InstanceFacts {
  readonly instanceId: string
  readonly agent: string
  readonly namespace: string
  readonly name: string
  readonly claimUid: string
  readonly resourceUid: string
  readonly ports: ReadonlyArray<number>
}

/** One thing that happened. */
export type Happening =
  /** A user asks for something; `call` numbers it. */
  | { readonly _tag: "Invoked"; readonly call: number; readonly what: string; readonly sandbox?: string | undefined }
  /** A user was told the outcome; none of it is true for calls that never were answered. */
  | { readonly _tag: "Answered"; readonly call: number; readonly ok: boolean; readonly what: string }
  /** A user was told that this sandbox exists now; identified by the claim or the resource that says so. */
  | { readonly _tag: "CreateAcknowledged"; readonly sandbox: string; readonly id: string }
  /** A user wants this sandbox gone; from here on its end is legal. */
  | { readonly _tag: "DeleteInvoked"; readonly sandbox: string }
  | { readonly _tag: "DeleteAcknowledged"; readonly sandbox: string; readonly id: string }
  /** The API stored an object, or none any more. */
  | { readonly _tag: "Stored"; readonly by: string; readonly before: Sandbox | undefined; readonly after: Sandbox }
  | { readonly _tag: "Removed"; readonly by: string; readonly sandbox: Sandbox }
  | { readonly _tag: "InstanceAdmitted"; readonly instance: InstanceFacts }
  | {
    readonly _tag: "InstanceBound"
    readonly agent: string
    readonly instanceId: string
    readonly resourceUid: string
  }
  | { readonly _tag: "InstanceEnded"; readonly agent: string; readonly instanceId: string; readonly why: string }
  | { readonly _tag: "InstanceForgotten"; readonly agent: string; readonly instanceId: string }
  | { readonly _tag: "AgentStarted"; readonly agent: string; readonly slots: number }
  /** Nobody reaches the agent, or somebody can again. */
  | { readonly _tag: "AgentSilent"; readonly agent: string }
  | { readonly _tag: "AgentReachable"; readonly agent: string }
  /** The agent and all that ran there is gone. */
  | { readonly _tag: "AgentGone"; readonly agent: string }
  | { readonly _tag: "ControllerStarted"; readonly term: number }
  | { readonly _tag: "ControllerCrashed"; readonly term: number }
  /** The controller ended by itself. */
  | { readonly _tag: "ControllerDied"; readonly term: number; readonly why: string }
  | { readonly _tag: "Healed" }
  | { readonly _tag: "Note"; readonly text: string }

/** A happening and when. */
export interface Entry {
  /** Milliseconds since the epoch. */
  readonly at: number
  readonly event: Happening
}

const key = ({ metadata: { name, namespace } }: Sandbox): string => `${namespace ?? ""}/${name ?? ""}`

const statusText = (status: SandboxStatus | undefined): string =>
  status?.phase === undefined
    ? "no phase"
    : [
      status.phase,
      status.sandboxID === undefined ? "" : `instance ${status.sandboxID.slice(0, 8)} on ${status.assignedPod ?? "?"}`,
      status.reason === undefined ? "" : `because ${status.reason}`,
      status.recovery?.nextAt === undefined ? "" : `recovery ${status.recovery.attempt} at ${status.recovery.nextAt}`
    ].filter((part) => part !== "").join(", ")

const storedText = (before: Sandbox | undefined, after: Sandbox): string => {
  const parts = [
    `${key(after)} (${after.metadata.uid ?? "?"}) at ${after.metadata.resourceVersion ?? "?"}: ${
      statusText(after.status)
    }`,
    before === undefined ? "created" : "",
    before?.metadata.generation === after.metadata.generation ? "" : `generation ${after.metadata.generation ?? "?"}`,
    after.metadata.deletionTimestamp === undefined ? "" : "being deleted",
    after.metadata.finalizers?.length === 0 || after.metadata.finalizers === undefined ? "no finalizer" : ""
  ]
  return parts.filter((part) => part !== "").join(", ")
}

const textOf = (event: Happening): string => {
  switch (event._tag) {
    case "Invoked":
      return `user: #${event.call} ${event.what}`
    case "Answered":
      return `user: #${event.call} ${event.ok ? "done" : "failed"}: ${event.what}`
    case "CreateAcknowledged":
      return `user: told that ${event.sandbox} exists (${event.id})`
    case "DeleteInvoked":
      return `user: wants ${event.sandbox} gone`
    case "DeleteAcknowledged":
      return `user: told that ${event.sandbox} is deleted (${event.id})`
    case "Stored":
      return `api: ${event.by}: ${storedText(event.before, event.after)}`
    case "Removed":
      return `api: ${event.by}: ${key(event.sandbox)} (${event.sandbox.metadata.uid ?? "?"}) removed`
    case "InstanceAdmitted": {
      const { agent, instanceId, name, namespace, ports, resourceUid } = event.instance
      return `agent ${agent}: instance ${
        instanceId.slice(0, 8)
      } of ${namespace}/${name} (${resourceUid}) ports [${ports}]`
    }
    case "InstanceBound":
      return `agent ${event.agent}: instance ${event.instanceId.slice(0, 8)} bound to ${event.resourceUid}`
    case "InstanceEnded":
      return `agent ${event.agent}: instance ${event.instanceId.slice(0, 8)} ended: ${event.why}`
    case "InstanceForgotten":
      return `agent ${event.agent}: instance ${event.instanceId.slice(0, 8)} forgotten`
    case "AgentStarted":
      return `agent ${event.agent}: started with ${event.slots} slots`
    case "AgentSilent":
    case "AgentReachable":
    case "AgentGone":
      return `agent ${event.agent}: ${event._tag.slice("Agent".length).toLowerCase()}`
    case "ControllerStarted":
      return `controller ${event.term}: started`
    case "ControllerCrashed":
      return `controller ${event.term}: killed`
    case "ControllerDied":
      return `controller ${event.term}: died by itself: ${event.why}`
    case "Healed":
      return "no more faults from here on"
    case "Note":
      return event.text
  }
}

/** The record of one simulation. Readers may listen to what is added. */
export class History {
  readonly entries: Array<Entry> = []
  private readonly listeners: Array<(entry: Entry) => void> = []
  private readonly now: () => number

  constructor(now: () => number) {
    this.now = now
  }

  add(event: Happening): void {
    const entry: Entry = { at: this.now(), event }
    this.entries.push(entry)
    for (const listener of this.listeners) {
      listener(entry)
    }
  }

  note(text: string): void {
    this.add({ _tag: "Note", text })
  }

  onAdd(listener: (entry: Entry) => void): void {
    this.listeners.push(listener)
  }
}

/** An entry in one line: seconds since the start, and what happened. */
export const format = ({ at, event }: Entry): string =>
  `${((at - epochMillis) / 1000).toFixed(3).padStart(9)} ${textOf(event)}`
