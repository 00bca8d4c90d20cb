/**
 * A web service that runs code, with everything in one program: the whole local stack is one Layer among others.
 * `POST /run` takes a shell script and answers with what it prints, as it prints it.
 *
 *     make build && sudo node infra/examples/code-service.ts
 *     curl --data 'for i in 1 2 3; do echo $i; sleep 1; done' http://127.0.0.1:8080/run
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Stack from "@fast-sandbox/local/Stack"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

const home = process.env.FSB_HOME ?? "/var/lib/code-service"
const port = Number(process.env.PORT ?? 8080)
const built = (name: string) => fileURLToPath(new URL(`../../dist/${name}`, import.meta.url))

/** Controller, agent, janitor, API server and a containerd of their own, for as long as the program lives. */
const stack = Layer.effectDiscard(Stack.firstAgent).pipe(
  Layer.provide(Stack.layer({
    home,
    containerd: "own",
    agentCommand: [process.execPath, built("agent.cjs")],
    loggerBinary: built("fsb-logger"),
    idmapBinary: built("fsb-idmap"),
    networkBinary: built("fsb-network"),
    initBinary: built("fsb-init")
  })),
  Layer.provide(NodeServices.layer)
)

const sandboxes = Sandboxes.layer({ endpoint: `unix:${home}/run/fastpath.sock` }).pipe(Layer.provide(stack))

/** A minute is enough for everybody, and an end of its own for what its caller forgot. */
const SECONDS = 60

/** A sandbox for this one request: it goes with the last line, or when the caller hangs up. */
const run = (code: string) =>
  Stream.unwrap(Effect.gen(function*() {
    const { scoped } = yield* Sandboxes
    const sandbox = yield* scoped({
      image: "busybox",
      command: ["sh", "-c", code],
      ttlSeconds: SECONDS,
      resources: { cpu: "1", memory: "64Mi", pids: 64 },
      terminationGracePeriodSeconds: 0
    })
    return Stream.map(sandbox.logs({ follow: true }), ({ bytes }) => Buffer.concat([bytes, Buffer.from("\n")]))
  })).pipe(
    // the answer has begun, so what went wrong is its last line
    Stream.catch((failure) => Stream.succeed(Buffer.from(`${failure.message}\n`)))
  )

const routes = HttpRouter.add(
  "POST",
  "/run",
  Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    const context = yield* Effect.context<Sandboxes>()
    const code = yield* request.text
    return HttpServerResponse.stream(Stream.provideContext(run(code), context), { contentType: "text/plain" })
  })
)

HttpRouter.serve(routes).pipe(
  Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port })),
  Layer.provide(sandboxes),
  Layer.launch,
  NodeRuntime.runMain
)
