import { assert, describe, it } from "@effect/vitest"
import * as Instant from "@fast-sandbox/core/Instant"
import type { PoolCapacity, SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import { Schema } from "effect"
import * as PoolPlan from "../../src/pool/PoolPlan.ts"

const t0 = 1_700_000_000_000

let names = 0
const agent = (fields: Partial<PoolPlan.AgentFacts> = {}): PoolPlan.AgentFacts => {
  names += 1
  return {
    pod: `agent-${names}`,
    uid: `uid-${names}`,
    createdAt: t0,
    current: true,
    state: "ready",
    since: t0,
    drain: undefined,
    drainedByUser: false,
    slots: 5,
    used: 0,
    records: 0,
    runtimeProblem: undefined,
    ...fields
  }
}

const spec = (capacity: PoolCapacity): SandboxPoolSpec => ({ capacity, maxSandboxesPerPod: 5 })

const plan = (facts: Partial<PoolPlan.PoolFacts>) =>
  PoolPlan.make({
    spec: {},
    agents: [],
    pending: 0,
    surplusSince: undefined,
    failures: { count: 0, at: 0 },
    now: t0,
    ...facts
  })

describe("a runtime that a node lacks", () => {
  const lacking = { slots: 0, runtimeProblem: "runsc is not installed" }
  it("makes no more agents that would lack it, however many wait", () => {
    const { create, desired } = plan({ spec: spec({ bufferMin: 10 }), agents: [agent(lacking)], pending: 40 })
    assert.deepStrictEqual({ create, desired }, { create: 0, desired: 1 })
  })
  it("does not keep a pool from going back to another", () => {
    const old = agent({ ...lacking, current: false })
    assert.isAbove(plan({ spec: spec({ bufferMin: 5 }), agents: [old] }).create, 0)
  })
})

describe("growing", () => {
  it("an empty pool without demand needs nothing", () => {
    const { create, desired, wakeAt } = plan({})
    assert.deepStrictEqual({ create, desired, wakeAt }, { create: 0, desired: 0, wakeAt: undefined })
  })

  it("poolMin, bufferMin and demand each ask for agents", () => {
    assert.strictEqual(plan({ spec: spec({ poolMin: 3 }) }).create, 3)
    assert.strictEqual(plan({ spec: spec({ bufferMin: 6 }) }).create, 2)
    assert.strictEqual(plan({ spec: spec({}), pending: 1 }).create, 1)
    assert.strictEqual(plan({ spec: spec({ bufferMin: 3 }), pending: 8 }).create, 3)
    assert.strictEqual(plan({ spec: spec({ bufferMin: 2 }), agents: [agent({ used: 4 })] }).create, 1)
    assert.strictEqual(plan({ spec: spec({ bufferMin: 1 }), agents: [agent({ used: 4 })] }).create, 0)
  })

  it("agents that are starting count, silent ones only for a moment", () => {
    assert.strictEqual(plan({ spec: spec({}), pending: 5, agents: [agent({ state: "starting" })] }).create, 0)
    const silent = { spec: spec({}), pending: 1, agents: [agent({ state: "silent", used: 1 })] }
    const { create, wakeAt } = plan(silent)
    assert.deepStrictEqual({ create, wakeAt }, { create: 0, wakeAt: t0 + PoolPlan.silenceGraceMillis })
    assert.strictEqual(plan({ ...silent, now: t0 + PoolPlan.silenceGraceMillis }).create, 1)
  })

  it("stops at poolMax and says so; 0 is no limit", () => {
    const limited = plan({ spec: spec({ poolMax: 2 }), pending: 100, agents: [agent({ used: 5 })] })
    assert.strictEqual(limited.create, 1)
    assert.isTrue(limited.limited)
    assert.strictEqual(plan({ spec: spec({ poolMax: 0 }), pending: 45 }).create, 9)
    assert.strictEqual(plan({ spec: spec({}), pending: 5000 }).create, PoolPlan.maxCreates)
  })

  it("takes back a drain before it makes a Pod", () => {
    const drained = agent({ drain: Instant.format(t0) })
    const { create, resume } = plan({ spec: spec({}), pending: 1, agents: [drained] })
    assert.strictEqual(create, 0)
    assert.deepStrictEqual(resume, [drained])
  })

  it("never takes back what a person drained: a new agent comes for it", () => {
    const drained = agent({ drain: Instant.format(t0), drainedByUser: true, used: 1 })
    const { create, remove, resume } = plan({ spec: spec({}), pending: 1, agents: [drained] })
    assert.deepStrictEqual([create, resume, remove], [1, [], []])
    const empty = plan({ spec: spec({}), agents: [{ ...drained, used: 0 }], now: t0 + PoolPlan.drainQuietMillis })
    assert.deepStrictEqual(empty.remove.map(({ reason }) => reason), ["Drained"])
  })

  it("waits longer and longer when Pods don't come up", () => {
    const failing = { spec: spec({ poolMin: 1 }), failures: { count: 2, at: t0 } }
    const waiting = plan({ ...failing, now: t0 + 19_999 })
    assert.strictEqual(waiting.create, 0)
    assert.strictEqual(waiting.desired, 1)
    assert.strictEqual(waiting.wakeAt, t0 + 20_000)
    assert.strictEqual(plan({ ...failing, now: t0 + 20_000 }).create, 1)
  })
})

describe("shrinking", () => {
  const idle = [agent({ used: 1 }), agent(), agent()]

  it("gives one empty agent back after the surplus has lasted", () => {
    const first = plan({ spec: spec({ bufferMin: 2 }), agents: idle })
    assert.strictEqual(first.drain.length, 0)
    assert.strictEqual(first.surplusSince, t0)
    assert.strictEqual(first.wakeAt, t0 + PoolPlan.surplusMillis)
    const later = plan({
      spec: spec({ bufferMin: 2 }),
      agents: idle,
      surplusSince: t0,
      now: t0 + PoolPlan.surplusMillis
    })
    assert.strictEqual(later.drain.length, 1)
    assert.strictEqual(later.drain[0]?.used, 0)
    assert.strictEqual(later.desired, 2)
  })

  it("keeps bufferMax, poolMin and what is asked for", () => {
    const now = t0 + PoolPlan.surplusMillis
    const due = { agents: idle, surplusSince: t0, now }
    assert.strictEqual(plan({ ...due, spec: spec({ bufferMax: 14 }) }).drain.length, 0)
    assert.strictEqual(plan({ ...due, spec: spec({ poolMin: 3 }) }).drain.length, 0)
    assert.strictEqual(plan({ ...due, spec: spec({ bufferMin: 10 }) }).drain.length, 0)
    assert.strictEqual(plan({ ...due, spec: spec({}), pending: 1 }).drain.length, 0)
  })

  it("removes a drained agent when it is empty and quiet, never one that holds a sandbox", () => {
    const drain = Instant.format(t0)
    const busy = agent({ drain, used: 1 })
    const empty = agent({ drain })
    const facts = { spec: spec({ poolMin: 0 }), agents: [busy, empty] }
    assert.deepStrictEqual(plan({ ...facts, now: t0 + 4999 }).remove, [])
    assert.deepStrictEqual(plan({ ...facts, now: t0 + 5000 }).remove, [{ agent: empty, reason: "Drained" }])
  })

  it("goes below a lowered poolMax, the emptiest first", () => {
    const { drain } = plan({ spec: spec({ poolMax: 1 }), agents: [agent({ used: 5 }), agent({ used: 1 })] })
    assert.deepStrictEqual(drain.map(({ used }) => used), [1])
  })
})

const old = (used: number) => agent({ current: false, used })

describe("replacing", () => {
  it("makes one more, then drains one, one by one", () => {
    const first = old(1)
    const two = [first, old(2)]
    const surge = plan({ spec: spec({ poolMin: 2 }), agents: two })
    assert.strictEqual(surge.create, 1)
    assert.strictEqual(surge.drain.length, 0)
    assert.strictEqual(plan({ spec: spec({ poolMin: 2 }), agents: [...two, agent({ state: "starting" })] }).create, 0)
    const drain = plan({ spec: spec({ poolMin: 2 }), agents: [...two, agent()] })
    assert.strictEqual(drain.create, 0)
    assert.deepStrictEqual(drain.drain, [first])
    const waiting = plan({
      spec: spec({ poolMin: 1 }),
      agents: [agent({ current: false, drain: "x", used: 1 }), old(0), agent()]
    })
    assert.strictEqual(waiting.drain.length, 0)
  })

  it("drains first where poolMax leaves no room", () => {
    const { create, drain } = plan({ spec: spec({ poolMin: 1, poolMax: 1 }), agents: [old(1)] })
    assert.strictEqual(create, 0)
    assert.strictEqual(drain.length, 1)
  })

  it("what never comes up, failed, or fell silent without sandboxes is replaced", () => {
    const late = agent({ state: "starting" })
    const failed = agent({ state: "failed", used: 3 })
    const silent = agent({ state: "silent" })
    const holding = agent({ state: "silent", used: 1 })
    const { remove } = plan({
      spec: spec({}),
      agents: [late, failed, silent, holding],
      now: t0 + PoolPlan.startDeadlineMillis
    })
    assert.deepStrictEqual(remove, [
      { agent: late, reason: "NeverReady" },
      { agent: failed, reason: "PodFailed" },
      { agent: silent, reason: "Silent" }
    ])
  })
})

/** A while later: Pods that were made answer, sandboxes on drained agents have ended, the demand is served. */
const follow = (facts: PoolPlan.PoolFacts, plan: PoolPlan.PoolPlan): PoolPlan.PoolFacts => {
  const removed = new Set(plan.remove.map(({ agent }) => agent.uid))
  const drained = new Set(plan.drain.map(({ uid }) => uid))
  const resumed = new Set(plan.resume.map(({ uid }) => uid))
  const now = plan.wakeAt ?? facts.now + 1000
  const left = facts.agents.filter(({ state, uid }) => state !== "terminating" && !removed.has(uid))
  const aged = left.map((old) =>
    Object.assign(agent(old), {
      state: old.state === "failed" ? old.state : "ready",
      drain: resumed.has(old.uid) ? undefined : drained.has(old.uid) ? Instant.format(now) : old.drain,
      used: old.drain === undefined ? old.used : 0
    })
  )
  const made = Array.from({ length: plan.create }, () => agent({ since: now, createdAt: now }))
  return { ...facts, now, pending: 0, surplusSince: plan.surplusSince, agents: [...aged, ...made] }
}

describe("whatever the pool looks like", () => {
  const Agent = Schema.Struct({
    current: Schema.Boolean,
    state: Schema.Literals(["starting", "ready", "silent", "failed", "terminating"]),
    drained: Schema.Boolean,
    used: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 })),
    age: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 400_000 }))
  })
  const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 8 }))
  const Given = Schema.Struct({
    agents: Schema.Array(Agent).check(Schema.isMaxLength(8)),
    poolMin: Count,
    poolMax: Count,
    bufferMin: Count,
    bufferMax: Count,
    pending: Count,
    hasSurplus: Schema.Boolean
  })

  const factsOf = (given: typeof Given.Type): PoolPlan.PoolFacts => ({
    spec: spec(given),
    agents: given.agents.map(({ age, current, drained, state, used }) =>
      agent({
        current,
        state,
        used,
        since: t0 - age,
        drain: drained ? Instant.format(t0 - age) : undefined
      })
    ),
    pending: given.pending,
    surplusSince: given.hasSurplus ? t0 - PoolPlan.surplusMillis : undefined,
    failures: { count: 0, at: 0 },
    now: t0
  })

  it.prop("no agent that holds a sandbox is removed, and no limit is passed", [Given], ([given]) => {
    const facts = factsOf(given)
    const { create, drain, remove, resume } = PoolPlan.make(facts)
    const most = given.poolMax === 0 ? Infinity : Math.max(given.poolMax, given.poolMin)
    const existing = facts.agents.filter(({ state }) => state !== "terminating").length - remove.length
    assert.isTrue(remove.every(({ agent, reason }) => agent.used === 0 || reason === "PodFailed"))
    assert.isTrue(create === 0 || existing + create <= most)
    assert.isTrue(create <= PoolPlan.maxCreates)
    assert.isTrue(drain.every((agent) => agent.drain === undefined))
    assert.isTrue(resume.every((agent) => agent.drain !== undefined))
    assert.isTrue(drain.every((agent) => remove.every((removal) => removal.agent !== agent)))
    return true
  })

  it.prop("following the plan comes to rest, with everybody served and nothing to spare", [Given], ([given]) => {
    let facts = factsOf(given)
    for (let round = 0; round < 100; round++) {
      const plan = PoolPlan.make(facts)
      const isQuiet = plan.create + plan.drain.length + plan.resume.length + plan.remove.length === 0 &&
        facts.agents.every(({ drain, state, used }) => state === "ready" && (drain === undefined || used === 0))
      if (isQuiet && plan.wakeAt === undefined) {
        const serving = facts.agents.filter(({ drain, state }) => drain === undefined && state === "ready")
        assert.isTrue(serving.every(({ current }) => current))
        assert.isTrue(serving.length >= given.poolMin)
        return true
      }
      facts = follow(facts, plan)
    }
    return false
  })
})
