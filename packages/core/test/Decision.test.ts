import { assert, describe, it } from "@effect/vitest"
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Decision from "@fast-sandbox/core/Decision"
import * as Instant from "@fast-sandbox/core/Instant"
import * as Names from "@fast-sandbox/core/Names"
import type { Sandbox, SandboxSpec, SandboxStatus } from "@fast-sandbox/core/Sandbox"

const t0 = 1_700_000_000_000
const assignment = { instanceId: "i1", pod: "agent-a", podUid: "a", node: "n1" }
const { AgentPresence } = Decision

interface Given {
  readonly spec?: Partial<SandboxSpec>
  readonly status?: SandboxStatus | undefined
  readonly finalizers?: ReadonlyArray<string>
  readonly annotations?: Record<string, string>
  readonly deleting?: boolean
  readonly generation?: number
  readonly instances?: ReadonlyArray<Decision.ObservedInstance>
  readonly agent?: Decision.AgentPresence
  readonly provenGone?: ReadonlyArray<string>
  readonly unanswered?: ReadonlyArray<Assignment.Assignment>
  readonly unheardSince?: number
  readonly refusal?: Decision.StartRefusal
  readonly delays?: ReadonlyArray<number>
  readonly now?: number
}

const sandboxOf = (given: Given): Sandbox => ({
  apiVersion: Names.apiVersion,
  kind: "Sandbox",
  metadata: {
    name: "s",
    namespace: "default",
    uid: "u1",
    generation: given.generation ?? 1,
    creationTimestamp: Instant.format(t0),
    finalizers: given.finalizers ?? [Names.finalizer],
    ...(given.annotations === undefined ? {} : { annotations: given.annotations }),
    ...(given.deleting === true ? { deletionTimestamp: Instant.format(t0) } : {})
  },
  spec: { image: "alpine", poolRef: "p", ...given.spec },
  ...(given.status === undefined ? {} : { status: given.status })
})

const worldOf = (given: Given): Decision.World => ({
  sandbox: sandboxOf(given),
  instances: given.instances ?? [],
  presence: () => given.agent ?? AgentPresence.Synced(),
  provenGone: new Set(given.provenGone),
  unanswered: given.unanswered ?? [],
  unheardSinceMillis: given.unheardSince,
  refusals: new Map(given.refusal === undefined ? [] : [["i1", given.refusal]]),
  recoveryDelaysMillis: given.delays ?? [1000, 2000],
  now: given.now ?? t0
})

const decide = (given: Given) => Decision.decide(worldOf(given))

const instance = (changes: Partial<Decision.ObservedInstance> = {}): Decision.ObservedInstance => ({
  ...assignment,
  reachable: true,
  bound: true,
  state: "Running",
  reason: "",
  message: "",
  createdAt: Instant.format(t0),
  startedAt: Instant.format(t0),
  endpoints: [],
  ...changes
})

const exited = (changes: Partial<Decision.ObservedInstance> = {}) =>
  instance({
    state: "Exited",
    reason: "Completed",
    exitCode: 0,
    finishedAt: Instant.format(t0 + 1000),
    ...changes
  })

/** The status that a sandbox comes to rest with, when nothing but reports are carried out. */
const settle = (given: Given): { readonly status: SandboxStatus | undefined; readonly action: Decision.Action } => {
  let status = given.status
  for (let reports = 0; reports < 4; reports++) {
    const action = decide({ ...given, status })
    if (action._tag !== "ReportStatus") {
      return { status, action }
    }
    status = action.status
  }
  return assert.fail("reports without end")
}

const scheduled = Decision.placed(sandboxOf({}), {}, assignment, t0)
const running = settle({ status: scheduled, instances: [instance()] }).status
const condition = (status: SandboxStatus | undefined, type: string) =>
  status?.conditions?.find((condition) => condition.type === type)

