/**
 * Agents in memory behind the Agents service: slots, ports, idempotent creates, connections that break, Pods that go.
 * They count calls, check that no sandbox ever has two live instances by mistake, and every call passes a gate that a
 * test may delay, fail or use to kill whoever called.
 */
import { clone, create } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { type BoundaryError, NotFound, ResourceExhausted, Unavailable } from "@fast-sandbox/core/Errors"
import { type Instance, InstanceSchema, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { Clock, Context, Effect, Layer, Option, PubSub, Stream } from "effect"
import { type AgentChange, Agents, type AgentView, NotConnected } from "../src/agents/Agents.ts"

/** One call to an agent. */
export interface AgentCall {
  readonly verb: "create" | "bind" | "stop" | "delete"
  readonly uid: string
  readonly instanceId: string
}

/** Looks at every call before it takes effect, and again after it did. */
export interface AgentGate {
  readonly before: (call: AgentCall) => Effect.Effect<void, BoundaryError>
  readonly after: (call: AgentCall) => Effect.Effect<void, BoundaryError>
}

const isLive = ({ state }: Instance): boolean => state !== InstanceState.EXITED

const withView = (view: AgentView, instances: ReadonlyMap<string, Instance>): AgentView => {
  const live = [...instances.values()].filter(isLive)
  return {
    ...view,
    instances,
    slotsUsed: live.length,
    portsUsed: new Set(live.flatMap(({ spec }) => spec?.exposedPorts ?? []))
  }
}

const ended = (instance: Instance, now: number, ending: { readonly exitCode: number; readonly reason: string }) => {
  const next = clone(InstanceSchema, instance)
  next.state = InstanceState.EXITED
  next.exitCode = ending.exitCode
  next.reason = ending.reason
  next.finishedAt = timestampFromMs(now)
  return next
}

/** The test's side of the agents. */
export class SimulatedAgents extends Context.Service<SimulatedAgents, {
  /** An agent whose Pod has this uid begins to answer. */
  add(agent: Pick<AgentView, "uid" | "pod" | "pool" | "slots"> & Partial<AgentView>): Effect.Effect<void>
  /** Its Pod is gone, with everything on it. */
  remove(uid: string): Effect.Effect<void>
  /** It stops answering; what runs there goes on. */
  silence(uid: string): Effect.Effect<void>
  /** It answers again. */
  wake(uid: string): Effect.Effect<void>
  drain(uid: string): Effect.Effect<void>
  /** The program of an instance ends. */
  exit(instanceId: string, ending: { readonly exitCode: number; readonly reason?: string }): Effect.Effect<void>
  /** An instance appears that no call through the service has made. */
  plant(uid: string, instance: Instance): Effect.Effect<void>
  setGate(gate: Partial<AgentGate>): Effect.Effect<void>
  /** Successful calls so far, in order. */
  readonly calls: Effect.Effect<ReadonlyArray<AgentCall>>
  /** Live instances on all agents, also silent ones. */
  readonly live: Effect.Effect<ReadonlyArray<Instance>>
  /** All instances on all agents. */
  readonly instances: Effect.Effect<ReadonlyArray<Instance>>
  /** What changed, for tests that feed somebody else. */
  readonly views: Effect.Effect<ReadonlyArray<AgentView>>
}>()("@fast-sandbox/controller/test/SimulatedAgents") {
  static readonly layer: Layer.Layer<SimulatedAgents | Agents> = Layer.effectContext(Effect.suspend(() => make))
}

const make = Effect.gen(function*() {
  /** What is on the agents. */
  const real = new Map<string, AgentView>()
  /** What the controller was told. */
  const told = new Map<string, AgentView>()
  const changes = yield* PubSub.unbounded<AgentChange>()
  const calls: Array<AgentCall> = []
  let gate: AgentGate = { before: () => Effect.void, after: () => Effect.void }

  const tell = (uid: string, change: AgentChange) => {
    const view = real.get(uid)
    if (view === undefined) {
      told.delete(uid)
    } else if (view.connection === "synced") {
      told.set(uid, view)
    } else {
      const last = told.get(uid) ?? view
      told.set(uid, { ...last, connection: view.connection, since: view.since })
    }
    PubSub.publishUnsafe(changes, change)
  }

  const put = (uid: string, view: AgentView) => {
    real.set(uid, view)
    tell(uid, { _tag: "AgentChanged", uid })
  }

  const putInstance = (uid: string, instance: Instance | string) => {
    const view = real.get(uid)
    if (view === undefined) {
      return
    }
    const instances = new Map(view.instances)
    const id = typeof instance === "string" ? instance : instance.instanceId
    const known = typeof instance === "string" ? instances.get(id) : instance
    if (typeof instance === "string") {
      instances.delete(id)
    } else {
      instances.set(id, instance)
    }
    real.set(uid, withView(view, instances))
    tell(uid, {
      _tag: "InstanceChanged",
      uid,
      instanceId: id,
      namespace: known?.claim?.namespace ?? "",
      sandboxName: known?.claim?.sandboxName ?? ""
    })
  }

  const reachable = (uid: string): Effect.Effect<AgentView, BoundaryError> =>
    Effect.gen(function*() {
      const view = real.get(uid)
      if (view === undefined) {
        return yield* new NotFound({ kind: "agent", name: uid })
      }
      return view.connection === "synced" ? view : yield* new Unavailable({ target: view.pod, problem: "silent" })
    })

  const call = <A>(call: AgentCall, effect: Effect.Effect<A, BoundaryError>) =>
    gate.before(call).pipe(
      Effect.andThen(effect),
      Effect.tap(() => {
        calls.push(call)
        return gate.after(call)
      })
    )

  const agents = Agents.of({
    list: Effect.sync(() => [...told.values()]),
    get: (uid) => Effect.sync(() => Option.fromUndefinedOr(told.get(uid))),
    findInstance: (instanceId) =>
      Effect.sync(() => {
        for (const agent of told.values()) {
          const instance = agent.instances.get(instanceId)
          if (instance !== undefined) {
            return Option.some({ agent, instance })
          }
        }
        return Option.none()
      }),
    firstSync: Effect.void,
    changes: Stream.fromPubSub(changes),
    create: (uid, request) =>
      call(
        { verb: "create", uid, instanceId: request.instanceId ?? "" },
        Effect.gen(function*() {
          const view = yield* reachable(uid)
          const instanceId = request.instanceId ?? ""
          const known = view.instances.get(instanceId)
          if (known !== undefined) {
            return known
          }
          const ports = request.spec?.exposedPorts ?? []
          if (view.draining) {
            return yield* new Unavailable({ target: view.pod, problem: "it is going away" })
          }
          if (view.slotsUsed >= view.slots || ports.some((port) => view.portsUsed.has(port))) {
            return yield* new ResourceExhausted({ resource: "slots", problem: "full", retryAfterMillis: 1 })
          }
          const now = timestampFromMs(yield* Clock.currentTimeMillis)
          const instance = create(InstanceSchema, {
            instanceId,
            claim: request.claim,
            spec: request.spec,
            state: InstanceState.RUNNING,
            createdAt: now,
            startedAt: now,
            endpoints: ports.map((port) => `10.0.0.1:${port}`)
          })
          putInstance(uid, instance)
          return instance
        })
      ),
    bind: (uid, instanceId, resourceUid) =>
      call(
        { verb: "bind", uid, instanceId },
        Effect.gen(function*() {
          const known = (yield* reachable(uid)).instances.get(instanceId)
          if (known?.claim === undefined) {
            return yield* new NotFound({ kind: "instance", name: instanceId })
          }
          const next = clone(InstanceSchema, known)
          if (next.claim !== undefined) {
            next.claim.resourceUid = resourceUid
          }
          putInstance(uid, next)
        })
      ),
    stop: (uid, instanceId) =>
      call(
        { verb: "stop", uid, instanceId },
        Effect.gen(function*() {
          const known = (yield* reachable(uid)).instances.get(instanceId)
          if (known === undefined) {
            return yield* new NotFound({ kind: "instance", name: instanceId })
          }
          if (!isLive(known)) {
            return known
          }
          const next = ended(known, yield* Clock.currentTimeMillis, { exitCode: 143, reason: "Stopped" })
          putInstance(uid, next)
          return next
        })
      ),
    delete: (uid, instanceId) =>
      call(
        { verb: "delete", uid, instanceId },
        Effect.gen(function*() {
          const view = yield* reachable(uid)
          if (view.instances.has(instanceId)) {
            putInstance(uid, instanceId)
          }
        })
      ),
    logs: () => Stream.empty,
    sessions: (uid) => Effect.fail(new NotConnected({ target: `agent ${uid}`, problem: "it holds no programs" })),
    pullImage: () => Stream.empty,
    loadImage: () => Stream.empty,
    removeImage: () => Effect.void,
    warm: (uid, warmImages) => Effect.map(reachable(uid), (view) => put(uid, { ...view, warmImages }))
  })

  const all = (): ReadonlyArray<Instance> =>
    [...real.values()].flatMap(({ instances }) => Array.from(instances.values()))

  const connect = (uid: string, connection: AgentView["connection"]) =>
    Effect.map(Clock.currentTimeMillis, (since) => {
      const view = real.get(uid)
      if (view !== undefined) {
        put(uid, { ...view, connection, since })
      }
    })

  const simulated = SimulatedAgents.of({
    add: (agent) =>
      Effect.map(Clock.currentTimeMillis, (since) =>
        put(agent.uid, {
          namespace: "default",
          node: `node-${agent.uid}`,
          connection: "synced",
          since,
          draining: false,
          slotsUsed: 0,
          portsUsed: new Set(),
          capacityRevision: 0n,
          instances: new Map(),
          parked: new Map(),
          warmImages: [],
          images: new Map(),
          runtimeNotes: [],
          runtimeProblem: undefined,
          ...agent
        })),
    remove: (uid) =>
      Effect.sync(() => {
        const view = real.get(uid)
        real.delete(uid)
        tell(uid, { _tag: "AgentGone", uid, pod: view?.pod ?? "", namespace: view?.namespace ?? "" })
      }),
    silence: (uid) => connect(uid, "stale"),
    wake: (uid) => connect(uid, "synced"),
    drain: (uid) =>
      Effect.sync(() => {
        const view = real.get(uid)
        if (view !== undefined) {
          put(uid, { ...view, draining: true })
        }
      }),
    exit: (instanceId, { exitCode, reason = exitCode === 0 ? "Completed" : "Error" }) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        for (const [uid, view] of real) {
          const known = view.instances.get(instanceId)
          if (known !== undefined && isLive(known)) {
            putInstance(uid, ended(known, now, { exitCode, reason }))
          }
        }
      }),
    plant: (uid, instance) => Effect.sync(() => putInstance(uid, instance)),
    setGate: (next) =>
      Effect.sync(() => {
        gate = { before: next.before ?? (() => Effect.void), after: next.after ?? (() => Effect.void) }
      }),
    calls: Effect.sync(() => [...calls]),
    live: Effect.sync(() => all().filter(isLive)),
    instances: Effect.sync(all),
    views: Effect.sync(() => [...told.values()])
  })
  return Context.make(Agents, agents).pipe(Context.add(SimulatedAgents, simulated))
})
