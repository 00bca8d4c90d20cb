/** The embedded API server by itself: `apiserver.ts <directory>`. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import * as FirstResources from "@fast-sandbox/local/FirstResources"
import * as Layer from "effect/Layer"
import * as Place from "../Place.ts"

const [directory = ""] = process.argv.slice(2)

Place.ready.pipe(
  Layer.provide(Layer.effectDiscard(FirstResources.ensure)),
  Layer.provide(Layer.suspend(() => Place.kubeClient(directory))),
  Layer.provide(ApiServer.layer({ dataDirectory: Place.apiServerDirectory(directory) })),
  Layer.provide(NodeServices.layer),
  Layer.launch,
  NodeRuntime.runMain
)
