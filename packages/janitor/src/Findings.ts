/**
 * What on a node belongs to nobody, as a pure function of what the node has, what the API says, and since when it has
 * looked so. Nothing is removed on a first look: a finding waits until it was seen again after {@link confirmMillis}, or
 * until there is positive evidence, and everything is spared while the API has not answered.
 *
 * Names are no evidence, uids are: they never come back. What can still change (an instance that is not bound yet) is
 * left for much longer.
 */
import type * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import type { OwnedContainer } from "@fast-sandbox/containerd/OwnedContainer"
import * as Sandbox from "@fast-sandbox/core/Sandbox"

/** For how long a finding must have been true before it is acted on, in milliseconds: longer than any step of an agent. */
export const confirmMillis = 60_000

/**
 * For how long an instance without a resource is left to be adopted, in milliseconds. It was acknowledged to its user,
 * and a controller that is down for a night brings it back in the morning.
 */
export const adoptionMillis = 24 * 60 * 60 * 1000

/** Instances have random UUIDs as ids, anchors their agent's name and a random part: nothing else on a node is named so. */
const ownIdPattern = /^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|.+-anchor-\d+-[0-9a-f]{8})$/

/** Whether a cgroup or a log directory of this name can be ours. */
export const isOwnId = (id: string): boolean => ownIdPattern.test(id)

/** A lease of ours, by its name or its labels. */
export interface OwnedLease {
  readonly id: string
  /** `undefined`: it never expires. */
  readonly expiresAtMillis: number | undefined
}

/** A cgroup below ours. `isPopulated`: processes run in it. */
export interface OwnCgroup {
  readonly name: string
  readonly isPopulated: boolean
}

/** The state of an agent: a directory named after its Pod, and what the names of its networks begin with. */
export interface AgentDirectory {
  readonly name: string
  readonly networkKey: string
}

/** What a node has. `containerIds` and `taskIds` are everybody's, the rest is ours. */
export interface NodeState {
  readonly containerIds: ReadonlySet<string>
  readonly taskIds: ReadonlySet<string>
  readonly containers: ReadonlyArray<OwnedContainer>
  /** Ids of the containers that running shims were started for. */
  readonly shims: ReadonlyArray<string>
  /** Names of writable snapshots with our label. */
  readonly snapshots: ReadonlyArray<string>
  readonly leases: ReadonlyArray<OwnedLease>
  readonly networkNamespaces: ReadonlyArray<NetworkNamespaces.Named>
  readonly links: ReadonlyArray<NetworkNamespaces.Named>
  /** nftables' tables. */
  readonly tables: ReadonlyArray<NetworkNamespaces.Named>
  readonly cgroups: ReadonlyArray<OwnCgroup>
  /** Names of directories below our log directory. */
  readonly logDirectories: ReadonlyArray<string>
  readonly agentDirectories: ReadonlyArray<AgentDirectory>
}

/** A node on which there is nothing. */
export const emptyNode: NodeState = {
  containerIds: new Set(),
  taskIds: new Set(),
  containers: [],
  shims: [],
  snapshots: [],
  leases: [],
  networkNamespaces: [],
  links: [],
  tables: [],
  cgroups: [],
  logDirectories: [],
  agentDirectories: []
}

/** A Sandbox as far as it matters here. `uid` is `undefined` when the resource exists but can't be read. */
export interface KnownSandbox {
  readonly uid: string | undefined
  readonly claimUid: string | undefined
  readonly instanceId: string | undefined
}

/** What the API says. Only a complete and current answer is one. */
export type ApiState =
  | { readonly _tag: "Unanswered"; readonly problem: string }
  | {
    readonly _tag: "Answered"
    /** Names of this node's Pods by uid. */
    readonly pods: ReadonlyMap<string, string>
    /** By `namespace/name`. */
    readonly sandboxes: ReadonlyMap<string, KnownSandbox>
    /** Uids of Pods that were seen going. */
    readonly deletedPods: ReadonlySet<string>
  }

