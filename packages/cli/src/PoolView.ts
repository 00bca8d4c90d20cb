/**
 * Pools and agents as fsb-ctl prints them.
 */
import type { AgentInfo, PoolInfo } from "@fast-sandbox/client/Sandboxes"
import * as Names from "@fast-sandbox/core/Names"
import { defaults, SandboxPool } from "@fast-sandbox/core/SandboxPool"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Age from "./Age.ts"
import type * as Output from "./Output.ts"
import * as Resource from "./Resource.ts"
import * as Table from "./Table.ts"

const ageOf = (since: DateTime.Utc, now: DateTime.DateTime): string =>
  Age.format(DateTime.toEpochMillis(now) - DateTime.toEpochMillis(since))

const decodeSpec = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Struct({ spec: SandboxPool.fields.spec })))

/** What the operator wants of a pool; nothing where the server is newer than this client. */
const specOf = ({ resource }: PoolInfo) =>
  Option.getOrElse(Option.map(decodeSpec(resource), ({ spec }) => spec), () => ({}) as typeof SandboxPool.Type["spec"])

interface View {
  readonly now: DateTime.DateTime
  readonly namespaces: "one" | "all"
}

const namespaceColumns = <A extends { readonly namespace: string }>(
  { namespaces }: View
): ReadonlyArray<Table.Column<A>> =>
  namespaces === "all" ? [{ heading: "NAMESPACE", cell: ({ namespace }) => namespace }] : []

/** `2-5`, or `2-` where there is no limit. */
const range = (min: number | undefined, max: number | undefined): string => `${min ?? 0}-${max || ""}`

/** Pools in lists. */
export const pools = (view: View): Output.View<PoolInfo> => ({
  columns: [
    ...namespaceColumns<PoolInfo>(view),
    { heading: "NAME", cell: ({ name }) => name },
    { heading: "AGENTS", cell: ({ agents }) => `${agents.ready}/${agents.desired}` },
    { heading: "SLOTS", cell: ({ slots }) => `${slots.used}/${slots.total}` },
    { heading: "PARKED", cell: ({ slots }) => String(slots.parked) },
    { heading: "AGE", cell: ({ createdAt }) => ageOf(createdAt, view.now) }
  ],
  wideColumns: [
    { heading: "RUNTIME", cell: (pool) => specOf(pool).runtimeType ?? defaults.runtimeType },
    { heading: "NETWORK", cell: (pool) => specOf(pool).network ?? defaults.network },
    { heading: "MIN-MAX", cell: (pool) => range(specOf(pool).capacity?.poolMin, specOf(pool).capacity?.poolMax) },
    { heading: "BUFFER", cell: (pool) => range(specOf(pool).capacity?.bufferMin, specOf(pool).capacity?.bufferMax) },
    { heading: "LACKS", cell: ({ problem }) => problem, narrow: "wrap" }
  ],
  name: ({ name }) => `pool/${name}`,
  object: ({ resource }): unknown => Resource.parse(resource)
})

const limits = (resources: ReturnType<typeof specOf>["sandboxResources"]): string =>
  Object.entries(resources ?? {}).map(([name, value]) => `${name} ${value}`).join(", ")

/** Everything about one pool, for people. */
export const poolDetails = (now: DateTime.DateTime) => (pool: PoolInfo, terminal: number): string => {
  const spec = specOf(pool)
  const { bufferMax, bufferMin, poolMax, poolMin } = spec.capacity ?? {}
  return Table.formatPairs([
    ["Name", pool.name],
    ["Namespace", pool.namespace],
    ["Agents", `${pool.agents.ready} ready of ${pool.agents.desired} wanted (${range(poolMin, poolMax)})`],
    ["Slots", `${pool.slots.used} used of ${pool.slots.total}, ${pool.slots.parked} parked`],
    ["Free slots kept", range(bufferMin, bufferMax)],
    ["Slots per agent", String(spec.maxSandboxesPerPod ?? defaults.maxSandboxesPerPod)],
    ["Runtime", spec.runtimeType ?? defaults.runtimeType],
    ["Network", spec.network ?? defaults.network],
    ["Limits per sandbox", limits(spec.sandboxResources)],
    ["Warm images", (spec.warmImages ?? []).map(({ image, parked }) => `${image} (${parked ?? 0} parked)`).join(", ")],
    ["Created", `${DateTime.formatIso(pool.createdAt)} (${ageOf(pool.createdAt, now)} ago)`],
    ["Lacks", pool.problem]
  ], terminal)
}

/** Agents in lists. */
export const agents = (view: View): Output.View<AgentInfo> => ({
  columns: [
    ...namespaceColumns<AgentInfo>(view),
    { heading: "NAME", cell: ({ name }) => name },
    { heading: "POOL", cell: ({ pool }) => pool },
    { heading: "STATE", cell: ({ state }) => state },
    { heading: "SLOTS", cell: ({ slots }) => `${slots.used}/${slots.total}` },
    { heading: "SINCE", cell: ({ since }) => ageOf(since, view.now) }
  ],
  wideColumns: [
    { heading: "NODE", cell: ({ node }) => node },
    { heading: "IMAGES", cell: ({ images }) => String(images) },
    { heading: "NOTES", cell: ({ notes }) => notes.join("; "), narrow: "wrap" }
  ],
  name: ({ name }) => `agent/${name}`,
  object: (agent) => ({
    apiVersion: Names.apiVersion,
    kind: "Agent",
    metadata: { name: agent.name, namespace: agent.namespace },
    status: {
      pool: agent.pool,
      nodeName: agent.node,
      state: agent.state,
      slots: agent.slots,
      images: agent.images,
      since: DateTime.formatIso(agent.since),
      notes: agent.notes
    }
  })
})

/** Everything about one agent, for people. */
export const agentDetails = (now: DateTime.DateTime) => (agent: AgentInfo, terminal: number): string =>
  Table.formatPairs([
    ["Name", agent.name],
    ["Namespace", agent.namespace],
    ["Pool", agent.pool],
    ["Node", agent.node],
    ["State", `${agent.state}, for ${ageOf(agent.since, now)}`],
    ["Slots", `${agent.slots.used} used of ${agent.slots.total}`],
    ["Images", String(agent.images)],
    ["Notes", agent.notes.join("; ")]
  ], terminal)
