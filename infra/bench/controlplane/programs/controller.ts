/** The controller by itself, with agents at unix sockets: `controller.ts <directory>`. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Controller from "@fast-sandbox/controller/Controller"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as Layer from "effect/Layer"
import * as Place from "../Place.ts"

const [directory = ""] = process.argv.slice(2)

Place.ready.pipe(
  Layer.provide(Controller.layer({
    agentImage: "fast-sandbox/agent",
    listeners: [GrpcServer.unix(Place.fastPathSocket(directory))]
  })),
  Layer.provide([Place.kubeClient(directory), Place.agentAddresses(directory)]),
  Layer.launch,
  NodeRuntime.runMain
)
