/**
 * What a SandboxPool says of itself: counts, images and conditions, as a function of what was found and planned.
 */
import * as ImageName from "@fast-sandbox/core/ImageName"
import * as Instant from "@fast-sandbox/core/Instant"
import { type Condition, type ConditionUpdate, setCondition } from "@fast-sandbox/core/ObjectMeta"
import type { SandboxPool, SandboxPoolStatus } from "@fast-sandbox/core/SandboxPool"
import type { AgentView } from "../agents/Agents.ts"
import * as AgentPod from "./AgentPod.ts"
import type { AgentFacts, PoolPlan } from "./PoolPlan.ts"

/** Why Pods could not be made. `reason` is one CamelCase word. */
export interface CreateProblem {
  readonly reason: string
  readonly message: string
}

/** What a status is made from. */
export interface PoolStatusInput {
  readonly pool: SandboxPool
  readonly agents: ReadonlyArray<AgentFacts>
  /** Of the agents that answer. */
  readonly views: ReadonlyArray<AgentView>
  readonly plan: PoolPlan
  readonly problem: CreateProblem | undefined
  /** Pods in a row that never came up. */
  readonly failures: number
  /** Milliseconds since the epoch. */
  readonly now: number
}

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, number) => total + number, 0)

/** Which nodes can't run sandboxes, and why; undefined when all can. */
const runtimeProblem = (views: ReadonlyArray<AgentView>): string | undefined => {
  const nodes = new Map<string, Set<string>>()
  for (const { node, runtimeProblem } of views) {
    if (runtimeProblem !== undefined) {
      nodes.set(runtimeProblem, (nodes.get(runtimeProblem) ?? new Set()).add(node))
    }
  }
  const problems = [...nodes].map(([problem, names]) => `on ${[...names].toSorted().join(", ")} ${problem}`)
  return problems.length === 0
    ? undefined
    : `${problems.join("; ")}: install it, delete the agents' Pods, or choose another runtimeType`
}

const conditions = (
  { failures, now, plan, pool, problem, views }: PoolStatusInput,
  ready: number
): ReadonlyArray<Condition> => {
  const missing = runtimeProblem(views)
  const said: ReadonlyArray<Omit<ConditionUpdate, "observedGeneration">> = [
    missing !== undefined
      ? { type: "Ready", status: "False", reason: "RuntimeMissing", message: missing }
      : ready >= plan.desired
      ? { type: "Ready", status: "True", reason: "AgentsReady", message: "as many agents answer as are wanted" }
      : failures > 0
      ? {
        type: "Ready",
        status: "False",
        reason: "AgentsNotComingUp",
        message: `${failures} agents in a row did not come up; see the events and logs of the pool's Pods`
      }
      : { type: "Ready", status: "False", reason: "AgentsStarting", message: "fewer agents answer than are wanted" },
    missing === undefined
      ? { type: "RuntimeReady", status: "True", reason: "Found", message: "every agent that answers can run sandboxes" }
      : { type: "RuntimeReady", status: "False", reason: "RuntimeMissing", message: missing },
    problem === undefined
      ? { type: "PodsCreated", status: "True", reason: "Created", message: "Pods can be created" }
      : { type: "PodsCreated", status: "False", ...problem },
    plan.limited
      ? {
        type: "ScalingLimited",
        status: "True",
        reason: "PoolMax",
        message: "more agents are needed than poolMax allows"
      }
      : {
        type: "ScalingLimited",
        status: "False",
        reason: "WithinLimits",
        message: "the pool has as many agents as it needs"
      }
  ]
  return said.reduce(
    (conditions, update) =>
      setCondition(
        conditions,
        { ...update, observedGeneration: pool.metadata.generation },
        Instant.format(now)
      ),
    pool.status?.conditions ?? []
  )
}

const nodesOf = (views: ReadonlyArray<AgentView>): number => new Set(views.map(({ node }) => node)).size

const images = ({ pool, views }: PoolStatusInput): SandboxPoolStatus["images"] =>
  pool.spec.warmImages?.map(({ image }) => {
    const name = ImageName.normalizeOrKeep(image)
    const problem = views.flatMap(({ node, parked }) => {
      const said = parked.get(name)?.problem ?? ""
      return said === "" ? [] : [`${node}: ${said}`]
    })[0]
    return {
      image,
      nodes: nodesOf(views),
      ready: nodesOf(views.filter((view) => view.images.has(name))),
      ...(problem === undefined ? {} : { message: problem })
    }
  })

/** The status to report. */
export const make = (input: PoolStatusInput): SandboxPoolStatus => {
  const { agents, plan, pool } = input
  const existing = agents.filter(({ state }) => state !== "terminating")
  const answering = existing.filter(({ state }) => state === "ready")
  const used = sum(existing.map((agent) => agent.used))
  const total = sum(answering.map((agent) => agent.slots))
  const warm = images(input)
  return {
    ...(pool.metadata.generation === undefined ? {} : { observedGeneration: pool.metadata.generation }),
    replicas: existing.length,
    desired: plan.desired,
    ready: answering.length,
    idle: existing.filter((agent) => agent.used === 0).length,
    busy: existing.filter((agent) => agent.used > 0).length,
    slots: {
      used,
      total,
      parked: sum(input.views.flatMap(({ parked }) => [...parked.values()].map(({ ready }) => ready)))
    },
    slotsUsage: `${used}/${total}`,
    selector: AgentPod.selector(pool.metadata.name ?? ""),
    ...(warm === undefined ? {} : { images: warm }),
    conditions: conditions(input, answering.length)
  }
}
