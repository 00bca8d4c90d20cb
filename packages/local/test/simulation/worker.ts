/** Runs simulations in a thread of its own: seeds come in, what became of them goes out. */
import { parentPort } from "node:worker_threads"
import { explain, run } from "./Simulation.ts"

/** What became of one seed; `failure` explains it when an invariant was violated. */
export interface Report {
  readonly seed: number
  readonly failure: string | undefined
}

parentPort?.on("message", (seed: number) => {
  const result = run(seed)
  const report: Report = { seed, failure: result.violations.length === 0 ? undefined : explain(result) }
  parentPort?.postMessage(report)
})