describe("creation", () => {
  it("begins with the finalizer", () => {
    assert.strictEqual(decide({ finalizers: [] })._tag, "AddFinalizer")
    assert.strictEqual(decide({ finalizers: ["foreign/finalizer"] })._tag, "AddFinalizer")
  })

  it("places, records, starts, reports and rests", () => {
    assert.deepStrictEqual(decide({}), Decision.Action.Place({ draft: {} }))
    assert.strictEqual(scheduled.phase, "Scheduled")
    assert.deepStrictEqual(decide({ status: scheduled }), Decision.Action.StartInstance({ assignment }))
    assert.strictEqual(running?.phase, "Running")
    assert.strictEqual(condition(running, "Ready")?.status, "True")
    assert.strictEqual(condition(running, "Scheduled")?.status, "True")
    assert.strictEqual(decide({ status: running, instances: [instance()] })._tag, "Nothing")
  })

  it("shows a slow start", () => {
    const { status } = settle({ status: scheduled, instances: [instance({ state: "Creating" })] })
    assert.strictEqual(status?.phase, "Starting")
    assert.strictEqual(condition(status, "Ready")?.reason, "Starting")
  })

  it("says why nobody takes it, once", () => {
    const pending = Decision.unplaced(sandboxOf({}), {}, { reason: "NoCapacity", message: "full" }, t0)
    assert.strictEqual(pending.phase, "Pending")
    assert.strictEqual(condition(pending, "Scheduled")?.reason, "NoCapacity")
    const again = decide({ status: pending, now: t0 + 60_000 })
    assert.strictEqual(again._tag, "Place")
    const draft = again._tag === "Place" ? again.draft : {}
    assert.deepStrictEqual(
      Decision.unplaced(sandboxOf({}), draft, { reason: "NoCapacity", message: "full" }, t0 + 60_000),
      pending
    )
  })

  it("takes the next agent after a refusal and fails after a fatal one", () => {
    assert.strictEqual(decide({ status: scheduled, refusal: Decision.StartRefusal.NoRoom() })._tag, "Place")
    const { action, status } = settle({
      status: scheduled,
      refusal: Decision.StartRefusal.Fatal({ reason: "ImageNotPresent", message: "pull it", atMillis: t0 })
    })
    assert.strictEqual(action._tag, "Nothing")
    assert.strictEqual(status?.phase, "Failed")
    assert.strictEqual(status?.reason, "ImageNotPresent")
    assert.strictEqual(status?.finishedAt, Instant.format(t0))
  })

  it("chooses anew when the agent goes before the start", () => {
    assert.strictEqual(decide({ status: scheduled, agent: AgentPresence.Missing() })._tag, "ConfirmAgentGone")
    assert.strictEqual(decide({ status: scheduled, agent: AgentPresence.Gone() })._tag, "Place")
    assert.strictEqual(decide({ status: scheduled, agent: AgentPresence.Unknown() })._tag, "Nothing")
    const silent = AgentPresence.Silent({ sinceMillis: t0 })
    assert.strictEqual(decide({ status: scheduled, agent: silent, now: t0 + 59_999 })._tag, "ReportStatus")
    assert.strictEqual(decide({ status: scheduled, agent: silent, now: t0 + 60_000 })._tag, "Place")
  })

  it("accepts the revision that it was created with", () => {
    const spec = { resetRevision: "2026-01-01T00:00:00.000001Z" }
    const status = Decision.placed(sandboxOf({ spec }), {}, assignment, t0)
    assert.strictEqual(status.acceptedResetRevision, spec.resetRevision)
    assert.strictEqual(decide({ spec, status })._tag, "StartInstance")
  })
})

