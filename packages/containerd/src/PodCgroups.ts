/**
 * Where agents put the cgroups of their sandboxes: below the cgroup of the agent's own Pod, so that the Pod's limits hold
 * for all of them together, and a kubelet that ends the Pod ends them too. They are below the Pod's, not its container's:
 * an agent that is started again gets a new container, and its sandboxes go on.
 *
 * The kubelet writes a Pod's cgroup in two ways, by its cgroup driver:
 *
 *     cgroupfs   /kubepods/burstable/pod<uid>
 *     systemd    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _ for ->.slice
 *
 * with a class of service between or, for a guaranteed Pod, none, and below a root of the operator's choice. Cgroups below
 * are made as directories with both drivers: systemd leaves alone what it finds there.
 */
import * as Effect from "effect/Effect"
import * as Cgroups from "./Cgroups.ts"

const podPattern = /(^|-)pod[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}(\.slice)?$/

/** Whether a cgroup of this name is a Pod's. */
const isPod = (name: string): boolean => podPattern.test(name)

/** How the kubelet's own cgroup at the root is called. Elsewhere is not looked: a machine may have thousands of others. */
const kubeletPattern = /^kube/

/** More levels than a kubelet makes from the root to a Pod. */
const maxDepth = 6

const baseOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1)

/** The name of the cgroup of a Pod of one machine, below the installation's own. */
export const nameOf = (podUid: string): string => `pod${podUid}`

/** The cgroup of a process where limits of memory are, out of its `/proc/<pid>/cgroup`. */
export const ofProcess = (text: string): string | undefined => {
  const lines = text.split("\n").map((line) => /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [])
  const found = lines.find(([, controllers]) => controllers?.split(",").includes("memory")) ??
    lines.find(([, controllers]) => controllers === "")
  return found?.[2]
}

/**
 * The parent of the cgroups of an agent's sandboxes: below its Pod's cgroup, under the name of `parent`; `parent` itself
 * where the agent is in no Pod's cgroup that it can see. `own` is the agent's `/proc/self/cgroup`.
 */
export const parentOf = (parent: string, podUid: string, own: string): string => {
  const names = ofProcess(own)?.split("/") ?? []
  const at = names.findIndex((name) => isPod(name) && name.replaceAll("_", "-").includes(nameOf(podUid)))
  return at < 0 ? parent : `${names.slice(0, at + 1).join("/")}/${baseOf(parent)}`
}

/** Whether the cgroup `path` is one of a sandbox of the installation whose agents were told `parent`. */
export const owns = (parent: string, path: string): boolean => {
  const above = path.slice(0, path.lastIndexOf("/"))
  const [pod = "", last] = above.split("/").slice(-2)
  return path.startsWith(`${parent}/`) || (isPod(pod) && last === baseOf(parent))
}

const podsBelow = (path: string, depth: number): Effect.Effect<ReadonlyArray<string>> =>
  Effect.flatMap(Cgroups.children(path), (names) =>
    Effect.forEach(
      depth === 0 ? names.filter((name) => kubeletPattern.test(name)) : names,
      (name) =>
        isPod(name)
          ? Effect.succeed([`${path}/${name}`])
          : depth < maxDepth
          ? podsBelow(`${path}/${name}`, depth + 1)
          : Effect.succeed([])
    )).pipe(Effect.map((found) => found.flat()))

/**
 * The cgroups on this machine right below which agents that were told `parent` have those of their sandboxes: `parent`
 * itself, the Pods of one machine in it, and those of a kubelet.
 */
export const parents = (parent: string): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function*() {
    const own = (yield* Cgroups.children(parent)).filter(isPod).map((name) => `${parent}/${name}`)
    const nested = yield* Effect.filter(yield* podsBelow("", 0), (path) =>
      Effect.map(Cgroups.children(path), (names) => names.includes(baseOf(parent))))
    return [
      parent,
      ...own,
      ...nested.map((path) =>
        `${path}/${baseOf(parent)}`
      )
    ]
  })

/** The names of the cgroups of sandboxes on this machine, and where each is. */
export const sandboxes = (parent: string): Effect.Effect<ReadonlyMap<string, string>> =>
  Effect.flatMap(
    parents(parent),
    (all) =>
      Effect.forEach(all, (path) =>
        Effect.map(Cgroups.children(path), (names) =>
          names.filter((name) =>
            !isPod(name)
          ).map((name) => [name, `${path}/${name}`] as const)))
  ).pipe(
    Effect.map((found) => new Map(found.flat()))
  )

/** An eighth of what a process weighs that is in no cgroup, or another cgroup at its side. */
const shares = 128

/**
 * Lets everything in a cgroup of sandboxes give way to its siblings. What refuses it (a cgroup file system that is
 * read-only) is told, and harmless.
 */
export const giveWay = (path: string): Effect.Effect<void> =>
  Cgroups.weigh(path, shares).pipe(
    Effect.catch(({ message }) => Effect.logWarning("sandboxes are not made to give way to what starts them", message))
  )
