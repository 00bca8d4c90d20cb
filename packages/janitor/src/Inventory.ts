/**
 * Looks at the node: everything of ours in containerd, and what the kernel and the file system show.
 *
 * What belongs to something is listed before it, so that whatever is made while the look goes on is seen with its owner.
 */
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import { ContainerdClient } from "@fast-sandbox/containerd/ContainerdClient"
import { type ContainerdError, isNotFound } from "@fast-sandbox/containerd/ContainerdError"
import { type Container, Containers } from "@fast-sandbox/containerd/Containers"
import { type Lease, Leases } from "@fast-sandbox/containerd/Leases"
import type { System } from "@fast-sandbox/containerd/MachineSetup"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as OwnedContainer from "@fast-sandbox/containerd/OwnedContainer"
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as Instant from "@fast-sandbox/core/Instant"
import { containerLabels } from "@fast-sandbox/core/Names"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import { emptyNode, type NodeState, type OwnedLease, type Suspicion } from "./Findings.ts"

/** Where things of ours are on the node. All paths are absolute. */
export interface Places {
  /** Below it, or below Pods' cgroups under its name, every sandbox has a cgroup named after its instance. */
  readonly cgroupParent: string
  /** Below it every instance has a directory with its log. */
  readonly logDirectory: string
  /** Below it every agent has a directory named after its Pod. */
  readonly agentsDirectory: string
}

/** What is needed to look. */
export type Requirements = ContainerdClient | Containers | Leases | Snapshots | Tasks | System

/** Leases that unpack images are named so. */
const leasePrefix = "fast-sandbox-"

/** containerd's own label for the instant after which a lease no longer counts. */
const leaseExpiryLabel = "containerd.io/gc.expire"

const isManaged = ({ labels }: { readonly labels: Readonly<Record<string, string>> }): boolean =>
  labels[containerLabels.managed] === "true"

const ownedLeases = (leases: ReadonlyArray<Lease>): ReadonlyArray<OwnedLease> =>
  leases.filter((lease) => lease.id.startsWith(leasePrefix) || isManaged(lease)).map(({ id, labels }) => ({
    id,
    expiresAtMillis: Option.getOrUndefined(Instant.parseMillis(labels[leaseExpiryLabel]))
  }))

// Another installation may share the containerd; its cgroups are elsewhere, and its Pods unknown to our API.
const ownedContainers = (
  { cgroupParent }: Places,
  containers: ReadonlyArray<Container>
): ReadonlyArray<OwnedContainer.OwnedContainer> =>
  containers
    .flatMap((container) => OwnedContainer.read(container) ?? [])
    .filter(({ cgroupsPath }) => PodCgroups.owns(cgroupParent, cgroupsPath))

const ownedSnapshots = Effect.gen(function*() {
  const all = yield* (yield* Snapshots).list()
  return all
    .filter((snapshot) => isManaged(snapshot) && (snapshot.kind === "active" || snapshot.kind === "view"))
    .map(({ name }) => name)
})

/** Directories right below a path; none when it does not exist. Symbolic links are followed by nobody. */
const directoriesOf = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const names = yield* Effect.orElseSucceed(fileSystem.readDirectory(path), (): ReadonlyArray<string> => [])
  return yield* Effect.filter(names.toSorted(), (name) =>
    fileSystem.readLink(`${path}/${name}`).pipe(
      Effect.as(false),
      Effect.catch(() => Effect.map(fileSystem.stat(`${path}/${name}`), ({ type }) => type === "Directory")),
      Effect.orElseSucceed(() => false)
    ))
})

/** The value of a shim's flag. */
const flagOf = (args: ReadonlyArray<string>, flag: string): string => args[args.indexOf(flag) + 1] ?? ""

const shimsHere = Effect.gen(function*() {
  const { namespace, socket } = yield* ContainerdClient
  const running = yield* Proc.shims(socket)
  return running.filter(({ args }) => flagOf(args, "-namespace") === namespace).map(({ args }) => flagOf(args, "-id"))
})

const agentDirectoriesOf = ({ agentsDirectory }: Places) =>
  Effect.map(
    directoriesOf(agentsDirectory),
    (names) => names.map((name) => ({ name, networkKey: NetworkNamespaces.keyOf(`${agentsDirectory}/${name}`) }))
  )