describe("a creator's assignment", () => {
  const unclaimed = { [Names.assignmentAnnotation]: Assignment.encode(assignment) }
  const fast = { ...unclaimed, [Names.claimUidAnnotation]: "c1" }
  const strong = { annotations: fast, spec: { consistencyMode: "strong" } } as const

  it("is left alone for the grace period", () => {
    assert.deepStrictEqual(
      decide({ ...strong, now: t0 + 14_999 }),
      Decision.Action.WaitUntil({ millis: t0 + 15_000 })
    )
  })

  it("is forbidden, and another one is made, when a strong create did not get to the start", () => {
    const late = { ...strong, now: t0 + 15_000 }
    assert.deepStrictEqual(decide(late), Decision.Action.DeleteInstances({ targets: [assignment] }))
    assert.strictEqual(decide({ ...late, provenGone: ["i1"] })._tag, "Place")
    assert.strictEqual(decide({ ...late, annotations: unclaimed, provenGone: ["i1"] })._tag, "Place")
  })

  it("means a loss when the agent is gone that a strong create may have used", () => {
    const { status } = settle({ ...strong, agent: AgentPresence.Gone(), now: t0 + 15_000 })
    assert.strictEqual(status?.phase, "Lost")
  })

  it("is projected as soon as the instance is seen", () => {
    const { action, status } = settle({ annotations: fast, instances: [instance({ bound: false })] })
    assert.strictEqual(status?.phase, "Running")
    assert.strictEqual(status?.sandboxID, "i1")
    assert.deepStrictEqual(action, Decision.Action.WaitUntil({ millis: t0 + 15_000 }))
  })

  it("is bound by the controller when the creator did not get to it", () => {
    const { action } = settle({ annotations: fast, instances: [instance({ bound: false })], now: t0 + 15_000 })
    assert.deepStrictEqual(action, Decision.Action.BindInstance({ assignment }))
  })

  it("means a loss when a fast create's instance is not there", () => {
    const { status } = settle({ annotations: fast, now: t0 + 15_000 })
    assert.strictEqual(status?.phase, "Lost")
    assert.strictEqual(status?.sandboxID, "i1")
  })

  it("is ignored when it can't be read", () => {
    assert.strictEqual(decide({ annotations: { [Names.assignmentAnnotation]: "{nonsense" } })._tag, "Place")
  })

  it("keeps a reset that came before the first status", () => {
    const spec = { resetRevision: "2026-01-01T00:00:00Z" }
    const created = settle({ annotations: fast, spec, instances: [instance()] })
    assert.strictEqual(created.action._tag, "Nothing")
    const updated = settle({ annotations: fast, spec, instances: [instance()], generation: 2 })
    assert.strictEqual(updated.action._tag, "StopInstance")
  })
})

it("late news of a start do not take back that it runs", () => {
  assert.strictEqual(decide({ status: running, instances: [instance({ state: "Creating" })] })._tag, "Nothing")
})

describe("endings", () => {
  const cases: ReadonlyArray<readonly [string, Partial<Decision.ObservedInstance>, Partial<SandboxStatus>]> = [
    ["exit code 0", {}, { phase: "Succeeded", exitCode: 0, reason: "Completed" }],
    ["exit code 3", { reason: "Error", exitCode: 3 }, { phase: "Failed", exitCode: 3, reason: "Error" }],
    ["a signal", { reason: "Error", exitCode: 137, signal: 9 }, { phase: "Failed", signal: 9, exitCode: 137 }],
    ["memory", { reason: "OOMKilled", exitCode: 137, signal: 9 }, { phase: "Failed", reason: "OOMKilled" }],
    ["a failed start", { reason: "StartFailed", message: "no such file" }, {
      phase: "Failed",
      reason: "StartFailed",
      message: "no such file"
    }],
    ["a stop that nobody here asked for", { reason: "Stopped", exitCode: 0 }, { phase: "Stopped" }]
  ]
  it.each(cases)("%s", (_, changes, wanted) => {
    const { action, status } = settle({ status: running, instances: [exited(changes)] })
    assert.strictEqual(action._tag, "Nothing")
    assert.deepInclude({ ...status }, wanted)
    assert.strictEqual(status?.finishedAt, Instant.format(t0 + 1000))
    // The record's agent may go: what became of the program stays known.
    assert.strictEqual(decide({ status, agent: AgentPresence.Gone() })._tag, "Nothing")
  })
})

