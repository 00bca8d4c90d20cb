/**
 * Random histories: programs end, agents fall silent, return and die, users reset, expire and delete, the controller
 * forgets everything at any moment, statuses are edited by hand. Whatever happens, no two instances are started side by
 * side, every move between phases is legal, and the end is always reached.
 */
import { assert, describe, it } from "@effect/vitest"
import type { Assignment } from "@fast-sandbox/core/Assignment"
import * as Decision from "@fast-sandbox/core/Decision"
import * as Instant from "@fast-sandbox/core/Instant"
import * as Lifecycle from "@fast-sandbox/core/Lifecycle"
import * as Names from "@fast-sandbox/core/Names"
import {
  type Phase,
  type Sandbox,
  type SandboxSpec,
  type SandboxStatus,
  terminalPhases
} from "@fast-sandbox/core/Sandbox"
import { Schema } from "effect"

const t0 = 1_700_000_000_000
const { Action, AgentPresence, StartRefusal } = Decision

interface Agent {
  readonly uid: string
  exists: boolean
  /** As the controller counts it: from its own start at the earliest. */
  silentSince: number | undefined
  reallySilentSince: number
  readonly instances: Map<string, Decision.ObservedInstance>
  /** What the controller last heard. */
  heard: ReadonlyArray<Decision.ObservedInstance>
}

const phases: ReadonlyArray<Phase> = [
  "Pending",
  "Scheduled",
  "Starting",
  "Running",
  "Stopping",
  "Succeeded",
  "Failed",
  "Stopped",
  "Expired",
  "Deleting"
]

class Simulation {
  now = t0
  agents: Array<Agent> = []
  sandbox: Sandbox | undefined
  provenGone = new Set<string>()
  refusals = new Map<string, Decision.StartRefusal>()
  gone = new Set<string>()
  /** Live instances that a successor was chosen for while their agent had been silent for long. */
  readonly fenced = new Set<string>()
  readonly isEdited: boolean
  private ids = 0

  constructor(isEdited: boolean) {
    this.isEdited = isEdited
    this.addAgent()
    this.addAgent()
    this.sandbox = {
      apiVersion: Names.apiVersion,
      kind: "Sandbox",
      metadata: { name: "s", namespace: "default", uid: "u", generation: 1, creationTimestamp: Instant.format(t0) },
      spec: { image: "alpine", poolRef: "p" }
    }
  }

  addAgent(): void {
    this.ids += 1
    this.agents.push({
      uid: `agent-${this.ids}`,
      exists: true,
      silentSince: undefined,
      reallySilentSince: 0,
      instances: new Map(),
      heard: []
    })
  }

  get live(): ReadonlyArray<Decision.ObservedInstance> {
    return this.agents.flatMap(({ instances }) => [...instances.values()].filter(({ state }) => state !== "Exited"))
  }

  private agent(uid: string): Agent | undefined {
    return this.agents.find((agent) => agent.uid === uid && agent.exists)
  }

  private decide(sandbox: Sandbox): Decision.Action {
    return Decision.decide({
      sandbox,
      instances: this.agents.filter(({ exists }) => exists).flatMap((agent) => {
        if (agent.silentSince === undefined) {
          agent.heard = [...agent.instances.values()]
        }
        return agent.heard.map((instance) =>
          Object.assign({}, instance, { reachable: agent.silentSince === undefined })
        )
      }),
      presence: (uid) => {
        const agent = this.agent(uid)
        return agent === undefined
          ? this.gone.has(uid) ? AgentPresence.Gone() : AgentPresence.Missing()
          : agent.silentSince === undefined
          ? AgentPresence.Synced()
          : AgentPresence.Silent({ sinceMillis: agent.silentSince })
      },
      provenGone: this.provenGone,
      unanswered: [],
      unheardSinceMillis: undefined,
      refusals: this.refusals,
      recoveryDelaysMillis: [1000, 2000, 4000],
      now: this.now
    })
  }

  private report(sandbox: Sandbox, status: SandboxStatus): void {
    const from = sandbox.status?.phase
    const to = status.phase ?? "Pending"
    assert.isTrue(this.isEdited || Lifecycle.isLegal(from, to), `${from} -> ${to}`)
    this.sandbox = { ...sandbox, status }
  }

  private place(sandbox: Sandbox, draft: SandboxStatus): boolean {
    const timeout = (sandbox.spec.recoveryTimeoutSeconds ?? 60) * 1000
    const wasLost = sandbox.status?.phase === "Lost" && sandbox.status.reason === "AgentLost"
    for (const agent of this.agents) {
      if (agent.silentSince !== undefined && (wasLost || this.now >= agent.reallySilentSince + timeout)) {
        agent.instances.forEach(({ instanceId }) => this.fenced.add(instanceId))
      }
    }
    const free = this.agents.find(({ exists, instances, silentSince }) =>
      exists && silentSince === undefined && [...instances.values()].every(({ state }) => state === "Exited")
    )
    if (free === undefined) {
      this.report(sandbox, Decision.unplaced(sandbox, draft, { reason: "NoCapacity", message: "full" }, this.now))
      return false
    }
    this.ids += 1
    const assignment = { instanceId: `i${this.ids}`, pod: free.uid, podUid: free.uid, node: "n" }
    this.report(sandbox, Decision.placed(sandbox, draft, assignment, this.now))
    return true
  }

