/**
 * The API server and the controller in one process, composed as the one-machine stack composes them, without containerd
 * and janitor: `stack.ts <directory>`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Controller from "@fast-sandbox/controller/Controller"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import * as FirstResources from "@fast-sandbox/local/FirstResources"
import * as Layer from "effect/Layer"
import * as Place from "../Place.ts"

const [directory = ""] = process.argv.slice(2)

Place.ready.pipe(
  Layer.provide(Controller.layer({
    agentImage: "fast-sandbox/agent",
    listeners: [GrpcServer.unix(Place.fastPathSocket(directory))]
  })),
  Layer.provide(Place.agentAddresses(directory)),
  Layer.provide(Layer.effectDiscard(FirstResources.ensure)),
  Layer.provide(Layer.suspend(() => Place.kubeClient(directory))),
  Layer.provide(ApiServer.layer({ dataDirectory: Place.apiServerDirectory(directory) })),
  Layer.provide(NodeServices.layer),
  Layer.launch,
  NodeRuntime.runMain
)
