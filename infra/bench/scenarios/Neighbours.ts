/**
 * What one sandbox that takes all it can get costs the others: starts beside it, and starts without it, in turns on the
 * same stack in the same minutes.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import type { Common, Contender } from "../contenders/Contender.ts"
import type { Recorder } from "../Recorder.ts"
import * as Starts from "./Starts.ts"

/** What each one's sandbox runs, with the limits that a sandbox has when it asks for none. */
const neighbours: Readonly<Record<string, ReadonlyArray<string> | undefined>> = {
  alone: undefined,
  /** Prints without end. */
  yes: ["yes"],
  /** About as many processes as it may have, half of which fork without end, and as much to the disk as it takes. */
  greedy: [
    "sh",
    "-c",
    "for n in $(seq 250); do while :; do (:); done & done; while dd if=/dev/zero of=/full bs=1M count=64; do :; done"
  ]
}

/** Until it is at it. */
const untilBusy = "2 seconds"

/** In each of `passes`, `rounds` starts of every contender beside each neighbour. Records `<contender>.<neighbour>`. */
export const run = Effect.fnUntraced(function*(recorder: Recorder, common: Common, options: {
  readonly contenders: ReadonlyArray<Contender>
  /** Where the neighbours run. */
  readonly pool: string
  readonly passes: number
  readonly rounds: number
}) {
  const { contenders, passes, pool, rounds } = options
  const sandboxes = yield* Sandboxes
  const start = (command: ReadonlyArray<string>) =>
    Effect.acquireRelease(
      sandboxes.create({ image: common.image, pool, command, terminationGracePeriodSeconds: 0 }),
      ({ name }) =>
        Effect.andThen(sandboxes.delete(name), sandboxes.waitForDeletion(name)).pipe(Effect.ignore({ log: "Warn" }))
    )
  for (let pass = 0; pass < passes; pass++) {
    for (const [label, command] of Object.entries(neighbours)) {
      yield* (command === undefined ? Effect.void : Effect.andThen(start(command), Effect.sleep(untilBusy))).pipe(
        Effect.andThen(Starts.run(recorder, { contenders, concurrency: 1, rounds, suffix: `.${label}` })),
        Effect.scoped
      )
    }
  }
})
