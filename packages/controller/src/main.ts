/** The controller's program: configuration from the environment, then one Layer until it is told to end. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { ports } from "@fast-sandbox/core/Names"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import { randomUUID } from "node:crypto"
import { AgentAddress } from "./agents/AgentAddress.ts"
import * as Controller from "./Controller.ts"
import * as Telemetry from "./Telemetry.ts"

const config = Config.all({
  agentImage: Config.NonEmptyString("FSB_AGENT_IMAGE").pipe(Config.withDefault("fast-sandbox/agent:latest")),
  leaderElection: Config.Boolean("FSB_LEADER_ELECTION").pipe(Config.withDefault(true)),
  podName: Config.NonEmptyString("POD_NAME").pipe(Config.withDefault("controller")),
  podNamespace: Config.NonEmptyString("POD_NAMESPACE").pipe(Config.withDefault("fast-sandbox-system")),
  metricsListen: Config.option(Config.NonEmptyString("FSB_METRICS_LISTEN"))
})

/** `host:port`, `:port` or `host`. */
const listenOf = (text: string): Telemetry.TelemetryOptions => {
  const colon = text.lastIndexOf(":")
  const [host, port] = colon === -1 ? [text, ""] : [text.slice(0, colon), text.slice(colon + 1)]
  return { host: host === "" ? "0.0.0.0" : host, port: port === "" ? ports.metrics : Number(port) }
}

const program = Effect.gen(function*() {
  const { agentImage, leaderElection, metricsListen, podName, podNamespace } = yield* config
  const identity = yield* Effect.sync(() => `${podName}_${randomUUID()}`)
  const controller = Controller.layer({
    agentImage,
    leaderElection: leaderElection ? { name: "fast-sandbox-controller", namespace: podNamespace, identity } : undefined
  })
  const telemetry = Option.match(metricsListen, {
    onNone: () => Layer.empty,
    onSome: (text) => Telemetry.layer(listenOf(text))
  })
  return telemetry.pipe(Layer.provideMerge(controller))
})

Layer.unwrap(program).pipe(
  Layer.provide([KubeClient.layer, AgentAddress.layerPodIp()]),
  Layer.provide(KubeConfig.layerDefault),
  Layer.provide(Logger.layer([Logger.consoleJson])),
  Layer.launch,
  NodeRuntime.runMain
)