describe("deletion", () => {
  it("deletes the instance, then the finalizer", () => {
    assert.deepStrictEqual(
      decide({ status: running, deleting: true, instances: [instance()] }),
      Decision.Action.DeleteInstances({ targets: [assignment] })
    )
    assert.strictEqual(decide({ status: running, deleting: true, provenGone: ["i1"] })._tag, "RemoveFinalizer")
  })

  it("asks the agent about a start that may be on its way", () => {
    assert.deepStrictEqual(
      decide({ status: scheduled, deleting: true }),
      Decision.Action.DeleteInstances({ targets: [assignment] })
    )
  })

  it("waits for a silent agent unless forced; a gone one is proof", () => {
    const agent = AgentPresence.Silent({ sinceMillis: t0 })
    const { action, status } = settle({ status: running, deleting: true, agent, now: t0 + 1e9 })
    assert.strictEqual(action._tag, "Nothing")
    assert.strictEqual(status?.phase, "Deleting")
    const annotations = { [Names.forceDeleteAnnotation]: "true" }
    assert.strictEqual(decide({ status: running, deleting: true, agent, annotations })._tag, "RemoveFinalizer")
    assert.strictEqual(
      decide({ status: running, deleting: true, agent: AgentPresence.Missing() })._tag,
      "ConfirmAgentGone"
    )
    assert.strictEqual(decide({ status: running, deleting: true, agent: AgentPresence.Gone() })._tag, "RemoveFinalizer")
  })

  it("still cleans up when somebody removed the finalizer", () => {
    const given = { status: running, deleting: true, finalizers: ["other/finalizer"] }
    assert.strictEqual(decide({ ...given, instances: [instance()] })._tag, "DeleteInstances")
    assert.strictEqual(decide(given)._tag, "Nothing")
  })

  it("needs nothing when nothing was placed", () => {
    assert.strictEqual(decide({ deleting: true })._tag, "RemoveFinalizer")
  })
})

describe("expiry", () => {
  const spec = { expireTime: Instant.format(t0 + 1000) }

  it("is a timer, by time and by age", () => {
    for (const given of [{ spec }, { spec: { ttlSeconds: 1 } }]) {
      assert.deepStrictEqual(
        decide({ ...given, status: running, instances: [instance()] }),
        Decision.Action.WaitUntil({ millis: t0 + 1000 })
      )
    }
  })

  it("stops the instance, then stays as Expired", () => {
    const stopping = settle({ spec, status: running, instances: [instance()], now: t0 + 1000 })
    assert.strictEqual(stopping.status?.phase, "Stopping")
    assert.strictEqual(stopping.action._tag, "StopInstance")
    const done = settle({
      spec,
      status: stopping.status,
      instances: [exited({ reason: "Stopped" })],
      now: t0 + 2000
    })
    assert.strictEqual(done.status?.phase, "Expired")
    assert.strictEqual(condition(done.status, "Expired")?.status, "True")
    assert.strictEqual(done.action._tag, "Nothing")
    const later = { ...spec, expireTime: Instant.format(t0 + 1e9) }
    const waiting = settle({
      spec: later,
      status: done.status,
      instances: [exited({ reason: "Stopped" })],
      now: t0 + 3000
    })
    assert.strictEqual(waiting.status?.phase, "Expired")
    const revived = decide({
      spec: { ...later, resetRevision: "2026-01-01T00:00:00Z" },
      status: done.status,
      instances: [exited({ reason: "Stopped" })],
      now: t0 + 3000
    })
    assert.strictEqual(revived._tag, "Place")
  })

  it("in the past at creation starts nothing", () => {
    const { action, status } = settle({ spec: { expireTime: Instant.format(t0 - 1) } })
    assert.strictEqual(status?.phase, "Expired")
    assert.strictEqual(action._tag, "Nothing")
  })

  it("proves that a start on its way is gone first", () => {
    assert.strictEqual(decide({ spec, status: scheduled, now: t0 + 1000 })._tag, "DeleteInstances")
    const { status } = settle({ spec, status: scheduled, provenGone: ["i1"], now: t0 + 1000 })
    assert.strictEqual(status?.phase, "Expired")
  })

  it("does not rewrite an end that came before", () => {
    const { status } = settle({ spec, status: running, instances: [exited()], now: t0 + 5000 })
    assert.strictEqual(status?.phase, "Succeeded")
  })

  it("stops what turns up again after it", () => {
    const agent = AgentPresence.Silent({ sinceMillis: t0 })
    const expired = settle({ spec, status: running, agent, now: t0 + 70_000 })
    assert.strictEqual(expired.status?.phase, "Expired")
    const { action, status } = settle({ spec, status: expired.status, instances: [instance()], now: t0 + 80_000 })
    assert.strictEqual(status?.phase, "Expired")
    assert.strictEqual(action._tag, "StopInstance")
  })

  it("ends a recovery that waits", () => {
    const given = { spec: { ...spec, failurePolicy: "AutoRecreate" as const } }
    const instances = [exited({ reason: "Error", exitCode: 1 })]
    const failed = settle({ ...given, status: running, instances, delays: [5000] })
    assert.strictEqual(failed.status?.phase, "Failed")
    assert.deepStrictEqual(failed.action, Decision.Action.WaitUntil({ millis: t0 + 1000 }))
    const done = settle({ ...given, status: failed.status, instances, now: t0 + 1000 })
    assert.strictEqual(done.status?.phase, "Expired")
    assert.isUndefined(done.status?.recovery)
  })
})