  private start({ instanceId, podUid }: Assignment): boolean {
    const agent = this.agent(podUid)
    if (agent === undefined || agent.silentSince !== undefined) {
      return false
    }
    const others = this.live.filter((instance) =>
      !this.fenced.has(instance.instanceId) && instance.instanceId !== instanceId
    )
    assert.deepStrictEqual(others.map(({ instanceId }) => instanceId), [], "started beside a live instance")
    if ([...agent.instances.values()].some(({ state }) => state !== "Exited")) {
      this.refusals.set(instanceId, StartRefusal.NoRoom())
      return true
    }
    agent.instances.set(instanceId, {
      instanceId,
      pod: podUid,
      podUid,
      node: "n",
      reachable: true,
      bound: true,
      state: "Running",
      reason: "",
      message: "",
      createdAt: Instant.format(this.now),
      startedAt: Instant.format(this.now),
      endpoints: []
    })
    return true
  }

  private end(instance: Decision.ObservedInstance, ending: Partial<Decision.ObservedInstance>): void {
    this.agent(instance.podUid)?.instances.set(instance.instanceId, {
      ...instance,
      state: "Exited",
      finishedAt: Instant.format(this.now),
      ...ending
    })
  }

  /** Decides and carries out, at most so many steps; the action that it came to rest with. */
  act(steps: number): Decision.Action {
    for (let step = 0; step < steps; step++) {
      const { sandbox } = this
      if (sandbox === undefined) {
        return Action.Nothing()
      }
      const action = this.decide(sandbox)
      const isRest = Action.$match(action, {
        AddFinalizer: () => {
          const finalizers = [...sandbox.metadata.finalizers ?? [], Names.finalizer]
          this.sandbox = { ...sandbox, metadata: { ...sandbox.metadata, finalizers } }
          return false
        },
        Place: ({ draft }) => !this.place(sandbox, draft),
        StartInstance: ({ assignment }) => !this.start(assignment),
        BindInstance: () => false,
        StopInstance: ({ assignment }) => {
          const instance = this.agent(assignment.podUid)?.instances.get(assignment.instanceId)
          if (instance !== undefined) {
            this.end(instance, { reason: "Stopped", exitCode: 143 })
          }
          return false
        },
        DeleteInstances: ({ targets }) => {
          for (const { instanceId, podUid } of targets) {
            this.agent(podUid)?.instances.delete(instanceId)
            this.provenGone.add(instanceId)
          }
          return false
        },
        ReportStatus: ({ status }) => {
          this.report(sandbox, status)
          return false
        },
        RemoveFinalizer: () => {
          assert.deepStrictEqual(this.live.filter(({ instanceId }) => !this.fenced.has(instanceId)), [])
          this.sandbox = undefined
          return false
        },
        ConfirmAgentGone: ({ assignment }) => {
          this.gone.add(assignment.podUid)
          return false
        },
        WaitUntil: () => true,
        Nothing: () => true
      })
      if (isRest) {
        return action
      }
    }
    return Action.Nothing()
  }

  forget(): void {
    this.provenGone.clear()
    this.refusals.clear()
    this.gone.clear()
    for (const agent of this.agents) {
      agent.heard = []
      agent.silentSince = agent.silentSince === undefined ? undefined : this.now
    }
  }

  exit(ending: Partial<Decision.ObservedInstance>): void {
    this.live.forEach((instance) => this.end(instance, ending))
  }

  silence(which: number): void {
    const agent = this.agents[which % this.agents.length]
    if (agent !== undefined && agent.silentSince === undefined) {
      agent.heard = [...agent.instances.values()]
      agent.silentSince = this.now
      agent.reallySilentSince = this.now
    }
  }

  wake(): void {
    for (const agent of this.agents) {
      agent.silentSince = undefined
    }
  }

  kill(which: number): void {
    const agent = this.agents[which % this.agents.length]
    if (agent?.exists === true) {
      agent.exists = false
      agent.instances.clear()
      this.addAgent()
    }
  }

  spec(change: Partial<SandboxSpec>): void {
    if (this.sandbox !== undefined && this.sandbox.metadata.deletionTimestamp === undefined) {
      const { metadata, spec } = this.sandbox
      this.sandbox = {
        ...this.sandbox,
        metadata: { ...metadata, generation: (metadata.generation ?? 1) + 1 },
        spec: { ...spec, ...change }
      }
    }
  }

