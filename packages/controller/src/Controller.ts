/**
 * The controller as one Layer: the view of the agents and of their slots, the shared caches, the Fast-Path API, and the
 * two controllers. In a cluster the controllers run on one elected replica; requests are served by all of them.
 */
import { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as GrpcHealth from "@fast-sandbox/grpc/GrpcHealth"
import * as GrpcReflection from "@fast-sandbox/grpc/GrpcReflection"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as LeaderElection from "@fast-sandbox/kube/LeaderElection"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Access } from "./access/Access.ts"
import type { Authority } from "./access/Authority.ts"
import * as Enrollment from "./access/Enrollment.ts"
import type { AgentAddress } from "./agents/AgentAddress.ts"
import type { Agents } from "./agents/Agents.ts"
import * as WatchedAgents from "./agents/WatchedAgents.ts"
import { Caches } from "./Caches.ts"
import { Directory } from "./fastpath/Directory.ts"
import * as FastPathApi from "./fastpath/FastPathApi.ts"
import { Demand } from "./pool/Demand.ts"
import * as SandboxPoolController from "./pool/SandboxPoolController.ts"
import { Registry } from "./registry/Registry.ts"
import * as SandboxController from "./sandbox/SandboxController.ts"

/** Options of {@link layer}. */
export interface ControllerOptions {
  /** The agent's image, for pools whose template names none. */
  readonly agentImage: string
  /** Where the Fast-Path API listens. */
  readonly listeners: readonly [GrpcServer.Listener, ...ReadonlyArray<GrpcServer.Listener>]
  /** Signs the certificates of agents that are reached over the network; without it agents are at unix sockets. */
  readonly authority?: Authority["Service"] | undefined
  /** How agents reach the controllers to get their certificates: `host:port`. */
  readonly address?: string | undefined
  /** Present where several controllers share one API; without it this one leads at once. */
  readonly leaderElection?: LeaderElection.LeaderElectionOptions | undefined
}

/** What the controllers and the Fast-Path API have in common. */
export type Shared = Agents | Registry | Demand | Caches | EventRecorder

/** The shared view of the world, filled from the API and from the agents. */
export const shared: Layer.Layer<Shared, never, KubeClient | AgentAddress> = Layer.mergeAll(
  Caches.layer,
  Demand.layer,
  EventRecorder.layer({ component: "fast-sandbox-controller" }),
  WatchedAgents.layer.pipe(Layer.provideMerge(Registry.layer))
)

/** The controllers, on the leader only. */
export const controllers = (
  options: Pick<ControllerOptions, "agentImage" | "leaderElection" | "authority" | "address">
): Layer.Layer<never, never, KubeClient | Shared> => {
  const { address, authority } = options
  const enrollment = address === undefined || authority === undefined
    ? undefined
    : Effect.map(authority.bundle, (authorities) => ({ controller: address, authorities }))
  const both = Effect.all([SandboxController.run, SandboxPoolController.run({ ...options, enrollment })], {
    concurrency: "unbounded",
    discard: true
  })
  const { leaderElection } = options
  return Layer.effectDiscard(
    Effect.forkScoped(leaderElection === undefined ? both : LeaderElection.run(leaderElection)(both))
  )
}

/** The Fast-Path API behind its listeners, with health and reflection. */
export const server = (
  options: Pick<ControllerOptions, "listeners" | "authority">
): Layer.Layer<GrpcServer.GrpcServer, GrpcServer.BindError, KubeClient | Shared> =>
  Layer.unwrap(Effect.map(Access, ({ authenticate, authorize }) =>
    GrpcServer.layer({
      services: [
        FastPathApi.service,
        GrpcHealth.service,
        ...GrpcReflection.make([FastPathService]),
        ...(options.authority === undefined ? [] : [Enrollment.service(options.authority)])
      ],
      listeners: options.listeners,
      authenticate,
      authorize
    }))).pipe(
      // Whoever is answered before the caches are filled is told that nothing exists.
      Layer.provide(Layer.effectDiscard(Directory.use(({ synced }) => synced))),
      Layer.provide([FastPathApi.layer, GrpcHealth.layer, Access.layer])
    )

/** All of it. */
export const layer = (
  options: ControllerOptions
): Layer.Layer<GrpcServer.GrpcServer | Shared, GrpcServer.BindError, KubeClient | AgentAddress> =>
  Layer.mergeAll(server(options), controllers(options)).pipe(Layer.provideMerge(shared))