describe("reset", () => {
  const spec = { resetRevision: "2026-01-01T00:00:00.5Z" }

  it("stops gracefully, starts anew, accepts", () => {
    const stopping = settle({ spec, status: running, instances: [instance()] })
    assert.strictEqual(stopping.status?.phase, "Stopping")
    assert.strictEqual(stopping.action._tag, "StopInstance")
    const place = decide({ spec, status: stopping.status, instances: [exited({ reason: "Stopped" })] })
    assert.strictEqual(place._tag, "Place")
    const draft = place._tag === "Place" ? place.draft : {}
    assert.strictEqual(draft.restarts, 1)
    const second = Decision.placed(sandboxOf({ spec }), draft, { ...assignment, instanceId: "i2" }, t0)
    assert.strictEqual(second.acceptedResetRevision, spec.resetRevision)
    assert.isUndefined(second.finishedAt)
    const next = decide({ spec, status: second, instances: [exited({ reason: "Stopped" })] })
    assert.deepStrictEqual(next, Decision.Action.DeleteInstances({ targets: [assignment] }))
    assert.strictEqual(decide({ spec, status: second })._tag, "StartInstance")
  })

  it("compares text", () => {
    const status = { ...running, acceptedResetRevision: "2026-01-01T00:00:00.500Z" }
    assert.strictEqual(settle({ spec, status, instances: [instance()] }).action._tag, "StopInstance")
  })

  it("works in every phase and waits for a silent agent", () => {
    for (const phase of ["Succeeded", "Failed", "Stopped", "Lost"] as const) {
      const status = { ...running, phase, finishedAt: Instant.format(t0) }
      assert.strictEqual(decide({ spec, status })._tag, "Place", phase)
    }
    const agent = AgentPresence.Silent({ sinceMillis: t0 })
    assert.deepStrictEqual(
      decide({ spec, status: running, agent, now: t0 + 1 }),
      Decision.Action.WaitUntil({ millis: t0 + 60_000 })
    )
    assert.strictEqual(decide({ spec, status: running, agent, now: t0 + 60_000 })._tag, "Place")
  })

  it("clears what recoveries counted", () => {
    const status = {
      ...running,
      phase: "Failed" as const,
      finishedAt: Instant.format(t0),
      recovery: { attempt: 20, since: "" }
    }
    const place = decide({ spec, status })
    assert.isUndefined(place._tag === "Place" ? place.draft.recovery : "not placed")
  })
})

