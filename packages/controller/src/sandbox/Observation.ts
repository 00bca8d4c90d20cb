/**
 * What agents say, in the words of `core`: the bridge from their wire format to the state machine.
 */
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt"
import * as Assignment from "@fast-sandbox/core/Assignment"
import { AgentPresence, type ObservedInstance } from "@fast-sandbox/core/Decision"
import * as Instant from "@fast-sandbox/core/Instant"
import type { Sandbox, Startup } from "@fast-sandbox/core/Sandbox"
import { type Instance, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { refOf } from "@fast-sandbox/kube/KubeObject"
import * as Option from "effect/Option"
import type { AgentView } from "../agents/Agents.ts"

/** The sandbox that an instance says it belongs to, as a key `namespace/name`; none when it makes no sense. */
export const keyOf = ({ claim }: Instance): Option.Option<string> =>
  claim === undefined || claim.namespace === "" || claim.sandboxName === ""
    ? Option.none()
    : Option.some(`${claim.namespace}/${claim.sandboxName}`)

/**
 * The instances on an agent that say they belong to the sandbox `namespace/name`. Asked at every step for one sandbox of
 * the hundreds that an agent may hold, so it makes nothing for the others.
 */
export const instancesOf = (agent: AgentView, key: string): ReadonlyArray<Instance> => {
  const { name, namespace } = refOf(key)
  const found: Array<Instance> = []
  for (const instance of agent.instances.values()) {
    if (instance.claim?.sandboxName === name && instance.claim.namespace === namespace) {
      found.push(instance)
    }
  }
  return found
}

/** What is new or different, as it is now, and what is gone, as it was. Most looks at an agent find nothing moved. */
export const changed = (
  before: AgentView["instances"] | undefined,
  now: AgentView["instances"]
): ReadonlyArray<Instance> => {
  if (before === now) {
    return []
  }
  const found: Array<Instance> = []
  for (const [id, instance] of now) {
    if (before?.get(id) !== instance) {
      found.push(instance)
    }
  }
  for (const [id, instance] of before ?? []) {
    if (!now.has(id)) {
      found.push(instance)
    }
  }
  return found
}

/**
 * Whether an instance of the sandbox's name is the sandbox's own. Before it is bound the claim decides, afterwards the
 * resource's uid alone: annotations can be copied to another resource, uids can't.
 */
export const belongsTo = ({ claim }: Instance, sandbox: Sandbox): boolean =>
  claim !== undefined &&
  (claim.resourceUid === ""
    ? claim.claimUid === Assignment.claimUid(sandbox)
    : claim.resourceUid === sandbox.metadata.uid)

/** Whether an instance was bound to a resource that is not this one. */
export const isOrphan = ({ claim }: Instance, uid: string | undefined): boolean =>
  claim !== undefined && claim.resourceUid !== "" && claim.resourceUid !== uid

const stateOf = ({ state }: Instance): ObservedInstance["state"] => {
  switch (state) {
    case InstanceState.CREATING:
      return "Creating"
    case InstanceState.STOPPING:
      return "Stopping"
    case InstanceState.EXITED:
      return "Exited"
    // A state that this version does not know is one that it can't call ended.
    case InstanceState.RUNNING:
    case InstanceState.UNSPECIFIED:
    default:
      return "Running"
  }
}

const ages: ReadonlyArray<ObservedInstance["state"]> = ["Creating", "Running", "Stopping", "Exited"]

/** Of two descriptions of one instance the later one: an instance never goes back. */
export const later = (a: Instance, b: Instance): Instance => ages.indexOf(stateOf(b)) > ages.indexOf(stateOf(a)) ? b : a

const instant = (timestamp: Timestamp | undefined): string | undefined =>
  timestamp === undefined ? undefined : Instant.format(timestampMs(timestamp))

/** How an instance was started. */
export const startupOf = ({ startup }: Instance): Startup | undefined => {
  const tier = startup?.tier
  return startup !== undefined && (tier === "parked" || tier === "prepared" || tier === "cold")
    ? { tier, steps: startup.steps.map(({ millis, name }) => ({ name, millis })) }
    : undefined
}

/** An instance for the state machine. */
export const observe = (agent: AgentView, instance: Instance): ObservedInstance => ({
  instanceId: instance.instanceId,
  pod: agent.pod,
  podUid: agent.uid,
  node: agent.node,
  reachable: agent.connection === "synced",
  bound: (instance.claim?.resourceUid ?? "") !== "",
  state: stateOf(instance),
  reason: instance.reason,
  message: instance.message,
  exitCode: instance.exitCode,
  signal: instance.signal,
  createdAt: instant(instance.createdAt),
  startedAt: instant(instance.startedAt),
  finishedAt: instant(instance.finishedAt),
  startup: startupOf(instance),
  endpoints: instance.endpoints
})

/** What is known of an agent whose Pod exists. */
export const presenceOf = (agent: AgentView): AgentPresence =>
  agent.connection === "synced" ? AgentPresence.Synced() : AgentPresence.Silent({ sinceMillis: agent.since })
