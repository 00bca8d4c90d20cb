/**
 * Carries out one finding. Everything here may be repeated and may be cut short anywhere: the next scan finds what is
 * left, because a thing always goes before the name under which it is found.
 */
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import { type ContainerdError, ignoreNotFound } from "@fast-sandbox/containerd/ContainerdError"
import * as ContainerRemoval from "@fast-sandbox/containerd/ContainerRemoval"
import type { Containers } from "@fast-sandbox/containerd/Containers"
import { Leases } from "@fast-sandbox/containerd/Leases"
import * as MachineSetup from "@fast-sandbox/containerd/MachineSetup"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import type { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { isOwnId, type Suspicion } from "./Findings.ts"
import type { Places } from "./Inventory.ts"

/** Something could not be removed; the next scan tries again. */
export class RemovalFailed extends Schema.TaggedError<RemovalFailed>()("RemovalFailed", {
  kind: Schema.String,
  subject: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.kind} ${this.subject} could not be removed: ${this.problem}`
  }
}

/** What is needed to remove. */
export type Requirements = Containers | Leases | Snapshots | Tasks | MachineSetup.System

/** 20, 40 ... 640 ms: the kernel needs a moment to bury killed processes. */
const burial = Schedule.exponential("20 millis").pipe(Schedule.upTo({ times: 6 }))

/** Where a sandbox's cgroup is; where the installation would make it when it is nowhere. */
const cgroupOf = ({ cgroupParent }: Places, id: string) =>
  Effect.map(PodCgroups.sandboxes(cgroupParent), (found) => found.get(id) ?? `${cgroupParent}/${id}`)

const removeCgroup = (path: string) =>
  Effect.filterOrFail(
    Cgroups.remove(path),
    (isGone) => isGone,
    () => ({ message: `processes in ${path} were killed and have not ended` })
  ).pipe(Effect.retry(burial))

const removeDirectory = Effect.fnUntraced(function*(path: string) {
  const fileSystem = yield* FileSystem.FileSystem
  yield* fileSystem.remove(path, { recursive: true, force: true })
})

const removeContainer = Effect.fnUntraced(function*(places: Places, id: string) {
  yield* ContainerRemoval.reclaim(id)
  // Only what can be ours is looked for by its name.
  if (isOwnId(id)) {
    yield* removeCgroup(yield* cgroupOf(places, id))
    yield* removeDirectory(`${places.logDirectory}/${id}`)
  }
  yield* ContainerRemoval.forget(id)
})

const carryOut = Effect.fnUntraced(function*(places: Places, { kind, subject }: Suspicion) {
  switch (kind) {
    case "Task":
    case "Shim":
      yield* ContainerRemoval.adopt(subject, yield* cgroupOf(places, subject))
      return yield* removeContainer(places, subject)
    case "Container":
    case "Anchor":
      return yield* removeContainer(places, subject)
    case "Snapshot":
      return yield* (yield* Snapshots).remove(subject).pipe(ignoreNotFound, Effect.asVoid)
    case "Lease":
      return yield* (yield* Leases).delete(subject).pipe(ignoreNotFound, Effect.asVoid)
    case "NetworkNamespace":
      return yield* NetworkNamespaces.remove(subject)
    case "Link":
      return yield* NetworkNamespaces.removeLink(subject)
    case "Table":
      return yield* NetworkNamespaces.removeTable(subject)
    case "Cgroup":
      // Whoever moved in since it was looked at stays; there is nothing to report then.
      return yield* Effect.asVoid(Cgroups.removeEmpty(yield* cgroupOf(places, subject)))
    case "LogDirectory":
      return yield* removeDirectory(`${places.logDirectory}/${subject}`)
    case "AgentDirectory":
      // Parked slots have file systems of their own in it.
      yield* MachineSetup.unmountBelow(`${places.agentsDirectory}/${subject}`)
      return yield* removeDirectory(`${places.agentsDirectory}/${subject}`)
  }
})

/** Removes what the suspicion is about. */
export const run = Effect.fn("Removal.run")((
  places: Places,
  suspicion: Suspicion
): Effect.Effect<void, RemovalFailed, Requirements> =>
  carryOut(places, suspicion).pipe(
    Effect.mapError((error: ContainerdError | { readonly message: string }) =>
      new RemovalFailed({ kind: suspicion.kind, subject: suspicion.subject, problem: error.message })
    )
  )
)
