/**
 * Starts, one at a time and several at once. In every round each contender has its turn, so that what else the machine
 * does hits all of them alike; the first rounds warm up and do not count.
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { performance } from "node:perf_hooks"
import type { Contender } from "../contenders/Contender.ts"
import type { Recorder } from "../Recorder.ts"

/** Rounds that warm up caches. */
const warmUps = 3

/** How often a long scenario says how far it is. */
const reportEvery = 50

const timed = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.suspend(() => {
    const startedAt = performance.now()
    return Effect.map(effect, (value) => ({ value, millis: performance.now() - startedAt }))
  })

/**
 * In each of `rounds` rounds every contender starts `concurrency` containers at once and removes them again. Records
 * `<contender>.c<concurrency>`, or `<contender>.<label>`.
 */
export const run = (recorder: Recorder, options: {
  readonly contenders: ReadonlyArray<Contender>
  readonly concurrency: number
  readonly rounds: number
  readonly label?: string | undefined
}) =>
  Effect.gen(function*() {
    const { concurrency, contenders, label = `c${concurrency}`, rounds } = options
    for (let round = -warmUps; round < rounds; round++) {
      for (const contender of contenders) {
        const ids = Array.from({ length: concurrency }, (_, at) => `bench-${label}-${round + warmUps}-${at}`)
        yield* contender.ready(concurrency)
        const starts = yield* Effect.forEach(ids, (id) => timed(contender.start(id)), { concurrency })
        yield* Effect.forEach(ids, (id) => contender.remove(id), { concurrency, discard: true })
        if (round >= 0) {
          for (const { millis, value } of starts) {
            recorder.add(`${value}.${label}`, `${contender.boundary}, ${concurrency} at once`, millis)
          }
        }
      }
      if (round > 0 && round % reportEvery === 0) {
        yield* Console.error(`  ${label}: round ${round} of ${rounds}`)
      }
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
        yield* contender.ready(concurrency)
        const ids = Array.from({ length: count }, (_, at) => `bench-cycle-${concurrency}-${pass}-${at}`)
        const { millis } = yield* timed(
          Effect.forEach(ids, (id) => Effect.andThen(contender.start(id), contender.remove(id)), {
            concurrency,
            discard: true
          })
        )
        recorder.add(
          `cycles.${contender.name}.c${concurrency}`,
          `create and delete until gone, ${concurrency} at once, ${count} a pass`,
          count * 1000 / millis,
          "per second"
        )
      }
    }
  })
