/**
 * The agents of the pools through the Fast-Path API: which there are, and the drain that a person asks for. The drain
 * itself is the SandboxPoolController's work.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, NotFound } from "@fast-sandbox/core/Errors"
import * as Instant from "@fast-sandbox/core/Instant"
import { defaultNamespace, drainAnnotation, drainedByAnnotation } from "@fast-sandbox/core/Names"
import { key as keyOf } from "@fast-sandbox/core/Sandbox"
import {
  AgentInfo_State,
  type AgentInfoSchema,
  type ListAgentsRequest
} from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { GrpcCaller } from "@fast-sandbox/grpc/GrpcCaller"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Agents, type AgentView } from "../agents/Agents.ts"
import { toBoundary } from "../KubeFailure.ts"
import * as Audit from "./Audit.ts"

/** An agent as the API shows it. */
export type AgentInfo = MessageInitShape<typeof AgentInfoSchema>

/** The agents of the pools. An empty namespace is `default`, an empty pool all of them. */
export class PoolAgents extends Context.Service<PoolAgents, {
  list(request: Pick<ListAgentsRequest, "namespace" | "poolRef">): Effect.Effect<ReadonlyArray<AgentInfo>>
  /** It takes nothing more from now on. */
  drain(namespace: string, name: string): Effect.Effect<AgentInfo, BoundaryError>
  /** Takes a drain back. */
  resume(namespace: string, name: string): Effect.Effect<AgentInfo, BoundaryError>
}>()("@fast-sandbox/controller/fastpath/PoolAgents") {
  static get layer(): Layer.Layer<PoolAgents, never, KubeClient | Agents> {
    return Layer.effect(PoolAgents, make)
  }
}

const everything = "*"

const namespaceOf = (namespace: string): string => namespace === "" ? defaultNamespace : namespace

const states = {
  connecting: AgentInfo_State.STARTING,
  synced: AgentInfo_State.READY,
  stale: AgentInfo_State.SILENT
} as const

const project = (view: AgentView): AgentInfo => ({
  name: view.pod,
  namespace: view.namespace,
  poolRef: view.pool,
  nodeName: view.node,
  state: view.draining ? AgentInfo_State.DRAINING : states[view.connection],
  slotsUsed: view.slotsUsed,
  slotsTotal: view.slots,
  images: view.images.size,
  since: BigInt(Math.floor(view.since / 1000)),
  notes: [...view.runtimeNotes]
})

/** Makes the operations. */
export const make: Effect.Effect<PoolAgents["Service"], never, KubeClient | Agents> = Effect.gen(function*() {
  const kube = yield* KubeClient
  const agents = yield* Agents

  /** Says on the Pod whether its agent is to be drained; the agent as it is from then on. */
  const annotate = Effect.fnUntraced(function*(
    namespace: string,
    name: string,
    wish: { readonly draining: boolean; readonly annotations: { readonly [key: string]: string | null } }
  ) {
    const view = (yield* agents.list).find((agent) => agent.namespace === namespace && agent.pod === name)
    if (view === undefined) {
      return yield* new NotFound({
        kind: "agent",
        name: keyOf(namespace, name),
        hint: "'fsb-ctl agent list' shows those there are"
      })
    }
    yield* kube.patch(Pod, { namespace, name }, {
      type: "merge",
      body: { metadata: { uid: view.uid, annotations: wish.annotations } }
    }).pipe(Effect.mapError(toBoundary("agent")))
    return project({ ...view, draining: wish.draining })
  })

  return PoolAgents.of({
    list: Effect.fn("PoolAgents.list")(function*(request) {
      const namespace = namespaceOf(request.namespace)
      return (yield* agents.list).filter((agent) =>
        (namespace === everything || agent.namespace === namespace) &&
        (request.poolRef === "" || agent.pool === request.poolRef)
      ).toSorted((a, b) => keyOf(a.namespace, a.pod).localeCompare(keyOf(b.namespace, b.pod))).map(project)
    }),
    drain: Effect.fn("PoolAgents.drain")(function*(text, name) {
      const namespace = namespaceOf(text)
      const caller = yield* GrpcCaller
      const now = Instant.format(yield* Clock.currentTimeMillis)
      return yield* annotate(namespace, name, {
        draining: true,
        annotations: { [drainAnnotation]: now, [drainedByAnnotation]: caller.name }
      }).pipe(Audit.mutation("drain agent", keyOf(namespace, name)))
    }),
    resume: Effect.fn("PoolAgents.resume")(function*(text, name) {
      const namespace = namespaceOf(text)
      return yield* annotate(namespace, name, {
        draining: false,
        annotations: { [drainAnnotation]: null, [drainedByAnnotation]: null }
      }).pipe(Audit.mutation("resume agent", keyOf(namespace, name)))
    })
  })
})
