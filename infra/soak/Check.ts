/**
 * What must hold when nothing is under way: the promises of the ledger against what the API, the pool's status and
 * containerd say.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import type * as SandboxInfo from "@fast-sandbox/client/SandboxInfo"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { containerLabels, defaultNamespace, defaultPool } from "@fast-sandbox/core/Names"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { Entry, Ledger } from "./Ledger.ts"
import type { SoakStack } from "./SoakStack.ts"

/** How long the stack may take until everything holds. */
const settleWithin = "90 seconds"

const describe = (entry: Entry, info: SandboxInfo.SandboxInfo): string =>
  `${entry.name} (${entry.via}, ${entry.program.name}, acknowledged ${entry.instanceId ?? "-"}` +
  `${entry.replaced === undefined ? "" : `, reset from ${entry.replaced}`}) is ${info.phase} ${info.instanceId} ` +
  `code=${info.exitCode ?? "-"} signal=${info.signal ?? "-"} reason=${info.reason}: ${info.message}`

const lost: ReadonlySet<string> = new Set(["Lost", "Failed"])

const isKept = (ledger: Ledger, entry: Entry, info: SandboxInfo.SandboxInfo): boolean => {
  if (entry.instanceId !== undefined && info.instanceId !== entry.instanceId) return false
  if (entry.replaced !== undefined && info.instanceId === entry.replaced) return false
  if (lost.has(info.phase) && info.reason !== "" && ledger.wasHit(entry)) return true
  const { exitCode } = entry.program
  return exitCode === undefined
    ? info.phase === "Running"
    : info.phase === (exitCode === 0 ? "Succeeded" : "Failed") && info.exitCode === exitCode
}

const promises = (ledger: Ledger, infos: ReadonlyArray<SandboxInfo.SandboxInfo>): ReadonlyArray<string> => {
  const found = new Map(infos.map((info) => [info.name, info]))
  const broken: Array<string> = []
  for (const entry of ledger.entries.values()) {
    const info = found.get(entry.name)
    switch (entry.promised) {
      case "there":
        if (info === undefined) broken.push(`${entry.name} (${entry.via}) was acknowledged and is not there`)
        else if (!isKept(ledger, entry, info)) broken.push(describe(entry, info))
        break
      case "deleted":
        if (info !== undefined) broken.push(`deleted, but ${describe(entry, info)}`)
        break
      case "refused":
        if (info !== undefined) broken.push(`refused, but ${describe(entry, info)}`)
        break
    }
  }
  return broken
}

const alive: ReadonlySet<string> = new Set(["Scheduled", "Starting", "Running", "Stopping", "Deleting"])

/** What does not hold now; also when one of those that are asked does not answer. */
export const broken = (stack: SoakStack, ledger: Ledger) =>
  Effect.gen(function*() {
    const kube = yield* KubeClient
    const infos = yield* (yield* Sandboxes).list({ deadline: "10 seconds" })
    const resources = yield* kube.list(FastSandbox.Sandbox, { namespace: defaultNamespace })
    const pool = yield* kube.get(FastSandbox.SandboxPool, { name: defaultPool, namespace: defaultNamespace })
    const containers = (yield* (yield* Containers).list()).filter(({ labels }) =>
      labels[containerLabels.sandboxName] !== undefined
    )
    const tasks = new Map((yield* (yield* Tasks).list).map(({ containerId, status }) => [containerId, status]))
    // A parked slot keeps its own id when it becomes an instance.
    const instances = containers.map(({ id, labels }) => ({
      id: labels[containerLabels.id] ?? id,
      labels,
      isRunning: tasks.get(id) === "running"
    }))
    const running = new Set(instances.filter(({ isRunning }) => isRunning).map(({ id }) => id))
    const problems = [...promises(ledger, infos)]
    const listed = new Set(infos.map(({ name }) => name))
    const stored = new Set(resources.items.map(({ metadata }) => metadata.name ?? ""))
    for (const name of listed) if (!stored.has(name)) problems.push(`${name} is listed by Fast-Path only`)
    for (const name of stored) if (!listed.has(name)) problems.push(`${name} is stored, but not listed by Fast-Path`)
    const claims = new Map<string, string>()
    for (const { id, isRunning, labels } of instances) {
      const name = labels[containerLabels.sandboxName] ?? ""
      const claim = labels[containerLabels.claimUid] ?? ""
      const other = claims.get(claim)
      if (other !== undefined) problems.push(`claim ${claim} of ${name} has two containers: ${other}, ${id}`)
      claims.set(claim, id)
      const owner = infos.find((info) => info.name === name)
      if (owner === undefined || owner.instanceId !== id) {
        problems.push(
          `container ${id} of ${name} (${isRunning ? "running" : "not running"}) belongs to nobody: ` +
            `${owner === undefined ? "no such sandbox" : `${owner.phase} ${owner.instanceId}`}`
        )
      }
    }
    for (const { instanceId, name, phase } of infos) {
      if (phase === "Running" && !running.has(instanceId)) {
        problems.push(`${name} is Running without task ${instanceId}`)
      }
    }
    const used = infos.filter(({ phase }) => alive.has(phase)).length
    if (pool.status?.slots?.used !== used) {
      problems.push(`the pool says ${pool.status?.slots?.used} slots are used, ${used} sandboxes live`)
    }
    return problems
  }).pipe(
    Effect.provide([stack.kube, stack.containerd], { local: true }),
    Effect.timeout("30 seconds"),
    Effect.catch((error) => Effect.succeed([`the stack can't be asked: ${String(error)}`]))
  )

/** What still does not hold after the time that the stack has to settle. */
export const settled = (stack: SoakStack, ledger: Ledger) => {
  let last: ReadonlyArray<string> = []
  return broken(stack, ledger).pipe(
    Effect.tap((problems) =>
      Effect.sync(() => {
        last = problems
      })
    ),
    Effect.repeat({ schedule: Schedule.spaced("1 second"), until: (problems) => problems.length === 0 }),
    Effect.timeoutOrElse({ duration: settleWithin, orElse: () => Effect.void }),
    Effect.andThen(Effect.sync(() => last))
  )
}
