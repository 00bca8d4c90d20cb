/**
 * The calls about pools, agents and events over gRPC.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Names from "@fast-sandbox/core/Names"
import * as Wire from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import type * as GrpcConnection from "@fast-sandbox/grpc/GrpcConnection"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Administration, AgentInfo, EventInfo, PoolInfo, ScopeOptions } from "../Administration.ts"
import type { CallOptions } from "../Calls.ts"
import * as Time from "./time.ts"
import { ALL_NAMESPACES } from "./wire.ts"

const MILLIS_PER_SECOND = 1000

const ofSeconds = (seconds: bigint): DateTime.Utc => DateTime.makeUnsafe(Number(seconds) * MILLIS_PER_SECOND)

const poolInfo = (pool: Wire.PoolInfo): PoolInfo => ({
  name: pool.name,
  namespace: pool.namespace,
  agents: { ready: pool.agentsReady, desired: pool.agentsDesired },
  slots: { used: pool.slotsUsed, total: pool.slotsTotal, parked: pool.slotsParked },
  createdAt: ofSeconds(pool.createdAt),
  problem: pool.problem,
  resource: new TextDecoder().decode(pool.resource)
})

const agentStates: Readonly<Record<number, AgentInfo["state"]>> = {
  [Wire.AgentInfo_State.STARTING]: "Starting",
  [Wire.AgentInfo_State.READY]: "Ready",
  [Wire.AgentInfo_State.SILENT]: "Silent",
  [Wire.AgentInfo_State.DRAINING]: "Draining"
}

const agentInfo = (agent: Wire.AgentInfo): AgentInfo => ({
  name: agent.name,
  namespace: agent.namespace,
  pool: agent.poolRef,
  node: agent.nodeName,
  state: agentStates[agent.state] ?? "Unknown",
  slots: { used: agent.slotsUsed, total: agent.slotsTotal },
  images: agent.images,
  since: ofSeconds(agent.since),
  notes: agent.notes
})

const epoch = DateTime.makeUnsafe(0)

const eventInfo = (event: Wire.EventInfo): EventInfo => ({
  namespace: event.namespace,
  kind: event.kind,
  name: event.name,
  uid: event.uid,
  type: event.type === "Warning" ? "Warning" : "Normal",
  reason: event.reason,
  message: event.message,
  count: event.count,
  first: event.first === undefined ? epoch : Time.toDateTime(event.first),
  last: event.last === undefined ? epoch : Time.toDateTime(event.last),
  source: event.source
})

/** What the calls need of the connection. */
export interface Connection {
  readonly api: GrpcConnection.GrpcClient<typeof Wire.FastPathService, BoundaryError>
  readonly namespaceOf: (options: CallOptions | undefined) => string
  /** The deadline of a call that only reads or records. */
  readonly within: (options: CallOptions | undefined) => GrpcConnection.CallOptions
}

/** The calls. */
export const make = ({ api, namespaceOf, within }: Connection): Administration => {
  const scopeOf = (options: ScopeOptions | undefined): string =>
    options?.allNamespaces ? ALL_NAMESPACES : namespaceOf(options)

  const reference = (name: string, options: CallOptions | undefined) => ({ name, namespace: namespaceOf(options) })

  return {
    pools: {
      list: Effect.fn("Sandboxes.pools.list")(function*(options) {
        const { items } = yield* api.listPools({ namespace: scopeOf(options) }, within(options))
        return items.map(poolInfo)
      }),
      get: Effect.fn("Sandboxes.pools.get")(function*(name, options) {
        return poolInfo(yield* api.getPool(reference(name, options), within(options)))
      }),
      create: Effect.fn("Sandboxes.pools.create")(function*(name, options) {
        const { labels, spec } = options
        const resource = {
          apiVersion: Names.apiVersion,
          kind: "SandboxPool",
          metadata: { name, namespace: namespaceOf(options) || Names.defaultNamespace, labels },
          spec
        }
        const request = { resource: new TextEncoder().encode(JSON.stringify(resource)) }
        return poolInfo(yield* api.createPool(request, within(options)))
      }),
      scale: Effect.fn("Sandboxes.pools.scale")(function*(name, options) {
        const { bufferMax, bufferMin, poolMax, poolMin } = options
        return poolInfo(
          yield* api.scalePool(
            { ...reference(name, options), bufferMax, bufferMin, poolMax, poolMin },
            within(options)
          )
        )
      }),
      delete: Effect.fn("Sandboxes.pools.delete")(function*(name, options) {
        yield* api.deletePool({ ...reference(name, options), force: options?.force ?? false }, within(options))
      })
    },
    agents: {
      list: Effect.fn("Sandboxes.agents.list")(function*(options) {
        const { items } = yield* api.listAgents(
          { namespace: scopeOf(options), poolRef: options?.pool ?? "" },
          within(options)
        )
        return items.map(agentInfo)
      }),
      drain: Effect.fn("Sandboxes.agents.drain")(function*(name, options) {
        return agentInfo(yield* api.drainAgent(reference(name, options), within(options)))
      }),
      resume: Effect.fn("Sandboxes.agents.resume")(function*(name, options) {
        return agentInfo(yield* api.resumeAgent(reference(name, options), within(options)))
      })
    },
    events: (options) =>
      api.watchEvents({
        namespace: scopeOf(options),
        kind: options?.kind ?? "",
        name: options?.name ?? "",
        follow: options?.follow ?? false
      }, options?.follow === true ? { deadline: options.deadline } : within(options)).pipe(Stream.map(eventInfo)),
    serverVersion: Effect.fn("Sandboxes.serverVersion")(function*(options) {
      const { node, version } = yield* api.getVersion({}, within(options))
      return { node, version }
    })
  }
}
