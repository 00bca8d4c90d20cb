/**
 * A node without containers: for every agent Pod a simulated agent with as many slots as the Pod says, at its own unix
 * socket, until the Pod is deleted. What the agents hold outlives the controller: `agents.ts <directory>`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Names from "@fast-sandbox/core/Names"
import { Pod } from "@fast-sandbox/kube/Kinds"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import * as SimulatedAgent from "@fast-sandbox/testkit/SimulatedAgent"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Place from "../Place.ts"

const [directory = ""] = process.argv.slice(2)

const slotsOf = ({ spec }: Pod): number =>
  Number(spec.containers.flatMap(({ env }) => env ?? []).find(({ name }) => name === "FSB_SLOTS")?.value)

const agentOf = (pod: Pod) =>
  SimulatedAgent.make({
    uid: pod.metadata.uid,
    pod: pod.metadata.name,
    node: `node-${pod.metadata.name}`,
    slots: slotsOf(pod),
    socket: Place.agentSocket(directory, pod.metadata.name),
    images: ["docker.io/library/busybox:latest"]
  })

const node = Layer.effectDiscard(Effect.gen(function*() {
  const pods = yield* Reflector.make(Pod, { labelSelector: `${Names.agentAppLabel.key}=${Names.agentAppLabel.value}` })
  const agents = yield* FiberMap.make<string>()
  yield* pods.changes.pipe(
    Stream.runForEach((change) =>
      change._tag === "Added"
        ? FiberMap.run(
          agents,
          change.object.metadata.uid,
          Effect.scoped(Effect.andThen(agentOf(change.object), Effect.never))
        )
        : change._tag === "Deleted"
        ? FiberMap.remove(agents, change.object.metadata.uid)
        : Effect.void
    ),
    Effect.forkScoped
  )
}))

Place.ready.pipe(
  Layer.provide(node),
  Layer.provide(Place.kubeClient(directory)),
  Layer.launch,
  NodeRuntime.runMain
)
