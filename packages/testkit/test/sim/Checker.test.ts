import { assert, describe, it } from "@effect/vitest"
import { finalizer } from "@fast-sandbox/core/Names"
import type { Sandbox, SandboxStatus } from "@fast-sandbox/core/Sandbox"
import * as Checker from "@fast-sandbox/testkit/sim/Checker"
import type { Entry, Happening } from "@fast-sandbox/testkit/sim/History"

const sandbox = (status: SandboxStatus | undefined, metadata: Partial<Sandbox["metadata"]> = {}): Sandbox => ({
  apiVersion: "sandbox.fast.io/v1alpha1",
  kind: "Sandbox",
  metadata: { name: "ada", namespace: "default", uid: "uid-1", finalizers: [finalizer], ...metadata },
  spec: { image: "alpine", poolRef: "pool", recoveryTimeoutSeconds: 30 },
  ...(status === undefined ? {} : { status })
})

const admitted = (instanceId: string, agent: string, ports: ReadonlyArray<number> = []): Happening => ({
  _tag: "InstanceAdmitted",
  instance: {
    instanceId,
    agent,
    namespace: "default",
    name: "ada",
    claimUid: `claim of ${instanceId.slice(0, 1)}`,
    resourceUid: "uid-1",
    ports
  }
})

const ended = (instanceId: string, agent: string): Happening => ({
  _tag: "InstanceEnded",
  agent,
  instanceId,
  why: "Stopped"
})

const started = (agent: string, slots = 2): Happening => ({ _tag: "AgentStarted", agent, slots })

const stored = (before: SandboxStatus | undefined, after: SandboxStatus, by = "controller 1"): Happening => ({
  _tag: "Stored",
  by,
  before: sandbox(before),
  after: sandbox(after)
})

const removed: Happening = { _tag: "Removed", by: "controller 1", sandbox: sandbox(undefined) }

const acknowledged: Happening = { _tag: "CreateAcknowledged", sandbox: "default/ada", id: "uid-1" }

const failed: SandboxStatus = {
  phase: "Failed",
  reason: "Error",
  conditions: [{
    type: "Ready",
    status: "False",
    reason: "Error",
    message: "exit code 1",
    lastTransitionTime: "2030-01-01T00:00:00Z"
  }]
}

/** Each happening a second after the one before, unless it says when. */
const timed = (events: ReadonlyArray<Happening | readonly [seconds: number, Happening]>): ReadonlyArray<Entry> => {
  let at = 0
  return events.map((event) => {
    at = "_tag" in event ? at + 1000 : event[0] * 1000
    return { at, event: "_tag" in event ? event : event[1] }
  })
}

type Events = ReadonlyArray<Happening | readonly [seconds: number, Happening]>

/** For each invariant: histories that keep it, and histories that break it. */
const examples: {
  readonly [invariant: string]: { readonly holds: ReadonlyArray<Events>; readonly breaks: ReadonlyArray<Events> }
} = {
  "at most one live instance": {
    holds: [
      [started("x"), started("y"), admitted("a1", "x"), ended("a1", "x"), admitted("a2", "y")],
      [started("x"), admitted("a1", "x"), admitted("b1", "x")],
      // The old one is on an agent that has been silent for longer than the recovery timeout.
      [
        started("x"),
        started("y"),
        stored(undefined, { phase: "Running" }),
        [20, admitted("a1", "x")],
        [30, { _tag: "AgentSilent", agent: "x" }],
        [95, admitted("a2", "y")]
      ],
      // Nothing but a status that a user wiped named the start that was still on its way.
      [
        started("x"),
        started("y"),
        stored({ phase: "Scheduled", sandboxID: "a1" }, {}, "user"),
        admitted("a2", "y"),
        admitted("a1", "x")
      ]
    ],
    breaks: [
      [started("x"), started("y"), admitted("a1", "x"), admitted("a2", "y")],
      // The wiped status named a start that had arrived.
      [
        started("x"),
        started("y"),
        admitted("a1", "x"),
        stored({ phase: "Running", sandboxID: "a1" }, {}, "user"),
        admitted("a2", "y")
      ],
      [
        started("x"),
        started("y"),
        [20, admitted("a1", "x")],
        [30, { _tag: "AgentSilent", agent: "x" }],
        [40, admitted("a2", "y")]
      ],
      // Silent for long, but back for long enough that everybody noticed.
      [
        started("x"),
        started("y"),
        [20, admitted("a1", "x")],
        [30, { _tag: "AgentSilent", agent: "x" }],
        [100, { _tag: "AgentReachable", agent: "x" }],
        [120, admitted("a2", "y")]
      ]
    ]
  },
  "slots and ports within capacity": {
    holds: [
      [started("x", 2), admitted("a1", "x", [80]), admitted("b1", "x", [81])],
      [started("x", 1), admitted("a1", "x", [80]), ended("a1", "x"), admitted("b1", "x", [80])]
    ],
    breaks: [
      [started("x", 1), admitted("a1", "x"), admitted("b1", "x")],
      [started("x", 2), admitted("a1", "x", [80]), admitted("b1", "x", [80])]
    ]
  },
  "an instance id is started once": {
    holds: [[started("x"), admitted("a1", "x"), admitted("a2", "x")]],
    breaks: [[started("x"), started("y"), admitted("a1", "x"), ended("a1", "x"), admitted("a1", "y")]]
  },
  "nothing acknowledged is lost": {
    holds: [
      [acknowledged, { _tag: "DeleteInvoked", sandbox: "default/ada" }, removed],
      [removed]
    ],
    breaks: [[acknowledged, removed]]
  },
  "nothing deleted returns": {
    holds: [[{ _tag: "Stored", by: "user", before: undefined, after: sandbox(undefined) }, removed]],
    breaks: [[removed, { _tag: "Stored", by: "controller 1", before: undefined, after: sandbox(undefined) }]]
  },
  "every terminal state has a reason": {
    holds: [[stored({ phase: "Running" }, failed)], [stored({ phase: "Running" }, { phase: "Failed" }, "user")]],
    breaks: [
      [stored({ phase: "Running" }, { ...failed, reason: "" })],
      [stored({ phase: "Running" }, { phase: "Failed", reason: "Error" })]
    ]
  },
  "legal transitions": {
    holds: [[stored({ phase: "Running" }, failed)], [stored({ phase: "Succeeded" }, { phase: "Running" }, "user")]],
    breaks: [
      [stored({ phase: "Succeeded" }, { phase: "Running" })],
      [stored({ phase: "Running" }, {})]
    ]
  },
  "controllers live until they are killed": {
    holds: [[{ _tag: "ControllerCrashed", term: 1 }]],
    breaks: [[{ _tag: "ControllerDied", term: 1, why: "a defect" }]]
  }
}

