/**
 * A server in a process of its own, to be killed: `node serverProcess.ts DATA_DIRECTORY [PORT]`. It prints one line of
 * JSON about itself once it serves.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import { Console, Effect, Layer } from "effect"

const [dataDirectory = "", port = "0"] = process.argv.slice(2)

const announce = Layer.effectDiscard(ApiServer.use((server) => Console.log(JSON.stringify(server))))

Layer.launch(announce.pipe(
  Layer.provide(ApiServer.layer({ dataDirectory, port: Number(port) })),
  Layer.provide(NodeServices.layer)
)).pipe(Effect.orDie, NodeRuntime.runMain)