  remove(): void {
    if (this.sandbox !== undefined) {
      const { metadata } = this.sandbox
      const deletionTimestamp = metadata.deletionTimestamp ?? Instant.format(this.now)
      this.sandbox = metadata.finalizers === undefined
        ? undefined
        : { ...this.sandbox, metadata: { ...metadata, deletionTimestamp } }
    }
  }

  edit(which: number): void {
    const { sandbox } = this
    if (sandbox === undefined) {
      return
    }
    const edits: ReadonlyArray<() => Sandbox> = [
      () => {
        const { status: _, ...rest } = sandbox
        return rest
      },
      () => ({ ...sandbox, status: { ...sandbox.status, sandboxID: "made-up" } }),
      () => ({ ...sandbox, status: { ...sandbox.status, assignedPodUID: "made-up" } }),
      () => ({ ...sandbox, status: { ...sandbox.status, recovery: { attempt: -3, since: "?", nextAt: "?" } } }),
      () => ({ ...sandbox, status: { ...sandbox.status, finishedAt: "yesterday" } }),
      () => ({
        ...sandbox,
        metadata: {
          ...sandbox.metadata,
          annotations: { [Names.assignmentAnnotation]: "{", [Names.claimUidAnnotation]: "x" }
        }
      }),
      ...phases.map((phase) => () => ({ ...sandbox, status: { ...sandbox.status, phase } }))
    ]
    this.sandbox = edits[which % edits.length]?.() ?? sandbox
  }

  /** All is well from now on: agents answer, programs run, nobody interferes. */
  settle(): Decision.Action {
    this.wake()
    for (let round = 0; round < 100; round++) {
      const action = this.act(50)
      if (action._tag !== "WaitUntil") {
        return action
      }
      this.now = action.millis
    }
    return assert.fail("it never came to rest")
  }
}

/** One event of a history; `n` chooses its details. */
const play = (simulation: Simulation, event: number, n: number): void => {
  const calm: ReadonlyArray<() => void> = [
    () => void simulation.act(20),
    () => void simulation.act(1),
    () => {
      simulation.act((n % 4) + 1)
      simulation.forget()
    },
    () => simulation.exit({ reason: "Completed", exitCode: 0 }),
    () => simulation.exit({ reason: "Error", exitCode: 1 }),
    () => {
      simulation.now += [1000, 20_000, 90_000, 600_000][n % 4] ?? 0
    },
    () => simulation.spec({ resetRevision: Instant.format(simulation.now + n) }),
    () => simulation.spec({ expireTime: Instant.format(simulation.now + 5000 * (n % 4)) }),
    () => simulation.spec({ failurePolicy: n % 2 === 0 ? "AutoRecreate" : "Manual" }),
    () => simulation.forget()
  ]
  const rough: ReadonlyArray<() => void> = simulation.isEdited
    ? [() => simulation.edit(n), () => simulation.edit(n)]
    : [() => simulation.silence(n), () => simulation.wake(), () => simulation.kill(n)]
  const all = [...calm, ...rough, ...(n % 8 === 0 ? [() => simulation.remove()] : [])]
  all[event % all.length]?.()
}

const Event = Schema.Struct({
  event: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200 })),
  n: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200 }))
})
const History = Schema.Array(Event).check(Schema.isMaxLength(60))

const run = (history: typeof History.Type, isEdited: boolean): void => {
  const simulation = new Simulation(isEdited)
  for (const { event, n } of history) {
    play(simulation, event, n)
  }
  const action = simulation.settle()
  assert.strictEqual(action._tag, "Nothing", "it has something to do and does not do it")
  const { live, sandbox } = simulation
  if (sandbox === undefined || sandbox.metadata.deletionTimestamp !== undefined) {
    assert.isUndefined(sandbox, "it is never deleted")
    return
  }
  const phase = sandbox.status?.phase ?? "Pending"
  const ids = live.map(({ instanceId }) => instanceId)
  if (terminalPhases.has(phase)) {
    assert.deepStrictEqual(ids, [], `${phase} holds a slot`)
  } else {
    assert.strictEqual(phase, "Running")
    assert.deepStrictEqual(ids, [sandbox.status?.sandboxID])
  }
  const { resetRevision } = sandbox.spec
  const isExpired = phase === "Expired" || Decision.expiryMillis(sandbox)._tag === "Some"
  assert.isTrue(isExpired || resetRevision === sandbox.status?.acceptedResetRevision, "a reset was forgotten")
  // A second controller that knows nothing finds nothing to do either.
  simulation.forget()
  const written = JSON.stringify(simulation.sandbox)
  simulation.settle()
  assert.strictEqual(JSON.stringify(simulation.sandbox), written)
}

describe("random histories", () => {
  it.prop("of agents, programs, users and restarts", [History], ([history]) => run(history, false), {
    arbitrary: { runs: 1000, size: 60 }
  })
  it.prop("of statuses and metadata edited by hand", [History], ([history]) => run(history, true), {
    arbitrary: { runs: 1000, size: 60 }
  })
})
