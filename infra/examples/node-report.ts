/**
 * What a node's containerd holds and runs, and with WATCH=1 what happens there: `ContainerdClient` and the services on
 * it, without anything else of Fast Sandbox.
 *
 *     sudo node infra/examples/node-report.ts
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { ContainerdClient } from "@fast-sandbox/containerd/ContainerdClient"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Introspection } from "@fast-sandbox/containerd/Introspection"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

const report = Effect.gen(function*() {
  const client = yield* ContainerdClient
  const { version } = yield* Introspection.use(({ version }) => version)
  const containers = yield* Containers.use(({ list }) => list())
  const tasks = yield* Tasks.use(({ list }) => list)
  yield* Console.log(`containerd ${version} at ${client.socket}, namespace ${client.namespace}`)
  for (const { id, image, labels } of containers) {
    const task = tasks.find(({ containerId }) => containerId === id)
    const name = labels["fast-sandbox.io/sandbox-name"] ?? id
    yield* Console.log(`  ${name} of ${image}: ${task === undefined ? "no task" : `pid ${task.pid}`}`)
  }
})

const containerd = Layer.mergeAll(Containers.layer, Introspection.layer, Tasks.layer).pipe(
  Layer.provideMerge(ContainerdClient.layer({
    socket: process.env.CONTAINERD_SOCKET,
    namespace: process.env.CONTAINERD_NAMESPACE ?? "k8s.io"
  }))
)

report.pipe(Effect.provide(containerd), NodeRuntime.runMain)
