/**
 * The way to the agents: connections over a network that fails, nodes that fall silent, processes that crash. It hands
 * out what a gRPC client of an agent is to a controller, with agents in memory at the other end.
 */
import { type BoundaryError, Cancelled, DeadlineExceeded, NotFound, Unavailable } from "@fast-sandbox/core/Errors"
import type { AgentService, Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type FaultPlan, type Network, Route } from "./Faults.ts"
import type { Seed } from "./Seed.ts"
import type { SimAgent } from "./SimAgent.ts"

/** A client as controllers have it. */
export type AgentClient = GrpcClient.GrpcClient<typeof AgentService, BoundaryError>

/** How long a connection that is dead but not closed looks alive: gRPC's keepalive, in milliseconds. */
const keepaliveMillis = 40_000

/** How a machine that listens no more says so, in milliseconds. */
const refusalMillis = 5

/** The lines to all agents. */
export class FaultyAgents {
  private readonly agents = new Map<string, SimAgent>()
  private readonly silent = new Map<string, Deferred.Deferred<void>>()
  private readonly plan: FaultPlan

  constructor(plan: FaultPlan) {
    this.plan = plan
  }

  /** Agents that exist. */
  get all(): ReadonlyArray<SimAgent> {
    return [...this.agents.values()]
  }

  get(uid: string): SimAgent | undefined {
    return this.agents.get(uid)
  }

  add(agent: SimAgent): void {
    this.agents.set(agent.options.uid, agent)
  }

  forget(uid: string): void {
    this.agents.delete(uid)
    this.wake(uid)
  }

  isSilent(uid: string): boolean {
    return this.silent.has(uid)
  }

  /** From now on nothing gets through to the agent's node or from it. */
  silence(uid: string): void {
    if (!this.silent.has(uid)) {
      this.silent.set(uid, Deferred.makeUnsafe())
    }
  }

  wake(uid: string): void {
    const silence = this.silent.get(uid)
    this.silent.delete(uid)
    if (silence !== undefined) {
      Deferred.doneUnsafe(silence, Effect.void)
    }
  }

  /** Opens connections to agents over a network: a connection for each call, as long as the scope. */
  over(network: Network, seed: Seed): (uid: string) => Effect.Effect<AgentClient, never, Scope.Scope> {
    return (uid) => Effect.sync(() => this.client(uid, network, seed))
  }

  private client(uid: string, network: Network, seed: Seed): AgentClient {
    const { plan } = this
    const target = `agent ${uid}`
    const route = new Route()

    const unavailable = (problem: string) => new Unavailable({ target, problem })

    const lost = (arrived: boolean): BoundaryError =>
      arrived && seed.chance(0.3)
        ? new Cancelled({ operation: "the call" })
        : unavailable(arrived ? "the connection broke" : "connection refused")

    /** The agent, when a message gets through to it; nothing ever comes back from a silent node. */
    const reach = <A>(work: (agent: SimAgent) => Effect.Effect<A, BoundaryError>): Effect.Effect<A, BoundaryError> =>
      Effect.suspend(() => {
        const agent = this.agents.get(uid)
        if (this.silent.has(uid)) {
          return Effect.flatMap(
            Effect.sleep(seed.next() * keepaliveMillis),
            () => Effect.fail(unavailable("no answer to a keepalive"))
          )
        }
        return agent === undefined || !agent.isRunning
          ? Effect.flatMap(Effect.sleep(refusalMillis), () => Effect.fail(unavailable("connection refused")))
          : work(agent)
      })

    /** The answer of an agent that fell silent meanwhile does not come. */
    const answered = <A>(work: Effect.Effect<A, BoundaryError>): Effect.Effect<A, BoundaryError> =>
      Effect.tap(work, () =>
        this.silent.has(uid)
          ? Effect.flatMap(Effect.sleep(seed.next() * keepaliveMillis), () =>
            Effect.fail(unavailable("no answer to a keepalive")))
          : Effect.void)

    const unary = <A>(
      options: GrpcClient.CallOptions | undefined,
      work: (agent: SimAgent) => Effect.Effect<A, BoundaryError>
    ): Effect.Effect<A, BoundaryError> => {
      const call = Effect.suspend(() => {
        // A connection ends with the process that it leads to, and what is on its way with it.
        const starts = this.agents.get(uid)?.starts
        const arrive = (agent: SimAgent) =>
          agent.starts === starts ? work(agent) : Effect.fail(unavailable("the connection broke"))
        return network.call(plan.agents, { work: answered(reach(arrive)), lost, route })
      })
      const deadline = options?.deadline
      return deadline === undefined ? call : Effect.timeoutOrElse(call, {
        duration: deadline,
        orElse: () => Effect.fail(new DeadlineExceeded({ operation: "the call" }))
      })
    }

    const watch = Stream.unwrap(Effect.map(
      Effect.flatMap(
        Effect.sleep(network.way(plan.agents.meanMillis)),
        () => reach((agent) => Effect.succeed(agent))
      ),
      (agent) => {
        const life = network.isHealed ? Infinity : seed.exponential(plan.watchBreakMillis)
        const messages = Stream.unwrap(Effect.map(agent.watch, (queue) => Stream.fromQueue(queue))).pipe(
          Stream.chunks,
          // What is said while the node is silent never arrives, and the connection is found dead some time later.
          Stream.mapEffect((batch) =>
            this.silent.has(uid)
              ? Effect.flatMap(
                Effect.sleep(keepaliveMillis),
                () => Effect.fail(unavailable("no answer to a keepalive"))
              )
              : Effect.as(Effect.sleep(network.way(plan.agents.meanMillis)), batch)
          ),
          Stream.flattenArray
        )
        return Number.isFinite(life)
          ? Stream.interruptWhen(
            messages,
            Effect.flatMap(
              Effect.sleep(life),
              () => network.isHealed ? Effect.never : Effect.fail(unavailable("the connection broke"))
            )
          )
          : messages
      }
    ))

    const withInstance = (instance: Instance) => ({ instance })
    const absent = () => Stream.fail(new NotFound({ kind: "simulation of", name: "images and logs" }))

    return {
      create: (request, options) =>
        unary(
          options,
          (agent) =>
            Effect.map(
              agent.create(request),
              (instance) => ({ $typeName: "agent.v1.CreateResponse", ...withInstance(instance) })
            )
        ),
      bind: (request, options) =>
        unary(options, (agent) => Effect.as(agent.bind(request), { $typeName: "agent.v1.BindResponse" })),
      stop: (request, options) =>
        unary(
          options,
          (agent) =>
            Effect.map(
              agent.stop(request),
              (instance) => ({ $typeName: "agent.v1.StopResponse", ...withInstance(instance) })
            )
        ),
      delete: (request, options) =>
        unary(options, (agent) => Effect.as(agent.delete(request), { $typeName: "agent.v1.DeleteResponse" })),
      list: (_, options) =>
        unary(
          options,
          (agent) => Effect.succeed({ $typeName: "agent.v1.ListResponse", instances: [...agent.instances] })
        ),
      watch: () => watch,
      logs: absent,
      pullImage: absent,
      loadImage: absent,
      removeImage: () => Effect.fail(new NotFound({ kind: "simulation of", name: "images" })),
      warm: () => Effect.fail(new NotFound({ kind: "simulation of", name: "images" }))
    }
  }
}
