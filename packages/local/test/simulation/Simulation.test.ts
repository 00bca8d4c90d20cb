/**
 * Simulations of the whole controller, one for each seed. `FSB_SIM_SEEDS=<n>` runs so many instead of the usual ones,
 * `FSB_SIM_FIRST=<n>` begins with another seed than 1, and `FSB_SIM_SEED=<n>` replays one and prints all
 * that happened in it.
 */
import { assert, describe, it } from "@effect/vitest"
import { format } from "@fast-sandbox/testkit/sim/History"
import { Effect } from "effect"
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import { explain, run } from "./Simulation.ts"
import type { Report } from "./worker.ts"

/**
 * How many seeds are run when nobody asks for a number of them: half a minute's worth. A fixed number, because a suite
 * that runs what fits its time finds another seed on every machine.
 */
const usualSeeds = 120

/** Nobody waits longer than this for a number of simulations, in milliseconds. */
const timeLimitMillis = 3_600_000

const numberOf = (name: string): number | undefined => {
  const text = process.env[name]
  return text === undefined || text === "" ? undefined : Number(text)
}

const say = (text: string) => process.stdout.write(`${text}\n`)

/** Runs seeds in as many threads as the machine has processors, until they are used up or the first one failed. */
const runAll = (first: number, count: number): Effect.Effect<ReadonlyArray<Report>> =>
  Effect.callback<ReadonlyArray<Report>>((resume) => {
    const reports: Array<Report> = []
    const workers = Array.from(
      { length: availableParallelism() },
      () => new Worker(new URL("./worker.ts", import.meta.url))
    )
    const stop = Effect.promise(() => Promise.all(workers.map((worker) => worker.terminate())))
    let next = first
    let running = 0
    const feed = (worker: Worker) => {
      const hasFailed = reports.some(({ failure }) => failure !== undefined)
      if (!hasFailed && next < first + count) {
        running++
        worker.postMessage(next++)
      } else if (running === 0) {
        resume(Effect.as(stop, reports))
      }
    }
    for (const worker of workers) {
      worker.on("message", (report: Report) => {
        running--
        reports.push(report)
        feed(worker)
      })
      worker.on("error", (error) => resume(Effect.andThen(stop, Effect.die(error))))
      feed(worker)
    }
    return stop
  })

const replayed = numberOf("FSB_SIM_SEED")

if (replayed === undefined) {
  describe("simulation", () => {
    it("one seed is one history", () => {
      const histories = [run(1), run(1, true)].map(({ history }) =>
        history.entries.map(format).filter((line) => !line.includes(" log: "))
      )
      assert.isAbove(histories[0]?.length ?? 0, 50)
      assert.deepStrictEqual(histories[0], histories[1])
    })

    it.live("what must hold holds, whatever goes wrong", () =>
      Effect.gen(function*() {
        const first = numberOf("FSB_SIM_FIRST") ?? 1
        const count = numberOf("FSB_SIM_SEEDS") ?? usualSeeds
        const begunAt = performance.now()
        const reports = yield* runAll(first, count)
        const seconds = (performance.now() - begunAt) / 1000
        say(`${reports.length} simulations in ${seconds.toFixed(1)} s from seed ${first}`)
        const failed = reports.find(({ failure }) => failure !== undefined)
        assert.isUndefined(failed, failed?.failure)
        assert.strictEqual(reports.length, count)
      }), timeLimitMillis)
  })
} else {
  describe("simulation", () => {
    it(`replays seed ${replayed}`, () => {
      const result = run(replayed, true)
      say(explain(result, result.history.entries.length))
      assert.deepStrictEqual(result.violations, [])
    }, timeLimitMillis)
  })
}
