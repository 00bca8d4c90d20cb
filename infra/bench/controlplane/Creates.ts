/**
 * What the control plane adds to a create: the agent answers at once, so what is left is all its own. Fast and strong
 * take turns, and what each leaves to be done is done before the next begins.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import type { Recorder } from "../Recorder.ts"
import { percentile } from "../Statistics.ts"
import { timed } from "../Timed.ts"
import * as Place from "./Place.ts"
import * as Programs from "./Programs.ts"
import * as World from "./World.ts"

/** Every round has one create of each mode, and one write to the API to compare them with. */
export interface Options {
  readonly bundle: string
  readonly directory: string
  readonly rounds: number
}

/** Slots of the one agent: as many as the one-machine stack's. */
const slots = 50

/** Rounds that warm up and are not counted. */
const warmUps = 50

/** What goes on behind the answer of a delete (events, counts) gets this time. */
const pause = "20 millis"

export const run = Effect.fn("Creates.run")(
  function*(recorder: Recorder, { bundle, directory, rounds }: Options) {
    yield* Programs.started("stack", { bundle, directory })
    yield* Effect.gen(function*() {
      yield* Programs.started("agents", { bundle, directory })
      yield* World.addPool("bench", 1, slots)
      const kube = yield* KubeClient
      const client = yield* Sandboxes
      // A resource that asks nothing of the controller: it waits for a pool that does not exist.
      yield* World.applyAll(["written"], "nobody")

      const create = (name: string, consistencyMode: "fast" | "strong") =>
        Effect.gen(function*() {
          const { millis } = yield* timed(client.create({ name, image: World.image, pool: "bench", consistencyMode }))
          yield* client.delete(name)
          yield* client.waitForDeletion(name)
          yield* Effect.sleep(pause)
          return millis
        })
      const write = (value: string) =>
        Effect.map(
          timed(kube.patch(FastSandbox.Sandbox, { name: "written", namespace: World.namespace }, {
            type: "merge",
            body: { metadata: { annotations: { "bench/written": value } } }
          })),
          ({ millis }) => millis
        )

      const fast: Array<number> = []
      const strong: Array<number> = []
      const writes: Array<number> = []
      for (let round = -warmUps; round < rounds; round++) {
        const samples = {
          fast: yield* create(`fast-${round + warmUps}`, "fast"),
          strong: yield* create(`strong-${round + warmUps}`, "strong"),
          write: yield* write(String(round))
        }
        if (round >= 0) {
          fast.push(samples.fast)
          strong.push(samples.strong)
          writes.push(samples.write)
        }
      }
      const boundary = "request: client's create until its answer, with an agent that answers at once"
      recorder.addAll("create.fast.controlplane", `${boundary}, fast mode`, fast)
      recorder.addAll("create.strong.controlplane", `${boundary}, strong mode`, strong)
      recorder.addAll("api.write", "request: a patch of a Sandbox from another process until its answer", writes)
      const added = percentile(strong, 50) - percentile(fast, 50)
      const allowed = 2 * percentile(writes, 50) + 5
      yield* Console.error(
        `strong adds ${added.toFixed(2)} ms to fast (p50); two API writes and 5 ms are ${allowed.toFixed(2)} ms`
      )
    }).pipe(
      Effect.provide([
        Place.kubeClient(directory),
        Sandboxes.layer({ endpoint: `unix:${Place.fastPathSocket(directory)}` })
      ])
    )
  },
  Effect.scoped
)
