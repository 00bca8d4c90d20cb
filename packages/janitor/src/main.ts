/**
 * The janitor's process, one for each node. Configured by its environment, see `JanitorConfig`; the API is found as
 * kubectl finds it.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { Janitor } from "./Janitor.ts"
import * as JanitorConfig from "./JanitorConfig.ts"

const program = Layer.unwrap(
  Effect.map(JanitorConfig.config, ({ containerdNamespace, containerdSocket, janitor }) =>
    Janitor.layer(janitor).pipe(
      Layer.provide(Containerd.layer({ socket: containerdSocket, namespace: containerdNamespace }))
    ))
).pipe(
  Layer.provide(KubeClient.layer.pipe(Layer.provide(KubeConfig.layerDefault))),
  Layer.provide(NodeServices.layer),
  Layer.provide(Logger.layer([Logger.consoleJson]))
)

NodeRuntime.runMain(Layer.launch(program))