/** In the order in which they are removed: what stands on something goes before it. */
export const kinds = [
  "Task",
  "Shim",
  "Container",
  "Anchor",
  "Snapshot",
  "Lease",
  "NetworkNamespace",
  "Link",
  "Table",
  "Cgroup",
  "LogDirectory",
  "AgentDirectory"
] as const

/** What kind of thing is left over. */
export type Kind = typeof kinds[number]

/**
 * Why it is taken for left over.
 * - AgentGone: the Pod of its agent does not exist
 * - ResourceGone, ResourceReplaced: the Sandbox that it was bound to does not exist, or is another one of that name
 * - NeverAdopted: it has no Sandbox, and never had one
 * - NoRecord: a task that nobody can name any more
 * - NoContainer: what it belonged to is gone
 * - Expired, NoOwner: leases
 * - HalfRepaired: the janitor itself was cut short
 * - Unclear: the record does not say enough to judge
 * - Unanswered: nobody could be asked
 */
export type Cause =
  | "AgentGone"
  | "ResourceGone"
  | "ResourceReplaced"
  | "NeverAdopted"
  | "NoRecord"
  | "NoContainer"
  | "Expired"
  | "NoOwner"
  | "HalfRepaired"
  | "Unclear"
  | "Unanswered"

/** Remove: now. Wait: when it is still so later. Spare: never for this reason. */
export type Verdict = "remove" | "wait" | "spare"

/** What speaks against a thing. */
export interface Suspicion {
  readonly kind: Kind
  readonly subject: string
  readonly cause: Cause
  /** For people: what was seen. */
  readonly evidence: string
  /** Whose Pod the evidence is about; the uid is empty where only the name is known. */
  readonly agent?: { readonly uid: string; readonly name: string } | undefined
  /** Which Sandbox the evidence is about. */
  readonly sandbox?: { readonly namespace: string; readonly name: string } | undefined
}

/** A suspicion and what follows from it. */
export interface Finding extends Suspicion {
  readonly verdict: Verdict
}

/** Since when each suspicion has held without a break, in milliseconds of the monotonic clock. */
export type Seen = ReadonlyMap<string, number>

/** The same suspicion at two times has the same key. */
export const keyOf = ({ cause, kind, subject }: Suspicion): string => `${kind}/${cause}/${subject}`

type Answered = Extract<ApiState, { readonly _tag: "Answered" }>

const ofContainer = (container: OwnedContainer, api: Answered): ReadonlyArray<Suspicion> => {
  const { agentName, agentUid, binding, claimUid, id, kind, namespace, sandboxName } = container
  const about = {
    kind: kind === "anchor" ? "Anchor" : "Container",
    subject: id,
    agent: { uid: agentUid, name: agentName }
  } as const
  if (kind === "repair") {
    return [{ ...about, cause: "HalfRepaired", evidence: "its record was written only to end its task" }]
  }
  if (agentUid === "" || agentName === "") {
    // By its uid it would be missed, by its name it is asked for.
    return [{ ...about, cause: "Unclear", evidence: "its labels do not name its agent by name and uid" }]
  }
  if (!api.pods.has(agentUid)) {
    const seenGoing = api.deletedPods.has(agentUid) ? "was deleted" : "is not on this node"
    return [{ ...about, cause: "AgentGone", evidence: `the Pod ${agentName} (${agentUid}) of its agent ${seenGoing}` }]
  }
  if (kind !== "instance") {
    return []
  }
  const key = Sandbox.key(namespace, sandboxName)
  const known = api.sandboxes.get(key)
  const sandbox = { namespace, name: sandboxName }
  const exists = known !== undefined && known.uid === undefined
  if (binding._tag === "Unreadable") {
    return [{ ...about, sandbox, cause: "Unclear", evidence: binding.problem }]
  }
  if (exists) {
    return []
  }
  if (binding._tag === "Unbound") {
    return known?.claimUid === claimUid ? [] : [{
      ...about,
      sandbox,
      cause: "NeverAdopted",
      evidence: `it is bound to no resource, and no Sandbox ${key} has its claim ${claimUid}`
    }]
  }
  if (known === undefined) {
    const evidence = `the Sandbox ${key} (${binding.resourceUid}) does not exist`
    return [{ ...about, sandbox, cause: "ResourceGone", evidence }]
  }
  return known.uid === binding.resourceUid ? [] : [{
    ...about,
    sandbox,
    cause: "ResourceReplaced",
    evidence: `the Sandbox ${key} is ${known.uid}, and it was bound to ${binding.resourceUid}`
  }]
}

