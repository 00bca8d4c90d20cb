/**
 * What a stack without sandboxes has on the machine, with the parts of names that are drawn anew each time left out, so
 * that two moments can be compared.
 */
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Leases } from "@fast-sandbox/containerd/Leases"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as MachineCensus from "@fast-sandbox/testkit/MachineCensus"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { Ledger } from "./Ledger.ts"
import type { SoakStack } from "./SoakStack.ts"

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/

const ofKind = (kind: string, names: ReadonlyArray<string>) => names.map((name) => `${kind} ${name}`)

/** Everything of this stack, one line each: kind and name. */
export const take = Effect.fn("Leftovers.take")(function*(stack: SoakStack, ledger: Ledger) {
  const files = yield* FileSystem.FileSystem
  const names = (path: string) => Effect.orElseSucceed(files.readDirectory(path), (): ReadonlyArray<string> => [])
  const { agents, containers, leases, logs, snapshots, tasks } = yield* Effect.all({
    containers: Containers.use((_) => _.list()),
    tasks: Tasks.use((_) => _.list),
    snapshots: Snapshots.use((_) => _.list()),
    leases: Leases.use((_) => _.list),
    logs: names(stack.home.logsDirectory),
    agents: names(stack.home.agentsDirectory)
  }).pipe(Effect.provide(stack.containerd, { local: true }))
  const machine = yield* MachineCensus.take
  const keys = agents.map((name) => NetworkNamespaces.keyOf(`${stack.home.agentsDirectory}/${name}`))
  const marks = [stack.home.directory, stack.home.cgroupParent.slice(1), ...keys]
  // Other stacks may work on this machine: what carries no mark of ours must at least carry an id that was ours.
  const ids = new Set([...ledger.entries.values()].flatMap(({ instanceId }) => instanceId ?? []))
  // The layers of images that agents keep mounted as long as they are there.
  const isLayer = (path: string) => agents.some((name) => path.includes(`/agents/${name}/layers/`))
  const isOurs = (line: string) => marks.some((mark) => line.includes(mark)) || ids.has(uuid.exec(line)?.[0] ?? "")
  return [
    ...ofKind("container", containers.map(({ id }) => id)),
    ...ofKind("task", tasks.map(({ containerId }) => containerId)),
    ...ofKind("snapshot", snapshots.map(({ name }) => name)),
    ...ofKind("lease", leases.map(({ id }) => id)),
    ...ofKind("log", logs),
    ...ofKind("agent", agents),
    // Every command that runs while we look is a process, too: only what stays is found again by the next look.
    ...ofKind("process", machine.processes.filter(isOurs)),
    ...ofKind("mount", machine.mounts.filter((path) => isOurs(path) && !isLayer(path))),
    ...ofKind("netns", machine.networkNamespaces.filter(isOurs)),
    ...ofKind("cgroup", machine.cgroups.filter(isOurs)),
    ...ofKind("runtime", machine.runtimeState.filter(isOurs))
  ]
})

const anonymous = (line: string): string =>
  line.replaceAll(new RegExp(uuid, "g"), "UUID")
    .replaceAll(/anchor-(\d+)-[0-9a-f]{8}/g, "anchor-$1")
    .replaceAll(/agent-[0-9a-z]{5}\b/g, "agent-NAME")
    // The shim gives it its options in any order.
    .replaceAll(/^(process \S+\/fsb-logger) .*$/g, "$1")
    .replaceAll(/^netns .*$/g, "netns")
    .replaceAll(/^mount \/run\/netns\/.*$/g, "mount of netns")

/** What `after` has more than `before`, with its whole names. */
export const added = (before: ReadonlyArray<string>, after: ReadonlyArray<string>): ReadonlyArray<string> => {
  const known = new Map<string, number>()
  for (const line of before) known.set(anonymous(line), (known.get(anonymous(line)) ?? 0) + 1)
  return after.filter((line) => {
    const count = known.get(anonymous(line)) ?? 0
    known.set(anonymous(line), count - 1)
    return count <= 0
  })
}