/** Those that a container accounts for need no closer look. */
const inspectCgroups = (found: ReadonlyMap<string, string>, accounted: ReadonlySet<string>) =>
  Effect.forEach(found, ([name, path]) =>
    accounted.has(name)
      ? Effect.succeed({ name, isPopulated: true })
      : Effect.map(Cgroups.isPopulated(path), (isPopulated) => ({ name, isPopulated })))

/** The whole node. */
export const look = Effect.fn("Inventory.look")(function*(
  places: Places
): Effect.fn.Return<NodeState, ContainerdError, Requirements> {
  const foundCgroups = yield* PodCgroups.sandboxes(places.cgroupParent)
  const logDirectories = yield* directoriesOf(places.logDirectory)
  const agentDirectories = yield* agentDirectoriesOf(places)
  const networkNamespaces = yield* NetworkNamespaces.list
  const links = yield* NetworkNamespaces.links
  const tables = yield* NetworkNamespaces.tables
  const leases = ownedLeases(yield* (yield* Leases).list)
  const snapshots = yield* ownedSnapshots
  const shims = yield* shimsHere
  const tasks = yield* (yield* Tasks).list
  const containers = yield* (yield* Containers).list()
  const containerIds = new Set(containers.map(({ id }) => id))
  const cgroups = yield* inspectCgroups(foundCgroups, containerIds)
  return {
    containerIds,
    taskIds: new Set(tasks.map(({ containerId }) => containerId)),
    containers: ownedContainers(places, containers),
    shims,
    snapshots,
    leases,
    networkNamespaces,
    links,
    tables,
    cgroups,
    logDirectories,
    agentDirectories
  }
})

const withContainer = Effect.fnUntraced(function*(places: Places, id: string) {
  const found = yield* (yield* Containers).get(id).pipe(
    Effect.map((container) => [container]),
    Effect.catchIf(isNotFound, () => Effect.succeed<ReadonlyArray<Container>>([]))
  )
  return { ...emptyNode, containerIds: new Set(found.map(({ id }) => id)), containers: ownedContainers(places, found) }
})

const withAllContainers = Effect.fnUntraced(function*(places: Places) {
  const found = yield* (yield* Containers).list()
  return { ...emptyNode, containerIds: new Set(found.map(({ id }) => id)), containers: ownedContainers(places, found) }
})

/** One thing again, with all that speaks for it: what is decided about it now is decided about what is there now. */
export const lookAgain = Effect.fn("Inventory.lookAgain")(function*(
  places: Places,
  { kind, subject }: Suspicion
): Effect.fn.Return<NodeState, ContainerdError, Requirements> {
  switch (kind) {
    case "Container":
    case "Anchor":
      return yield* withContainer(places, subject)
    case "Snapshot": {
      const snapshots = (yield* ownedSnapshots).filter((name) => name === subject)
      return { ...(yield* withContainer(places, subject)), snapshots }
    }
    case "Lease": {
      const leases = ownedLeases(yield* (yield* Leases).list).filter(({ id }) => id === subject)
      return { ...emptyNode, leases }
    }
    case "Task":
    case "Shim":
    case "Cgroup":
    case "LogDirectory": {
      const found = new Map([...yield* PodCgroups.sandboxes(places.cgroupParent)].filter(([name]) => name === subject))
      const logDirectories = (yield* directoriesOf(places.logDirectory)).filter((name) => name === subject)
      const tasks = yield* (yield* Tasks).list
      const taskIds = new Set(tasks.map(({ containerId }) => containerId).filter((id) => id === subject))
      const container = yield* withContainer(places, subject)
      const cgroups = yield* inspectCgroups(found, container.containerIds)
      const shims = (yield* shimsHere).filter((id) => id === subject)
      return { ...container, cgroups, logDirectories, shims, taskIds }
    }
    case "NetworkNamespace":
    case "Link":
    case "Table":
    case "AgentDirectory": {
      const agentDirectories = yield* agentDirectoriesOf(places)
      const networkNamespaces = yield* NetworkNamespaces.list
      const links = yield* NetworkNamespaces.links
      const tables = yield* NetworkNamespaces.tables
      return { ...(yield* withAllContainers(places)), agentDirectories, networkNamespaces, links, tables }
    }
  }
})
