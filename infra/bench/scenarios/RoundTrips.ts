/**
 * What a user waits for beside the start itself: the first line of output, and the deletion.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { performance } from "node:perf_hooks"
import type { Common, Contender } from "../contenders/Contender.ts"
import type { Recorder } from "../Recorder.ts"

const script = "echo ready; exec sleep 3600"

/** `ours` says which pool is ready; its sandboxes are not used. */
export const run = Effect.fnUntraced(function*(recorder: Recorder, common: Common, options: {
  readonly ours: Contender
  readonly pool: string
  readonly rounds: number
}) {
  const sandboxes = yield* Sandboxes
  for (let round = 0; round < options.rounds; round++) {
    const name = `bench-trip-${round}`
    yield* options.ours.ready(1)
    const startedAt = performance.now()
    yield* sandboxes.create({
      name,
      pool: options.pool,
      image: common.image,
      command: ["sh", "-c", script],
      terminationGracePeriodSeconds: 0
    })
    yield* sandboxes.logs(name, { follow: true }).pipe(Stream.take(1), Stream.runDrain)
    recorder.add(
      "firstline.c1",
      "request: client's create until the first line of output has arrived over the log stream",
      performance.now() - startedAt
    )
    const deletedAt = performance.now()
    yield* sandboxes.delete(name)
    yield* sandboxes.waitForDeletion(name)
    recorder.add("delete.c1", "request: client's delete until everything is gone", performance.now() - deletedAt)
  }
})
