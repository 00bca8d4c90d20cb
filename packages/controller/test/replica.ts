/**
 * One replica of the controller as a process of its own, for tests that kill it:
 *
 *   node replica.ts NAME SOCKET KUBECONFIG AGENTS
 *
 * NAME is its identity in the election, SOCKET where it serves, AGENTS the folder of the simulated agents' sockets.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { Layer, References } from "effect"
import { randomUUID } from "node:crypto"
import * as Controller from "../src/Controller.ts"
import { addressesIn } from "./Fleet.ts"

const [name = "", socket = "", kubeconfig = "", agents = ""] = process.argv.slice(2)

Controller.layer({
  agentImage: "agent",
  listeners: [GrpcServer.unix(socket)],
  leaderElection: {
    name: "controller",
    namespace: "default",
    identity: `${name}_${randomUUID()}`,
    // Short, so that a test sees more than one handover.
    leaseDuration: "3 seconds",
    renewDeadline: "2 seconds",
    retryPeriod: "500 millis"
  }
}).pipe(
  Layer.provide([KubeClient.layer, addressesIn(agents)]),
  Layer.provide(KubeConfig.layerFile(kubeconfig)),
  Layer.provide(NodeServices.layer),
  Layer.provide(Layer.succeed(References.MinimumLogLevel, "Fatal")),
  Layer.launch,
  NodeRuntime.runMain
)
