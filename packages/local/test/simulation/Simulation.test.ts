/**
 * Simulations of the whole controller, one for each seed. `FSB_SIM_SEEDS=<n>` runs so many instead of the usual ones,
 * `FSB_SIM_FIRST=<n>` begins with another seed than 1, and `FSB_SIM_SEED=<n>` replays one (with up to
 * `FSB_SIM_REPLICAS` controllers) and prints all that happened in it.
 */
import { assert, describe, it } from "@effect/vitest"
import { format } from "@fast-sandbox/testkit/sim/History"
import { Effect } from "effect"
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import { explain, run } from "./Simulation.ts"
import type { Order, Report } from "./worker.ts"

/**
 * How many seeds are run when nobody asks for a number of them: two minutes' worth on two processors. A fixed number,
 * because a suite that runs what fits its time finds another seed on every machine.
 */
const usualSeeds = 2_000

/** How many seeds are also run with several replicas of the controller, and how many replicas these have at most. */
const replicatedSeeds = 400
const mostReplicas = 3

/** A simulation makes much garbage that dies young: with room for it fewer collections copy what is still in use. */
const workerOptions = { resourceLimits: { maxYoungGenerationSizeMb: 128 } }

/** Nobody waits longer than this for a simulation, in milliseconds: several times what one takes on a slow machine. */
const limitOfEachMillis = 500

/** One that is replayed tells every step. */
const replayLimitMillis = 60_000

const numberOf = (name: string): number | undefined => {
  const text = process.env[name]
  return text === undefined || text === "" ? undefined : Number(text)
}

const say = (text: string) => process.stdout.write(`${text}\n`)

/** The seeds in order, of them the first ones again with several replicas. */
const orders = (first: number, count: number): ReadonlyArray<Order> => {
  const seeds = Array.from({ length: count }, (_, at) => first + at)
  return [
    ...seeds.map((seed) => ({ seed, mostReplicas: 1 })),
    ...seeds.slice(0, replicatedSeeds).map((seed) => ({ seed, mostReplicas }))
  ]
}

/** Runs seeds in as many threads as the machine has processors, until they are used up or the first one failed. */
const runAll = (orders: ReadonlyArray<Order>): Effect.Effect<ReadonlyArray<Report>> =>
  Effect.callback<ReadonlyArray<Report>>((resume) => {
    const reports: Array<Report> = []
    const workers = Array.from(
      { length: availableParallelism() },
      () => new Worker(new URL("./worker.ts", import.meta.url), workerOptions)
    )
    const stop = Effect.promise(() => Promise.all(workers.map((worker) => worker.terminate())))
    let next = 0
    let running = 0
    const feed = (worker: Worker) => {
      const hasFailed = reports.some(({ failure }) => failure !== undefined)
      if (!hasFailed && next < orders.length) {
        running++
        worker.postMessage(orders[next++])
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
      const histories = [run(1, { mostReplicas: 1 }), run(1, { mostReplicas: 1, verbose: true })].map(({ history }) =>
        history.entries.map(format).filter((line) => !line.includes(" log: "))
      )
      assert.isAbove(histories[0]?.length ?? 0, 50)
      assert.deepStrictEqual(histories[0], histories[1])
    })

    const count = numberOf("FSB_SIM_SEEDS") ?? usualSeeds

    it.live("what must hold holds, whatever goes wrong", () =>
      Effect.gen(function*() {
        const first = numberOf("FSB_SIM_FIRST") ?? 1
        const begunAt = performance.now()
        const wanted = orders(first, count)
        const reports = yield* runAll(wanted)
        const seconds = (performance.now() - begunAt) / 1000
        say(`${reports.length} simulations in ${seconds.toFixed(1)} s from seed ${first}`)
        const failed = reports.find(({ failure }) => failure !== undefined)
        assert.isUndefined(failed, failed?.failure)
        assert.strictEqual(reports.length, wanted.length)
      }), count * limitOfEachMillis)
  })
} else {
  describe("simulation", () => {
    it(`replays seed ${replayed}`, () => {
      const result = run(replayed, { mostReplicas: numberOf("FSB_SIM_REPLICAS") ?? 1, verbose: true })
      say(explain(result, result.history.entries.length))
      assert.deepStrictEqual(result.violations, [])
    }, replayLimitMillis)
  })
}
