/**
 * How the view of one agent follows what the agent says and what its Pod shows. Pure: each step gives a new view, the
 * maps of the one before are never touched.
 */
import { agentAppLabel, drainAnnotation, poolLabel } from "@fast-sandbox/core/Names"
import type {
  AgentState,
  Capacity,
  Image,
  Instance,
  WarmImages,
  WatchResponse
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { Pod } from "@fast-sandbox/kube/Kinds"
import type { AgentChange, AgentView } from "../Agents.ts"

/** Selects the Pods in which agents run. */
export const podSelector = `${agentAppLabel.key}=${agentAppLabel.value}`

/** What is known of an agent when only its Pod is known. */
export const ofPod = ({ metadata, spec }: Pod, now: number): AgentView => ({
  uid: metadata.uid,
  pod: metadata.name,
  namespace: metadata.namespace ?? "",
  pool: metadata.labels?.[poolLabel] ?? "",
  node: spec.nodeName ?? "",
  connection: "connecting",
  since: now,
  draining: false,
  slots: 0,
  slotsUsed: 0,
  portsUsed: new Set(),
  capacityRevision: 0n,
  instances: new Map(),
  images: new Map(),
  parked: new Map(),
  warmImages: [],
  runtimeNotes: [],
  runtimeProblem: undefined
})

/** Whether the Pod itself says that its agent is going away. */
export const isPodDraining = ({ metadata }: Pod): boolean =>
  metadata.deletionTimestamp !== undefined || (metadata.annotations?.[drainAnnotation] ?? "false") !== "false"

/** What a batch of an agent's messages makes of its view. `saidDraining`: the last word of the agent on that. */
export interface Followed {
  readonly view: AgentView
  readonly saidDraining: boolean | undefined
  readonly changes: ReadonlyArray<AgentChange>
}

/** The change that one instance makes. */
export const instanceChange = (uid: string, { claim, instanceId }: Instance): AgentChange => ({
  _tag: "InstanceChanged",
  uid,
  instanceId,
  namespace: claim?.namespace ?? "",
  sandboxName: claim?.sandboxName ?? ""
})

/** The view after one more description of an instance. */
export const withInstance = (view: AgentView, instance: Instance): AgentView => ({
  ...view,
  instances: new Map(view.instances).set(instance.instanceId, instance)
})

/** The view without an instance, and with the room that its agent said to have left, where it said so. */
export const withoutInstance = (view: AgentView, instanceId: string, capacity: Capacity | undefined): AgentView => {
  const instances = new Map(view.instances)
  instances.delete(instanceId)
  const left = { ...view, instances }
  return capacity === undefined || isOutdated(left, capacity) ? left : withCapacity(left, capacity)
}

/** Of two descriptions of an instance the one that is further on counts: an instance never goes back. */
export const isOlder = (instance: Instance, known: Instance | undefined): boolean =>
  known !== undefined && known.state > instance.state

/** Whether the agent has said something later about its room; an answer may overtake what its stream tells. */
const isOutdated = ({ capacityRevision }: AgentView, { revision }: Pick<Capacity, "revision">): boolean =>
  revision < capacityRevision

const withCapacity = (
  view: AgentView,
  { parked, portsUsed, revision, slots, slotsUsed }: Pick<
    Capacity,
    "parked" | "portsUsed" | "revision" | "slots" | "slotsUsed"
  >
): AgentView => ({
  ...view,
  slots,
  slotsUsed,
  capacityRevision: revision,
  portsUsed: new Set(portsUsed),
  parked: new Map(parked.map((image) => [image.image, image]))
})

const noCapacity = { slots: 0, slotsUsed: 0, portsUsed: [], parked: [], revision: 0n }

const withWarm = (view: AgentView, warm: WarmImages | undefined): AgentView => ({
  ...view,
  warmImages: (warm?.images ?? []).map(({ image, parked }) => ({ image, parked }))
})

const withState = (
  view: AgentView,
  { capacity, nodeName, runtimeNotes, runtimeProblem, warm }: AgentState,
  now: number
): AgentView => ({
  ...withWarm(withCapacity(view, capacity ?? noCapacity), warm),
  node: nodeName === "" ? view.node : nodeName,
  connection: "synced",
  since: now,
  runtimeNotes,
  runtimeProblem: runtimeProblem === "" ? undefined : runtimeProblem
})

/**
 * Takes in messages in their order; an answer may have told already what they tell, also that an instance is `removed`,
 * which never comes back. The maps are copied once for each batch, however many messages touch them.
 */
export const follow = (
  view: AgentView,
  messages: ReadonlyArray<WatchResponse>,
  now: number,
  removed: Pick<ReadonlySet<string>, "has">
): Followed => {
  let next = view
  let saidDraining: boolean | undefined
  let instances: Map<string, Instance> | undefined
  let images: Map<string, Image> | undefined
  const changed = new Map<string, AgentChange>()
  const agentChanged = () => changed.set("", { _tag: "AgentChanged", uid: view.uid })
  for (const { event } of messages) {
    switch (event.case) {
      case "state": {
        const { capacity } = event.value
        instances = new Map(event.value.instances.map((instance) => [instance.instanceId, instance]))
        images = new Map(event.value.images.map((image) => [image.name, image]))
        next = withState(next, event.value, now)
        saidDraining = capacity?.draining ?? false
        agentChanged()
        break
      }
      case "instanceChanged": {
        const instance = event.value
        if (
          removed.has(instance.instanceId) || isOlder(instance, (instances ?? next.instances).get(instance.instanceId))
        ) {
          break
        }
        instances ??= new Map(next.instances)
        instances.set(instance.instanceId, instance)
        changed.set(instance.instanceId, instanceChange(view.uid, instance))
        break
      }
      case "instanceRemoved": {
        const { instanceId } = event.value
        instances ??= new Map(next.instances)
        const instance = instances.get(instanceId)
        if (instance !== undefined) {
          instances.delete(instanceId)
          changed.set(instanceId, instanceChange(view.uid, instance))
        }
        break
      }
      case "capacityChanged": {
        if (isOutdated(next, event.value)) {
          break
        }
        next = withCapacity(next, event.value)
        saidDraining = event.value.draining
        agentChanged()
        break
      }
      case "imageAdded":
        images ??= new Map(next.images)
        images.set(event.value.name, event.value)
        agentChanged()
        break
      case "imageRemoved":
        images ??= new Map(next.images)
        images.delete(event.value.name)
        agentChanged()
        break
      case "warmChanged":
        next = withWarm(next, event.value)
        agentChanged()
        break
      case "heartbeat":
      case undefined:
        break
    }
  }
  return {
    view: instances === undefined && images === undefined
      ? next
      : { ...next, instances: instances ?? next.instances, images: images ?? next.images },
    saidDraining,
    changes: [...changed.values()]
  }
}
