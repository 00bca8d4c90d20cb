import { assert, describe, it } from "@effect/vitest"
import type { Binding, OwnedContainer } from "@fast-sandbox/containerd/OwnedContainer"
import { Schema } from "effect"
import * as Findings from "../src/Findings.ts"

const { adoptionMillis, confirmMillis, decide, emptyNode } = Findings

const id = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, "0")}`

const unbound: Binding = { _tag: "Unbound" }
const bound = (resourceUid: string): Binding => ({ _tag: "Bound", resourceUid })

const owned = (changes: Partial<OwnedContainer> = {}): OwnedContainer => ({
  id: id(1),
  kind: "instance",
  agentUid: "pod-1",
  agentName: "agent-1",
  namespace: "default",
  sandboxName: "a",
  claimUid: "claim-1",
  binding: bound("uid-a"),
  cgroupsPath: "/fast-sandbox/x",
  ...changes
})

const node = (changes: Partial<Findings.NodeState>): Findings.NodeState => ({
  ...emptyNode,
  ...changes,
  containerIds: new Set([
    ...(changes.containers ?? []).map((container) => container.id),
    ...(changes.containerIds ?? [])
  ])
})

type Answered = Extract<Findings.ApiState, { readonly _tag: "Answered" }>

const api = (changes: Partial<Answered> = {}): Answered => ({
  _tag: "Answered",
  pods: new Map([["pod-1", "agent-1"]]),
  sandboxes: new Map([["default/a", { uid: "uid-a", claimUid: "claim-1", instanceId: id(1) }]]),
  deletedPods: new Set(),
  ...changes
})

const now = 1_800_000_000_000

/** What is said of something at first, and when it was so for as long as confirming takes, and for a day. */
const verdicts = (state: Findings.NodeState, answer: Findings.ApiState) => {
  const first = decide({ node: state, api: answer, seen: new Map(), nowMillis: now, monotonicMillis: 0 })
  const at = (millis: number) =>
    decide({ node: state, api: answer, seen: first.seen, nowMillis: now + millis, monotonicMillis: millis })
  return [first, at(confirmMillis), at(adoptionMillis)].map(({ findings }) =>
    findings.map(({ cause, kind, verdict }) => `${kind} ${cause} ${verdict}`).join()
  )
}

const none = ["", "", ""]
const onceConfirmed = (what: string) => [`${what} wait`, `${what} remove`, `${what} remove`]
const afterADay = (what: string) => [`${what} wait`, `${what} wait`, `${what} remove`]
const atOnce = (what: string) => [`${what} remove`, `${what} remove`, `${what} remove`]
const never = (what: string) => [`${what} spare`, `${what} spare`, `${what} spare`]

const nobody = api({ pods: new Map() })
const noSandbox = api({ sandboxes: new Map() })
const directory = { name: "agent-1", networkKey: "0123abcd" }
const network = { name: "fsb-0123abcd-1", ownerKey: "0123abcd" }
const unanswered: Findings.ApiState = { _tag: "Unanswered", problem: "down" }

const table: ReadonlyArray<
  readonly [string, Partial<Findings.NodeState>, Findings.ApiState, ReadonlyArray<string>]
> = [
  ["a live sandbox", { containers: [owned()] }, api(), none],
  ["an agent that is gone", { containers: [owned()] }, nobody, onceConfirmed("Container AgentGone")],
  [
    "an agent that was seen going",
    { containers: [owned()] },
    api({ pods: new Map(), deletedPods: new Set(["pod-1"]) }),
    atOnce("Container AgentGone")
  ],
  [
    "another Pod under the agent's name",
    { containers: [owned()] },
    api({ pods: new Map([["pod-2", "agent-1"]]) }),
    onceConfirmed("Container AgentGone")
  ],
  ["a resource that is gone", { containers: [owned()] }, noSandbox, onceConfirmed("Container ResourceGone")],
  [
    "a resource with another uid",
    { containers: [owned({ binding: bound("uid-b") })] },
    api(),
    onceConfirmed("Container ResourceReplaced")
  ],
  [
    "a resource that can't be read",
    { containers: [owned()] },
    api({
      sandboxes: new Map([["default/a", { uid: undefined, claimUid: undefined, instanceId: undefined }]])
    }),
    none
  ],
  ["one that is not bound yet", { containers: [owned({ binding: unbound })] }, api(), none],
  [
    "one that waits for its resource",
    { containers: [owned({ binding: unbound })] },
    noSandbox,
    afterADay("Container NeverAdopted")
  ],
  [
    "one that waits while another took its name",
    { containers: [owned({ binding: unbound, claimUid: "claim-2" })] },
    api(),
    afterADay("Container NeverAdopted")
  ],
  [
    "one that waits, of an agent that is gone",
    { containers: [owned({ binding: unbound })] },
    nobody,
    onceConfirmed("Container AgentGone")
  ],
  [
    "a record of another version",
    { containers: [owned({ binding: { _tag: "Unreadable", problem: "?" } })] },
    noSandbox,
    never("Container Unclear")
  ],
  ["a record that names no agent", { containers: [owned({ agentUid: "" })] }, nobody, never("Container Unclear")],
  [
    "a record that names its agent by uid alone",
    { containers: [owned({ agentName: "" })] },
    nobody,
    never("Container Unclear")
  ],
  ["a parked slot", { containers: [owned({ kind: "parked", sandboxName: "" })] }, noSandbox, none],
  [
    "a parked slot of nobody",
    { containers: [owned({ kind: "parked" })] },
    nobody,
    onceConfirmed("Container AgentGone")
  ],
  ["an anchor", { containers: [owned({ kind: "anchor" })] }, noSandbox, none],
  ["an anchor of nobody", { containers: [owned({ kind: "anchor" })] }, nobody, onceConfirmed("Anchor AgentGone")],
  ["a repair's record", { containers: [owned({ kind: "repair" })] }, api(), onceConfirmed("Container HalfRepaired")],
  [
    "a task without a record, known by its cgroup",
    { taskIds: new Set([id(1)]), cgroups: [{ name: id(1), isPopulated: true }] },
    noSandbox,
    onceConfirmed("Task NoRecord")
  ],
  [
    "a task without a record, known by its log",
    { taskIds: new Set([id(1)]), logDirectories: [id(1)] },
    noSandbox,
    onceConfirmed("Task NoRecord")
  ],
  ["a stranger's task", { taskIds: new Set([id(1)]) }, noSandbox, none],
  ["a shim without a container", { shims: [id(1)] }, noSandbox, onceConfirmed("Shim NoContainer")],
  ["a shim of a task", { shims: [id(1)], taskIds: new Set([id(1)]) }, noSandbox, none],
  ["a stranger's shim", { shims: ["coredns"] }, noSandbox, none],
  [
    "a snapshot without a container",
    { snapshots: [id(1)] },
    api(),
    onceConfirmed("Snapshot NoContainer")
  ],
  [
    "a container's snapshot",
    { containerIds: new Set([id(1)]), snapshots: [id(1)] },
    api(),
    none
  ],
  [
    "an expired lease",
    { leases: [{ id: "l", expiresAtMillis: now - 1 }] },
    api(),
    onceConfirmed("Lease Expired")
  ],
  ["a lease in use", { leases: [{ id: "l", expiresAtMillis: now + 2 * adoptionMillis }] }, api(), none],
  [
    "a lease without end",
    { leases: [{ id: "l", expiresAtMillis: undefined }] },
    api(),
    afterADay("Lease NoOwner")
  ],
  [
    "a network of a departed agent",
    { agentDirectories: [directory], networkNamespaces: [network] },
    nobody,
    onceConfirmed("NetworkNamespace AgentGone")
  ],
  [
    "a link of a departed agent",
    { agentDirectories: [directory], links: [network] },
    nobody,
    onceConfirmed("Link AgentGone")
  ],
  [
    "the rules of a departed agent",
    { agentDirectories: [directory], tables: [network] },
    nobody,
    onceConfirmed("Table AgentGone")
  ],
  [
    "a network whose agent has containers left",
    { agentDirectories: [directory], networkNamespaces: [network], containers: [owned({ agentUid: "" })] },
    nobody,
    never("Container Unclear")
  ],
  ["a network of a living agent", { agentDirectories: [directory], networkNamespaces: [network] }, api(), none],
  [
    "a network of another installation",
    { networkNamespaces: [network], links: [network], tables: [network] },
    nobody,
    none
  ],
  ["an agent's directory", { agentDirectories: [directory] }, api(), none],
  [
    "a departed agent's directory",
    { agentDirectories: [directory] },
    nobody,
    onceConfirmed("AgentDirectory AgentGone")
  ],
  [
    "an empty cgroup of nobody",
    { cgroups: [{ name: id(1), isPopulated: false }] },
    api(),
    onceConfirmed("Cgroup NoContainer")
  ],
  ["a cgroup that somebody uses", { cgroups: [{ name: id(1), isPopulated: true }] }, api(), never("Cgroup Unclear")],
  [
    "an anchor's cgroup",
    { cgroups: [{ name: "fsb-pod-1-anchor-0-0123abcd", isPopulated: false }] },
    api(),
    onceConfirmed("Cgroup NoContainer")
  ],
  ["a stranger's cgroup", { cgroups: [{ name: "burstable", isPopulated: false }] }, api(), none],
  ["a log of nobody", { logDirectories: [id(2)] }, api(), onceConfirmed("LogDirectory NoContainer")],
  ["a log of a Sandbox that lost its container", { logDirectories: [id(1)] }, api(), none],
  ["a container's log", { containerIds: new Set([id(2)]), logDirectories: [id(2)] }, api(), none],
  ["a stranger's log", { logDirectories: ["journal"] }, api(), none],
  ["anything, when nobody answers", { containers: [owned()] }, unanswered, never("Container Unanswered")]
]

const Index = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 3 }))
const Subset = Schema.Array(Index).check(Schema.isMaxLength(4))
const bindings: ReadonlyArray<Binding> = [
  unbound,
  bound("uid-0"),
  bound("uid-1"),
  { _tag: "Unreadable", problem: "another version" }
]
const containerKinds = ["instance", "parked", "anchor", "repair"] as const

/** A moment of a small world: which Pods and Sandboxes exist, whether the API answers, what the node has. */
const Moment = Schema.Struct({
  answers: Schema.Boolean,
  pods: Subset,
  deletedPods: Subset,
  sandboxes: Schema.Array(Schema.Tuple([Index, Index])).check(Schema.isMaxLength(4)),
  containers: Schema.Array(Schema.Struct({ id: Index, kind: Index, agent: Index, sandbox: Index, binding: Index }))
    .check(
      Schema.isMaxLength(4)
    ),
  loose: Subset,
  passedMillis: Schema.Literals([0, 1, confirmMillis, adoptionMillis])
})
type Moment = typeof Moment.Type

const Moments = Schema.Array(Moment).check(Schema.isMaxLength(8))

const nodeOf = (moment: Moment): Findings.NodeState => {
  const names = moment.loose.map(id)
  return node({
    containers: moment.containers.map(({ agent, binding, id: n, kind, sandbox }) =>
      owned({
        id: id(n),
        kind: containerKinds[kind] ?? "instance",
        agentUid: agent === 0 ? "" : `pod-${agent}`,
        agentName: `agent-${agent}`,
        sandboxName: `s${sandbox}`,
        claimUid: `claim-${sandbox}`,
        binding: bindings[binding] ?? unbound
      })
    ),
    taskIds: new Set([...names, "stranger"]),
    shims: [...names, "stranger"],
    snapshots: names,
    cgroups: [...names, "stranger"].map((name) => ({ name, isPopulated: false })),
    logDirectories: [...names, "stranger"],
    agentDirectories: moment.loose.map((n) => ({ name: `agent-${n}`, networkKey: `key-${n}` })),
    networkNamespaces: moment.loose.map((n) => ({ name: `net-${n}`, ownerKey: `key-${n}` }))
  })
}

const apiOf = (moment: Moment): Findings.ApiState =>
  moment.answers
    ? {
      _tag: "Answered",
      pods: new Map(moment.pods.map((n) => [`pod-${n}`, `agent-${n}`])),
      deletedPods: new Set(moment.deletedPods.filter((n) => !moment.pods.includes(n)).map((n) => `pod-${n}`)),
      sandboxes: new Map(
        moment.sandboxes.map(([name, uid]) => [
          `default/s${name}`,
          { uid: `uid-${uid}`, claimUid: `claim-${name}`, instanceId: undefined }
        ])
      )
    }
    : unanswered

/** Decides about each moment in turn, remembering what a janitor remembers. */
const play = (moments: ReadonlyArray<Moment>) => {
  let seen: Findings.Seen = new Map()
  let monotonicMillis = 0
  return moments.map((moment) => {
    monotonicMillis += moment.passedMillis
    const state = nodeOf(moment)
    const answer = apiOf(moment)
    const result = decide({ node: state, api: answer, seen, nowMillis: now + monotonicMillis, monotonicMillis })
    const before = seen
    seen = result.seen
    const removed = result.findings.filter(({ verdict }) => verdict === "remove")
    return { before, state, answer, monotonicMillis, removed }
  })
}

describe("Findings", () => {
  for (const [name, state, answer, expected] of table) {
    it(`judges ${name}`, () => {
      assert.deepStrictEqual(verdicts(node(state), answer), expected)
    })
  }

  it("begins anew after a question that nobody answered", () => {
    const state = node({ containers: [owned()] })
    const scan = (answer: Findings.ApiState, seen: Findings.Seen, monotonicMillis: number) =>
      decide({ node: state, api: answer, seen, nowMillis: now, monotonicMillis })
    const first = scan(nobody, new Map(), 0)
    const outage = scan(unanswered, first.seen, confirmMillis)
    assert.strictEqual(scan(nobody, outage.seen, 2 * confirmMillis).findings[0]?.verdict, "wait")
  })

  it("does not believe a clock that was set", () => {
    const state = node({ containers: [owned()] })
    const first = decide({ node: state, api: nobody, seen: new Map(), nowMillis: now, monotonicMillis: 0 })
    const second = decide({ node: state, api: nobody, seen: first.seen, nowMillis: now * 2, monotonicMillis: 1 })
    assert.strictEqual(second.findings[0]?.verdict, "wait")
  })

  it("counts each reason for itself", () => {
    const state = node({ containers: [owned()] })
    const first = decide({ node: state, api: noSandbox, seen: new Map(), nowMillis: now, monotonicMillis: 0 })
    const second = decide({
      node: state,
      api: nobody,
      seen: first.seen,
      nowMillis: now,
      monotonicMillis: confirmMillis
    })
    assert.deepInclude(second.findings[0], { cause: "AgentGone", verdict: "wait" })
  })

  it("removes what stands on something before it", () => {
    const state = node({
      containers: [owned({ kind: "anchor", id: "fsb-x-anchor-0-01234567" }), owned()],
      cgroups: [{ name: id(3), isPopulated: false }],
      logDirectories: [id(2)]
    })
    const { findings } = decide({ node: state, api: nobody, seen: new Map(), nowMillis: now, monotonicMillis: 0 })
    assert.deepStrictEqual(findings.map(({ kind }) => kind), ["Container", "Anchor", "Cgroup", "LogDirectory"])
  })

  it.prop("an unanswered question never removes", [Moments], ([moments]) => {
    for (const { answer, removed } of play(moments)) {
      assert.isTrue(answer._tag === "Answered" || removed.length === 0)
    }
  })

  it.prop("nothing is removed at first sight, unless its agent was seen going", [Moments], ([moments]) => {
    for (const { answer, before, monotonicMillis, removed } of play(moments)) {
      for (const finding of removed) {
        const since = before.get(Findings.keyOf(finding))
        const isProven = answer._tag === "Answered" && finding.cause === "AgentGone" &&
          answer.deletedPods.has(finding.agent?.uid ?? "")
        assert.isTrue(isProven || (since !== undefined && monotonicMillis - since >= confirmMillis))
      }
    }
  })

  it.prop("nothing that is not ours is ever removed", [Moments], ([moments]) => {
    for (const { removed } of play(moments)) {
      assert.isFalse(removed.some(({ subject }) => subject === "stranger"))
    }
  })

  it.prop("a live sandbox is never removed, whatever the order of scans", [Moments], ([moments]) => {
    for (const { answer, removed, state } of play(moments)) {
      for (const { agentUid, binding, claimUid, id, kind, sandboxName } of state.containers) {
        const sandbox = answer._tag === "Answered" ? answer.sandboxes.get(`default/${sandboxName}`) : undefined
        const isLive = answer._tag === "Answered" && answer.pods.has(agentUid) && kind === "instance" &&
          (binding._tag === "Bound" ? sandbox?.uid === binding.resourceUid : sandbox?.claimUid === claimUid)
        const isDuplicate = state.containers.filter((other) => other.id === id).length > 1
        assert.isFalse(isLive && !isDuplicate && removed.some(({ subject }) => subject === id))
      }
    }
  })
})
