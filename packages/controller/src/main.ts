/** The controller's program: configuration from the environment, then one Layer until it is told to end. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { ports } from "@fast-sandbox/core/Names"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { randomUUID } from "node:crypto"
import { AgentAddress } from "./agents/AgentAddress.ts"
import * as Controller from "./Controller.ts"
import * as Telemetry from "./Telemetry.ts"

const config = Config.all({
  agentImage: Config.NonEmptyString("FSB_AGENT_IMAGE").pipe(Config.withDefault("fast-sandbox/agent:latest")),
  leaderElection: Config.Boolean("FSB_LEADER_ELECTION").pipe(Config.withDefault(true)),
  podName: Config.NonEmptyString("POD_NAME").pipe(Config.withDefault("controller")),
  podNamespace: Config.NonEmptyString("POD_NAMESPACE").pipe(Config.withDefault("fast-sandbox-system")),
  listen: Config.NonEmptyString("FSB_LISTEN").pipe(Config.withDefault(`:${ports.fastPath}`)),
  metricsListen: Config.NonEmptyString("FSB_METRICS_LISTEN").pipe(Config.withDefault(`:${ports.metrics}`))
})

/** `host:port`, or `:port` for all addresses. */
const addressOf = (text: string): { readonly host: string; readonly port: number } => {
  const colon = text.lastIndexOf(":")
  return { host: text.slice(0, Math.max(0, colon)) || "0.0.0.0", port: Number(text.slice(colon + 1)) }
}

const unixPrefix = "unix:"

const listenerOf = (text: string): GrpcServer.Listener => {
  const { host, port } = addressOf(text)
  return text.startsWith(unixPrefix) ? GrpcServer.unix(text.slice(unixPrefix.length)) : GrpcServer.tcp(host, port)
}

const program = Effect.gen(function*() {
  const { agentImage, leaderElection, listen, metricsListen, podName, podNamespace } = yield* config
  const identity = yield* Effect.sync(() => `${podName}_${randomUUID()}`)
  const controller = Controller.layer({
    agentImage,
    listeners: [listenerOf(listen)],
    leaderElection: leaderElection ? { name: "fast-sandbox-controller", namespace: podNamespace, identity } : undefined
  })
  // Beside the controller, on the same parts: probes are answered while its caches are being filled.
  const telemetry = Telemetry.layer(addressOf(metricsListen)).pipe(Layer.provide(Controller.shared))
  return Layer.merge(controller, telemetry)
})

Layer.unwrap(program).pipe(
  Layer.provide([KubeClient.layer, AgentAddress.layerPodIp()]),
  Layer.provide(KubeConfig.layerDefault),
  Layer.provide(Logger.layer([Logger.consoleJson])),
  Layer.launch,
  NodeRuntime.runMain
)
