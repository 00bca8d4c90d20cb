/**
 * The controller as one Layer: the view of the agents and of their slots, the shared caches, and the two controllers. In
 * a cluster the controllers run on one elected replica; the rest, which serves requests, runs on all of them.
 */
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as LeaderElection from "@fast-sandbox/kube/LeaderElection"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { AgentAddress } from "./agents/AgentAddress.ts"
import type { Agents } from "./agents/Agents.ts"
import * as WatchedAgents from "./agents/WatchedAgents.ts"
import { Caches } from "./Caches.ts"
import { Demand } from "./pool/Demand.ts"
import * as SandboxPoolController from "./pool/SandboxPoolController.ts"
import { Registry } from "./registry/Registry.ts"
import * as SandboxController from "./sandbox/SandboxController.ts"

/** Options of {@link layer}. */
export interface ControllerOptions {
  /** The agent's image, for pools whose template names none. */
  readonly agentImage: string
  /** Present where several controllers share one API; without it this one leads at once. */
  readonly leaderElection?: LeaderElection.LeaderElectionOptions | undefined
}

/** What the controllers and those who serve requests have in common. */
export type Shared = Agents | Registry | Demand | Caches | EventRecorder

/** The shared view of the world, filled from the API and from the agents. */
export const shared: Layer.Layer<Shared, never, KubeClient | AgentAddress> = Layer.mergeAll(
  Caches.layer,
  Demand.layer,
  EventRecorder.layer({ component: "fast-sandbox-controller" }),
  WatchedAgents.layer.pipe(Layer.provideMerge(Registry.layer))
)

/** The controllers, on the leader only. */
export const controllers = (options: ControllerOptions): Layer.Layer<never, never, KubeClient | Shared> => {
  const both = Effect.all([SandboxController.run, SandboxPoolController.run(options)], {
    concurrency: "unbounded",
    discard: true
  })
  const { leaderElection } = options
  return Layer.effectDiscard(
    Effect.forkScoped(leaderElection === undefined ? both : LeaderElection.run(leaderElection)(both))
  )
}

/** Everything that needs no listener; those who serve requests stand on what it provides. */
export const layer = (options: ControllerOptions): Layer.Layer<Shared, never, KubeClient | AgentAddress> =>
  controllers(options).pipe(Layer.provideMerge(shared))
