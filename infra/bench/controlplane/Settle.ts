/**
 * Sandboxes that are applied through the Kubernetes API, all at once: how long until all of them run, what that writes,
 * and that nothing is written any more when nothing happens.
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { performance } from "node:perf_hooks"
import type { Recorder } from "../Recorder.ts"
import * as Place from "./Place.ts"
import * as Programs from "./Programs.ts"
import * as World from "./World.ts"

/** What is applied, and for how long nothing may be written afterwards. */
export interface Options {
  readonly bundle: string
  readonly directory: string
  readonly count: number
  readonly quietMillis: number
}

const agents = 20

export const run = Effect.fn("Settle.run")(
  function*(recorder: Recorder, { bundle, count, directory, quietMillis }: Options) {
    const stack = yield* Programs.started("stack", { bundle, directory })
    yield* Effect.gen(function*() {
      yield* Programs.started("agents", { bundle, directory })
      yield* World.addPool("bench", agents, Math.ceil(count / agents))
      const store = yield* World.sandboxes
      yield* store.synced
      const before = yield* World.quiet

      const name = `controlplane.settle${count}`
      const processorBefore = yield* Programs.processorSeconds(stack)
      const startedAt = performance.now()
      yield* World.applyAll(Array.from({ length: count }, (_, n) => `settle-${n}`), "bench")
      const applied = performance.now() - startedAt
      yield* World.running(store, count)
      const settled = performance.now() - startedAt
      recorder.add(
        name,
        `${count} Sandboxes created through the Kubernetes API over HTTPS, until a watch shows all of them Running; ` +
          `${agents} simulated agents, API server and controller in one process`,
        settled / 1000,
        "s"
      )
      recorder.add(
        `${name}.processor`,
        "processor time of API server and controller within that time",
        (yield* Programs.processorSeconds(stack)) - processorBefore,
        "s"
      )
      const after = yield* World.quiet
      const writes = yield* World.writes(before)
      yield* Console.error(
        `applied in ${(applied / 1000).toFixed(1)} s, settled in ${(settled / 1000).toFixed(1)} s, ` +
          `writes: ${JSON.stringify(writes)}`
      )
      recorder.add(
        "controlplane.writesPerSandbox",
        "stored writes of Sandboxes, the user's create among them, for each",
        writes.sandbox / count,
        "writes"
      )
      recorder.add(
        "controlplane.eventsPerSandbox",
        "stored writes of Events for each Sandbox",
        writes.event / count,
        "writes"
      )
      recorder.add(
        "controlplane.poolWrites",
        `stored writes of pools while ${count} Sandboxes settled`,
        writes.pool,
        "writes"
      )

      yield* Effect.sleep(quietMillis)
      recorder.add(
        "controlplane.writesWhenQuiet",
        `stored writes of any kind within ${quietMillis / 1000} s in which nothing happened`,
        (yield* World.revision) - after,
        "writes"
      )
    }).pipe(Effect.provide(Place.kubeClient(directory)))
  },
  Effect.scoped
)
