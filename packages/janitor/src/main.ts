/**
 * The janitor's process, one for each node. Configured by its environment, see `JanitorConfig`; the API is found as
 * kubectl finds it.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import { version } from "@fast-sandbox/core/Version"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Logs from "@fast-sandbox/telemetry/Logs"
import * as Tracing from "@fast-sandbox/telemetry/Tracing"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Janitor } from "./Janitor.ts"
import * as JanitorConfig from "./JanitorConfig.ts"
import * as Telemetry from "./Telemetry.ts"

const program = Layer.unwrap(
  Effect.map(
    JanitorConfig.config,
    ({ containerdNamespace, containerdSocket, janitor, metrics }) =>
      (metrics === undefined ? Layer.empty : Telemetry.layer(metrics)).pipe(
        Layer.provideMerge(Janitor.layer(janitor)),
        Layer.provide(Containerd.layer({ socket: containerdSocket, namespace: containerdNamespace }))
      )
  )
).pipe(
  Layer.provide(KubeClient.layer.pipe(Layer.provide(KubeConfig.layerDefault))),
  Layer.provide(NodeServices.layer),
  Layer.provide([Logs.layer, Tracing.layer({ name: "fast-sandbox-janitor", version })])
)

NodeRuntime.runMain(Layer.launch(program))