describe("loss", () => {
  const silent = AgentPresence.Silent({ sinceMillis: t0 })

  it("a short silence is told and changes nothing", () => {
    const early = decide({ status: running, agent: silent, now: t0 + 4999 })
    assert.deepStrictEqual(early, Decision.Action.WaitUntil({ millis: t0 + 5000 }))
    const told = settle({ status: running, agent: silent, now: t0 + 5000 })
    assert.strictEqual(told.status?.phase, "Running")
    assert.strictEqual(condition(told.status, "Ready")?.status, "Unknown")
    assert.deepStrictEqual(told.action, Decision.Action.WaitUntil({ millis: t0 + 60_000 }))
    const back = settle({ status: told.status, instances: [instance()], now: t0 + 59_000 })
    assert.strictEqual(condition(back.status, "Ready")?.status, "True")
  })

  it("is counted from before a restart of the controller", () => {
    const told = settle({ status: running, agent: silent, now: t0 + 5000 })
    const restarted = AgentPresence.Silent({ sinceMillis: t0 + 50_000 })
    const { status } = settle({ status: told.status, agent: restarted, now: t0 + 65_000 })
    assert.strictEqual(status?.phase, "Lost")
  })

  it("Manual stays Lost, also when the agent returns", () => {
    const { action, status } = settle({ status: running, agent: AgentPresence.Gone() })
    assert.strictEqual(status?.phase, "Lost")
    assert.strictEqual(status?.reason, "AgentLost")
    assert.strictEqual(action._tag, "Nothing")
    assert.strictEqual(decide({ status, instances: [instance()] })._tag, "StopInstance")
    assert.strictEqual(settle({ status, instances: [exited()] }).status?.phase, "Lost")
  })

  it("an instance that vanished from its agent is lost", () => {
    assert.strictEqual(settle({ status: running }).status?.reason, "InstanceLost")
  })
})

describe("AutoRecreate", () => {
  const spec = { failurePolicy: "AutoRecreate" as const }
  const failure = [exited({ reason: "Error", exitCode: 1 })]

  it("paces, starts a successor, counts, and is stable in the end", () => {
    const failed = settle({ spec, status: running, instances: failure })
    assert.strictEqual(failed.status?.phase, "Failed")
    assert.deepStrictEqual(failed.status?.recovery, {
      attempt: 1,
      since: Instant.format(t0),
      nextAt: Instant.format(t0 + 1000)
    })
    assert.strictEqual(condition(failed.status, "Recovering")?.status, "True")
    assert.deepStrictEqual(failed.action, Decision.Action.WaitUntil({ millis: t0 + 1000 }))
    // Another draw changes nothing: the instant is in the status.
    assert.strictEqual(decide({ spec, status: failed.status, instances: failure, delays: [9e9] })._tag, "WaitUntil")
    const place = decide({ spec, status: failed.status, instances: failure, now: t0 + 1000 })
    const draft = place._tag === "Place" ? place.draft : assert.fail(place._tag)
    const next = { ...assignment, instanceId: "i2" }
    const second = Decision.placed(sandboxOf({ spec }), draft, next, t0 + 1000)
    assert.strictEqual(second.restarts, 1)
    const startedAt = Instant.format(t0 + 1000)
    const up = settle({ spec, status: second, instances: [instance({ ...next, startedAt })], now: t0 + 1000 })
    assert.strictEqual(condition(up.status, "Recovering")?.reason, "Recovered")
    assert.deepStrictEqual(up.action, Decision.Action.WaitUntil({ millis: t0 + 601_000 }))
    const again = settle({ spec, status: up.status, instances: [exited({ ...next, reason: "Error", exitCode: 1 })] })
    assert.strictEqual(again.status?.recovery?.attempt, 2)
    const stable = settle({ spec, status: up.status, instances: [instance({ ...next, startedAt })], now: t0 + 601_000 })
    assert.isUndefined(stable.status?.recovery)
    const later = settle({
      spec,
      status: stable.status,
      instances: [exited({ ...next, reason: "Error", exitCode: 1 })]
    })
    assert.strictEqual(later.status?.recovery?.attempt, 1)
  })

  it("gives up after the last attempt", () => {
    const { action, status } = settle({ spec, status: running, instances: failure, delays: [] })
    assert.strictEqual(status?.phase, "Failed")
    assert.strictEqual(status?.reason, "RecoveryExhausted")
    assert.strictEqual(condition(status, "Recovering")?.status, "False")
    assert.strictEqual(action._tag, "Nothing")
    assert.strictEqual(decide({ spec, status, agent: AgentPresence.Gone(), delays: [] })._tag, "Nothing")
  })

  it("replaces what was lost, without waiting for proof from a silent agent", () => {
    const agent = AgentPresence.Silent({ sinceMillis: t0 })
    const lost = settle({ spec, status: running, agent, now: t0 + 60_000 })
    assert.strictEqual(lost.status?.phase, "Lost")
    assert.strictEqual(decide({ spec, status: lost.status, agent, now: t0 + 61_000 })._tag, "Place")
    const restarted = AgentPresence.Silent({ sinceMillis: t0 + 61_000 })
    assert.strictEqual(decide({ spec, status: lost.status, agent: restarted, now: t0 + 61_000 })._tag, "Place")
  })

  it("takes back what returns before its successor", () => {
    const lost = settle({ spec, status: running, agent: AgentPresence.Gone() })
    const { status } = settle({ spec, status: lost.status, instances: [instance()] })
    assert.strictEqual(status?.phase, "Running")
    assert.isUndefined(status?.recovery?.nextAt)
  })

  it("does not wait for an instant that nobody can have planned", () => {
    const failed = settle({ spec, status: running, instances: failure })
    const status = { ...failed.status, recovery: { attempt: 1, since: "", nextAt: "2999-01-01T00:00:00Z" } }
    assert.strictEqual(decide({ spec, status, instances: failure })._tag, "Place")
    const garbage = { ...failed.status, recovery: { attempt: 1, since: "", nextAt: "soon" } }
    assert.strictEqual(decide({ spec, status: garbage, instances: failure })._tag, "Place")
  })

  it("is not fooled by a phase that somebody wrote: the end is proven first", () => {
    const status = {
      ...running,
      phase: "Failed" as const,
      recovery: { attempt: 1, since: "", nextAt: Instant.format(t0) }
    }
    assert.strictEqual(decide({ spec, status })._tag, "DeleteInstances")
    const agent = AgentPresence.Silent({ sinceMillis: t0 })
    assert.strictEqual(decide({ spec, status, agent, now: t0 + 1 })._tag, "WaitUntil")
  })
})