/** What is left of something that nobody needs to be asked about. */
const left = (kind: Kind, subject: string, cause: Cause, evidence: string): Suspicion => ({
  kind,
  subject,
  cause,
  evidence
})

const ofLease = ({ expiresAtMillis, id }: OwnedLease, nowMillis: number): ReadonlyArray<Suspicion> =>
  expiresAtMillis === undefined
    ? [left("Lease", id, "NoOwner", "it never expires, and none of ours does that")]
    : expiresAtMillis < nowMillis
    ? [left("Lease", id, "Expired", `it expired ${Math.round((nowMillis - expiresAtMillis) / 1000)} s ago`)]
    : []

const ofNetwork = (
  kind: "NetworkNamespace" | "Link" | "Table",
  all: ReadonlyArray<NetworkNamespaces.Named>,
  { agentDirectories }: NodeState,
  isDeparted: (agentName: string) => boolean
): ReadonlyArray<Suspicion> =>
  all.flatMap(({ ownerKey, name: subject }) => {
    const owner = agentDirectories.find(({ networkKey }) => networkKey === ownerKey)
    return owner === undefined || !isDeparted(owner.name) ? [] : [{
      kind,
      subject,
      cause: "AgentGone",
      agent: { uid: "", name: owner.name },
      evidence: `it was made by the agent ${owner.name}, whose Pod is not on this node`
    }]
  })

const ofCgroup = ({ isPopulated, name: subject }: OwnCgroup): Suspicion =>
  isPopulated
    ? {
      kind: "Cgroup",
      subject,
      cause: "Unclear",
      evidence: "processes run in it, but this containerd has no container of its name: another one may"
    }
    : { kind: "Cgroup", subject, cause: "NoContainer", evidence: "it is empty, and no container or task has its name" }

/** Everything that speaks against anything on the node, when the API has answered. */
export const suspicions = (node: NodeState, api: Answered, nowMillis: number): ReadonlyArray<Suspicion> => {
  const ownDirectories = new Set([...node.cgroups.map(({ name }) => name), ...node.logDirectories])
  const isFree = (id: string) => isOwnId(id) && !node.containerIds.has(id) && !node.taskIds.has(id)
  const instances = new Set([...api.sandboxes.values()].map(({ instanceId }) => instanceId))
  const podNames = new Set(api.pods.values())
  const agentNames = new Set(node.containers.map(({ agentName }) => agentName))
  // Its containers go first.
  const isDeparted = (agentName: string) => !podNames.has(agentName) && !agentNames.has(agentName)
  const networks = [...node.networkNamespaces, ...node.links, ...node.tables]
  const networkKeys = new Set(networks.map(({ ownerKey }) => ownerKey))
  return [
    ...[...node.taskIds]
      // A task has no labels: ours is known by its cgroup or its log.
      .filter((id) => isOwnId(id) && ownDirectories.has(id) && !node.containerIds.has(id))
      .map((id) => left("Task", id, "NoRecord", "its container has no record, so nothing can be asked of it")),
    ...node.shims.filter(isFree)
      .map((id) => left("Shim", id, "NoContainer", "it was started for a container that has neither record nor task")),
    ...node.containers.flatMap((container) => ofContainer(container, api)),
    ...node.snapshots
      .filter((name) => !node.containerIds.has(name))
      .map((name) => left("Snapshot", name, "NoContainer", "no container has a record under its name")),
    ...node.leases.flatMap((lease) => ofLease(lease, nowMillis)),
    ...ofNetwork("NetworkNamespace", node.networkNamespaces, node, isDeparted),
    ...ofNetwork("Link", node.links, node, isDeparted),
    ...ofNetwork("Table", node.tables, node, isDeparted),
    ...node.cgroups.filter(({ name }) => isFree(name)).map(ofCgroup),
    ...node.logDirectories.filter((id) => isFree(id) && !instances.has(id))
      .map((id) => left("LogDirectory", id, "NoContainer", "no container, task or Sandbox has its name")),
    ...node.agentDirectories
      // It is what tells whose the networks are, so it goes after them.
      .filter(({ name, networkKey }) => isDeparted(name) && !networkKeys.has(networkKey))
      .map(({ name }): Suspicion => ({
        kind: "AgentDirectory",
        subject: name,
        cause: "AgentGone",
        agent: { uid: "", name },
        evidence: "no Pod of its name is on this node, and no container is its"
      }))
  ]
}

