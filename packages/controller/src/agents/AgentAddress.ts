/**
 * Where the agent of a Pod listens. In a cluster that is the Pod's IP; a program that runs the agents itself, on one
 * machine, provides unix sockets instead.
 */
import { ports } from "@fast-sandbox/core/Names"
import type { Credentials } from "@fast-sandbox/grpc/GrpcClient"
import type { Pod } from "@fast-sandbox/kube/Kinds"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

/** What a client connects to. */
export interface Endpoint {
  /** `unix:/absolute/path` or `host:port`. */
  readonly address: string
  readonly credentials?: Credentials | undefined
}

/** Finds agents. */
export class AgentAddress extends Context.Service<AgentAddress, {
  /** None while the Pod has no address yet. */
  resolve(pod: Pod): Effect.Effect<Option.Option<Endpoint>>
}>()("@fast-sandbox/controller/agents/AgentAddress") {
  /** Each agent at its Pod's IP and the agents' port. */
  static layerPodIp(options?: { readonly credentials?: Credentials | undefined }): Layer.Layer<AgentAddress> {
    return Layer.succeed(
      AgentAddress,
      AgentAddress.of({
        resolve: ({ status }) =>
          Effect.succeed(
            status?.podIP === undefined || status.podIP === "" ? Option.none() : Option.some({
              address: `${status.podIP.includes(":") ? `[${status.podIP}]` : status.podIP}:${ports.agent}`,
              credentials: options?.credentials
            })
          )
      })
    )
  }
}
