/**
 * Starts, one at a time and several at once. In every round each contender has its turn, so that what else the machine
 * does hits all of them alike; the first rounds warm up and do not count.
 */
import * as Effect from "effect/Effect"
import type { Contender } from "../contenders/Contender.ts"
import * as Progress from "../Progress.ts"
import type { Recorder } from "../Recorder.ts"
import { timed } from "../Timed.ts"

/** Rounds that warm up caches. */
const warmUps = 3

/**
 * In each of `rounds` rounds every contender starts `concurrency` containers at once and removes them again; one that
 * takes part in every n-th round only does so in the others' places. Records `<contender><suffix>`.
 */
export const run = (recorder: Recorder, options: {
  readonly contenders: ReadonlyArray<Contender>
  readonly concurrency: number
  readonly rounds: number
  /** Ends the metric's name: `.c16`. */
  readonly suffix: string
}) =>
  Effect.gen(function*() {
    const { concurrency, contenders, rounds, suffix } = options
    for (let round = -warmUps; round < rounds; round++) {
      for (const contender of contenders) {
        if (round % (contender.everyRounds ?? 1) !== 0) {
          continue
        }
        const ids = Array.from({ length: concurrency }, (_, at) => `bench-${concurrency}-${round + warmUps}-${at}`)
        yield* contender.ready(concurrency)
        const starts = yield* Effect.forEach(ids, (id) => timed(contender.start(id)), { concurrency })
        yield* Effect.forEach(ids, (id) => contender.remove(id), { concurrency, discard: true })
        yield* contender.settled
        if (round >= 0) {
          for (const { millis, value } of starts) {
            recorder.add(`${value}${suffix}`, `${contender.boundary}, ${concurrency} at once`, millis)
          }
        }
      }
      yield* Progress.show(`rounds of ${concurrency}`, round + warmUps + 1, rounds + warmUps)
    }
  })

/**
 * Create-and-delete cycles, `concurrency` at once, one contender after the other in several passes: cycles per second
 * until the last container of the pass is gone.
 */
export const cycles = (recorder: Recorder, options: {
  readonly contenders: ReadonlyArray<Contender>
  readonly concurrency: number
  /** Cycles of each pass. */
  readonly count: number
  readonly passes: number
}) =>
  Effect.gen(function*() {
    const { concurrency, contenders, count, passes } = options
    for (let pass = 0; pass < passes; pass++) {
      for (const contender of contenders) {
        const ids = Array.from({ length: count }, (_, at) => `bench-cycle-${concurrency}-${pass}-${at}`)
        yield* contender.ready(concurrency)
        const { millis } = yield* timed(
          Effect.forEach(ids, (id) => Effect.andThen(contender.start(id), contender.remove(id)), {
            concurrency,
            discard: true
          })
        )
        yield* contender.settled
        recorder.add(
          `cycles.${contender.name}.c${concurrency}`,
          `create and delete until gone, ${concurrency} at once, ${count} a pass`,
          count * 1000 / millis,
          "per second"
        )
      }
      yield* Progress.show(`passes of ${concurrency}`, pass + 1, passes)
    }
  })
