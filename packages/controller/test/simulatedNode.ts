/** A node of a simulated cluster. */
import * as Names from "@fast-sandbox/core/Names"
import { Pod } from "@fast-sandbox/kube/Kinds"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import { Effect, Stream } from "effect"
import { SimulatedAgents } from "./SimulatedAgents.ts"

/** Brings up an agent for every Pod, and takes it away with its Pod, as a node does. */
export const node = Effect.gen(function*() {
  const agents = yield* SimulatedAgents
  const pods = yield* Reflector.make(Pod)
  yield* pods.changes.pipe(
    Stream.runForEach((change) => {
      if (change._tag === "Synced") {
        return Effect.void
      }
      const { annotations, labels, name, uid } = change.object.metadata
      const env = change.object.spec.containers.flatMap(({ env }) => env ?? [])
      const isDraining = annotations?.[Names.drainAnnotation] !== undefined
      return change._tag === "Deleted"
        ? agents.remove(uid)
        : change._tag === "Added"
        ? agents.add({
          uid,
          pod: name,
          pool: labels?.[Names.poolLabel] ?? "",
          slots: Number(env.find(({ name }) => name === "FSB_SLOTS")?.value)
        })
        : isDraining
        ? agents.drain(uid)
        : Effect.void
    }),
    Effect.forkScoped
  )
})