describe("Checker", () => {
  it("has examples for every invariant", () => {
    assert.deepStrictEqual(Object.keys(examples).toSorted(), Object.keys(Checker.invariants).toSorted())
  })

  for (const [invariant, { breaks, holds }] of Object.entries(examples)) {
    it(`${invariant}: holds`, () => {
      for (const events of holds) {
        assert.deepStrictEqual(Checker.check(invariant, timed(events)), [])
      }
    })

    it(`${invariant}: breaks`, () => {
      for (const events of breaks) {
        assert.strictEqual(Checker.check(invariant, timed(events)).length, 1, JSON.stringify(events))
      }
    })
  }
})

const missing = (events: Events) => Checker.neverWritten({ entries: [...timed(events)] })

describe("neverWritten", () => {
  const told: Happening = { _tag: "CreateAcknowledged", sandbox: "default/ada", id: "claim of a" }
  const other: Happening = { _tag: "Stored", by: "user", before: undefined, after: sandbox(undefined) }

  it("holds", () => {
    const written = sandbox(undefined, { annotations: { "fast-sandbox.io/claim-uid": "claim of a" } })
    assert.deepStrictEqual(
      missing([told, { _tag: "Stored", by: "controller 1", before: undefined, after: written }]),
      []
    )
    assert.deepStrictEqual(missing([told, { _tag: "DeleteInvoked", sandbox: "default/ada" }]), [])
    assert.deepStrictEqual(missing([told, other]), [])
    assert.deepStrictEqual(missing([admitted("a1", "x"), told, { _tag: "AgentGone", agent: "x" }]), [])
  })

  it("breaks", () => {
    assert.strictEqual(missing([told]).length, 1)
    assert.strictEqual(missing([{ _tag: "DeleteInvoked", sandbox: "default/ada" }, [60, told]]).length, 1)
    assert.strictEqual(missing([other, [60, told]]).length, 1)
    assert.strictEqual(missing([other, [5, told]]).length, 0)
  })
})

describe("at rest", () => {
  const running = sandbox({ phase: "Running", sandboxID: "a1" })
  const instance = {
    instanceId: "a1",
    agent: "x",
    live: true,
    claimUid: "uid-1",
    resourceUid: "uid-1",
    sandbox: "default/ada"
  }
  const census: Checker.Census = {
    now: 0,
    sandboxes: [running],
    instances: [instance],
    freeSlots: new Map([["default/pool", 1]]),
    countedFree: new Map([["default/pool", 1]]),
    pinned: new Set()
  }

  it("holds", () => {
    assert.deepStrictEqual(Checker.atRest(census), [])
    assert.deepStrictEqual(
      Checker.atRest({ ...census, sandboxes: [sandbox(failed)], instances: [{ ...instance, live: false }] }),
      []
    )
  })

  const broken: { readonly [what: string]: Partial<Checker.Census> } = {
    "a phase is stuck": { sandboxes: [sandbox({ phase: "Starting", sandboxID: "a1" })] },
    "a sandbox without a phase": { sandboxes: [sandbox(undefined)] },
    "a deletion is stuck": {
      sandboxes: [sandbox({ phase: "Running", sandboxID: "a1" }, { deletionTimestamp: "2030-01-01T00:00:00Z" })]
    },
    "a sandbox waits in vain": { sandboxes: [sandbox({ phase: "Pending" })], instances: [] },
    "nothing runs": { instances: [] },
    "something else runs": { instances: [{ ...instance, instanceId: "a2" }] },
    "a superseded record is left": { instances: [instance, { ...instance, instanceId: "a0", live: false }] },
    "what is terminal lives": { sandboxes: [sandbox(failed)] },
    "an instance is leaked": { instances: [instance, { ...instance, instanceId: "b1", resourceUid: "uid-2" }] },
    "an instance is never bound": { instances: [instance, { ...instance, instanceId: "b1", resourceUid: "" }] },
    "a slot is counted twice": { countedFree: new Map([["default/pool", 0]]) }
  }
  for (const [what, change] of Object.entries(broken)) {
    it(`breaks: ${what}`, () => {
      assert.strictEqual(Checker.atRest({ ...census, ...change }).length, 1)
    })
  }
})
