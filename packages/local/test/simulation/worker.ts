/** Runs simulations in a thread of its own: seeds come in, what became of them goes out. */
import { parentPort } from "node:worker_threads"
import { explain, run } from "./Simulation.ts"

/** What became of one seed; `failure` explains it when an invariant was violated. */
export interface Report {
  readonly seed: number
  readonly failure: string | undefined
}

/** What is asked for. */
export interface Order {
  readonly seed: number
  readonly mostReplicas: number
}

parentPort?.on("message", ({ mostReplicas, seed }: Order) => {
  const result = run(seed, { mostReplicas })
  const report: Report = { seed, failure: result.violations.length === 0 ? undefined : explain(result) }
  parentPort?.postMessage(report)
})
