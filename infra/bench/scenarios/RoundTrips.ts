/**
 * What a user waits for beside the start itself: the first line of output, a program that is run in it, and the deletion.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { type Common, type Contender, ContenderFailed } from "../contenders/Contender.ts"
import * as Progress from "../Progress.ts"
import type { Recorder } from "../Recorder.ts"
import { timed } from "../Timed.ts"

const script = "echo ready; exec sleep 3600"

/** Programs that are run in each sandbox, one after the other. */
const execs = 3

/** `ours` says which pool is ready; its sandboxes are not used. */
export const run = Effect.fnUntraced(function*(recorder: Recorder, common: Common, options: {
  readonly ours: Contender
  readonly pool: string
  readonly rounds: number
}) {
  const sandboxes = yield* Sandboxes
  const { ours, pool, rounds } = options
  for (let round = 0; round < rounds; round++) {
    const name = `bench-trip-${round}`
    yield* ours.ready(1)
    const started = yield* timed(
      sandboxes.create({
        name,
        pool,
        image: common.image,
        command: ["sh", "-c", script],
        terminationGracePeriodSeconds: 0
      }).pipe(
        Effect.andThen(sandboxes.logs(name, { follow: true }).pipe(Stream.take(1), Stream.runDrain))
      )
    )
    recorder.add(
      "firstline.c1",
      "request: client's create until the first line of output has arrived over the log stream",
      started.millis
    )
    for (let exec = 0; exec < execs; exec++) {
      const { millis, value } = yield* timed(sandboxes.inside(name).output({ command: ["true"] }))
      if (value.exitCode !== 0) {
        return yield* new ContenderFailed({ contender: "exec", problem: `true ended with ${value.exitCode}` })
      }
      recorder.add(
        "exec.roundtrip",
        "request: client's exec of `true` until its exit code and its output's end",
        millis
      )
    }
    const deleted = yield* timed(Effect.andThen(sandboxes.delete(name), sandboxes.waitForDeletion(name)))
    recorder.add("delete.c1", "request: client's delete until everything is gone", deleted.millis)
    yield* ours.settled
    yield* Progress.show("round trips", round + 1, rounds)
  }
})
