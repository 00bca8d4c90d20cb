/**
 * Where the agent of a Pod listens. In a cluster that is the Pod's IP; a program that runs the agents itself, on one
 * machine, provides unix sockets instead.
 */
import { agentServerName } from "@fast-sandbox/core/AgentProtocol"
import { ports } from "@fast-sandbox/core/Names"
import type { Credentials } from "@fast-sandbox/grpc/GrpcClient"
import type { Pod } from "@fast-sandbox/kube/Kinds"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Authority } from "../access/Authority.ts"

/** What a client connects to. */
export interface Endpoint {
  /** `unix:/absolute/path` or `host:port`. */
  readonly address: string
  /** Asked for with each connection: certificates are replaced. Absent: plain text, for unix sockets. */
  readonly credentials?: Effect.Effect<Credentials> | undefined
}

/** Finds agents. */
export class AgentAddress extends Context.Service<AgentAddress, {
  /** None while the Pod has no address yet. */
  resolve(pod: Pod): Effect.Effect<Option.Option<Endpoint>>
}>()("@fast-sandbox/controller/agents/AgentAddress") {
  /** Each agent at its Pod's IP and the agents' port, with the certificate of exactly that Pod's agent. */
  static layerPodIp({ bundle, own }: Pick<Authority["Service"], "bundle" | "own">): Layer.Layer<AgentAddress> {
    return Layer.succeed(
      AgentAddress,
      AgentAddress.of({
        resolve: ({ metadata: { uid }, status }) =>
          Effect.succeed(
            status?.podIP === undefined || status.podIP === "" ? Option.none() : Option.some({
              address: `${status.podIP.includes(":") ? `[${status.podIP}]` : status.podIP}:${ports.agent}`,
              credentials: Effect.zipWith(bundle, own, (ca, { certificate, key }) => ({
                tls: { ca, certificate: { chain: certificate, key }, serverName: agentServerName(uid) }
              }))
            })
          )
      })
    )
  }
}