describe("superseded instances", () => {
  it("are deleted at once when their agent answers", () => {
    const old = instance({ instanceId: "i0", podUid: "b", pod: "agent-b" })
    const action = decide({ status: running, instances: [instance(), old] })
    assert.deepStrictEqual(
      action,
      Decision.Action.DeleteInstances({ targets: [{ instanceId: "i0", podUid: "b", pod: "agent-b", node: "n1" }] })
    )
    assert.strictEqual(
      decide({ status: running, instances: [instance(), { ...old, reachable: false }] })._tag,
      "Nothing"
    )
  })

  it("are deleted, too, when their start was asked for and not answered", () => {
    const stray = { ...assignment, instanceId: "i0" }
    assert.deepStrictEqual(
      decide({ unanswered: [stray] }),
      Decision.Action.DeleteInstances({ targets: [stray] })
    )
    const agent = AgentPresence.Silent({ sinceMillis: t0 })
    assert.deepStrictEqual(
      decide({ unanswered: [stray], agent, now: t0 + 1 }),
      Decision.Action.WaitUntil({ millis: t0 + 60_000 })
    )
    assert.strictEqual(decide({ unanswered: [stray], agent, now: t0 + 60_000 })._tag, "Place")
    assert.strictEqual(decide({ status: running, instances: [instance()], unanswered: [stray], agent })._tag, "Nothing")
    assert.strictEqual(decide({ unanswered: [stray], provenGone: ["i0"] })._tag, "Place")
  })

  it("a wiped status waits for agents that never said what they hold", () => {
    assert.deepStrictEqual(
      decide({ unheardSince: t0, now: t0 + 1 }),
      Decision.Action.WaitUntil({ millis: t0 + 60_000 })
    )
    assert.strictEqual(decide({ unheardSince: t0, now: t0 + 60_000 })._tag, "Place")
    assert.strictEqual(decide({ unheardSince: t0, instances: [instance()] })._tag, "ReportStatus")
  })

  it("a wiped status finds the live instance again", () => {
    const { status } = settle({ instances: [exited({ instanceId: "i0" }), instance()], provenGone: ["i0"] })
    assert.strictEqual(status?.sandboxID, "i1")
    assert.strictEqual(
      decide({ instances: [exited({ instanceId: "i0" }), instance()] })._tag,
      "DeleteInstances"
    )
  })
})