/** Causes that are no reason to remove anything, however long they last. */
const harmless: ReadonlySet<Cause> = new Set<Cause>(["Unclear", "Unanswered"])

const waitMillis = (cause: Cause): number =>
  cause === "NeverAdopted" || cause === "NoOwner" ? adoptionMillis : confirmMillis

const order = (kind: Kind): number => kinds.indexOf(kind)

/** All that is ours on a node. */
const everything = (node: NodeState): ReadonlyArray<readonly [Kind, string]> => [
  ...node.containers.map(({ id, kind }) => [kind === "anchor" ? "Anchor" : "Container", id] as const),
  ...node.shims.filter(isOwnId).map((id) => ["Shim", id] as const),
  ...node.snapshots.map((name) => ["Snapshot", name] as const),
  ...node.leases.map(({ id }) => ["Lease", id] as const),
  ...node.networkNamespaces.map(({ name }) => ["NetworkNamespace", name] as const),
  ...node.links.map(({ name }) => ["Link", name] as const),
  ...node.tables.map(({ name }) => ["Table", name] as const),
  ...node.cgroups.map(({ name }) => ["Cgroup", name] as const),
  ...node.logDirectories.map((name) => ["LogDirectory", name] as const),
  ...node.agentDirectories.map(({ name }) => ["AgentDirectory", name] as const)
]

/**
 * The findings of one scan, in the order in which they are to be acted on, and what to remember for the next. An
 * unanswered question forgets everything: evidence counts when it held in every scan in between.
 */
export const decide = (scan: {
  readonly node: NodeState
  readonly api: ApiState
  readonly seen: Seen
  /** Milliseconds since the epoch. */
  readonly nowMillis: number
  /** Milliseconds of the monotonic clock: a clock that is set must confirm nothing. */
  readonly monotonicMillis: number
}): { readonly findings: ReadonlyArray<Finding>; readonly seen: Seen } => {
  const { api, monotonicMillis, node, nowMillis } = scan
  if (api._tag === "Unanswered") {
    const evidence = `the API has not answered: ${api.problem}`
    return {
      findings: everything(node).map(([kind, subject]) => ({
        kind,
        subject,
        cause: "Unanswered",
        evidence,
        verdict: "spare"
      })),
      seen: new Map()
    }
  }
  const seen = new Map<string, number>()
  const findings = suspicions(node, api, nowMillis).map((suspicion): Finding => {
    const key = keyOf(suspicion)
    const sinceMillis = scan.seen.get(key) ?? monotonicMillis
    seen.set(key, sinceMillis)
    const isProven = suspicion.cause === "AgentGone" && api.deletedPods.has(suspicion.agent?.uid ?? "")
    const isConfirmed = scan.seen.has(key) && monotonicMillis - sinceMillis >= waitMillis(suspicion.cause)
    const verdict = harmless.has(suspicion.cause) ? "spare" : isProven || isConfirmed ? "remove" : "wait"
    return Object.assign({}, suspicion, { verdict } as const)
  })
  return { findings: findings.toSorted((one, other) => order(one.kind) - order(other.kind)), seen }
}
