/** The controller's program: configuration from the environment, then one Layer until it is told to end. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { ports } from "@fast-sandbox/core/Names"
import { version } from "@fast-sandbox/core/Version"
import { unixPathOf } from "@fast-sandbox/grpc/GrpcConnection"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Logs from "@fast-sandbox/telemetry/Logs"
import * as Probes from "@fast-sandbox/telemetry/Probes"
import * as Tracing from "@fast-sandbox/telemetry/Tracing"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { randomUUID } from "node:crypto"
import { Authority } from "./access/Authority.ts"
import { AgentAddress } from "./agents/AgentAddress.ts"
import * as Controller from "./Controller.ts"
import * as Telemetry from "./Telemetry.ts"

const config = Config.all({
  agentImage: Config.NonEmptyString("FSB_AGENT_IMAGE").pipe(Config.withDefault(`fast-sandbox/agent:${version}`)),
  leaderElection: Config.Boolean("FSB_LEADER_ELECTION").pipe(Config.withDefault(true)),
  podName: Config.NonEmptyString("POD_NAME").pipe(Config.withDefault("controller")),
  podNamespace: Config.NonEmptyString("POD_NAMESPACE").pipe(Config.withDefault("fast-sandbox-system")),
  podIp: Config.option(Config.NonEmptyString("POD_IP")).pipe(Config.map(Option.getOrUndefined)),
  service: Config.NonEmptyString("FSB_SERVICE").pipe(Config.withDefault("fastpath")),
  listen: Config.NonEmptyString("FSB_LISTEN").pipe(Config.withDefault(`:${ports.fastPath}`)),
  metricsListen: Config.NonEmptyString("FSB_METRICS_LISTEN").pipe(Config.withDefault(`:${ports.metrics}`))
})

/** Whatever listens on the network shows a certificate of the authority. */
const listenerOf = (text: string, { own, rotations }: Authority["Service"]): Effect.Effect<GrpcServer.Listener> =>
  Effect.map(own, ({ certificate, key }) => {
    const { host, port } = Probes.parseAddress(text)
    const path = unixPathOf(text)
    return path === undefined
      ? GrpcServer.tcp(host, port, { tls: { certificate: { chain: certificate, key }, rotations } })
      : GrpcServer.unix(path)
  })

const program = Effect.gen(function*() {
  const { agentImage, leaderElection, listen, metricsListen, podIp, podName, podNamespace, service } = yield* config
  const authority = Authority.layer({ namespace: podNamespace, service, podIp })
  const identity = yield* Effect.sync(() => `${podName}_${randomUUID()}`)
  const controller = Layer.unwrap(Effect.gen(function*() {
    const authority = yield* Authority
    return Controller.layer({
      agentImage,
      authority,
      address: `${service}.${podNamespace}.svc:${ports.fastPath}`,
      listeners: [yield* listenerOf(listen, authority)],
      leaderElection: leaderElection
        ? { name: "fast-sandbox-controller", namespace: podNamespace, identity }
        : undefined
    })
  }))
  // Beside the controller, on the same parts: probes are answered while its caches are being filled.
  const telemetry = Telemetry.layer(Probes.parseAddress(metricsListen)).pipe(Layer.provide(Controller.shared))
  const addresses = Layer.unwrap(Effect.map(Authority, AgentAddress.layerPodIp))
  return Layer.merge(controller, telemetry).pipe(Layer.provide(addresses), Layer.provide(authority))
})

Layer.unwrap(program).pipe(
  Layer.provide(KubeClient.layer),
  Layer.provide(KubeConfig.layerDefault),
  Layer.provide([Logs.layer, Tracing.layer({ name: "fast-sandbox-controller", version })]),
  Layer.launch,
  NodeRuntime.runMain
)
