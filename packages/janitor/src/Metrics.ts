/**
 * What the janitor counts and measures.
 */
import * as Metric from "effect/Metric"

/** Upper bounds in seconds: a node with a handful of sandboxes takes 10 ms, one with thousands a second. */
const scanBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** What the last scan found, with the attributes `kind` and `verdict`. */
export const findings = Metric.gauge("fsb_janitor_findings", { description: "Findings of the last scan" })

/** Things that were removed, with the attribute `kind`. */
export const removed = Metric.counter("fsb_janitor_removed_total", {
  description: "Removed things by kind",
  incremental: true
})

/** Things that were to be removed but were spared by the last look at the evidence, with the attribute `kind`. */
export const spared = Metric.counter("fsb_janitor_spared_total", {
  description: "Things that were spared when their evidence was checked once more",
  incremental: true
})

/** Removals that failed, with the attribute `kind`. */
export const failed = Metric.counter("fsb_janitor_removals_failed_total", {
  description: "Removals that failed by kind",
  incremental: true
})

/** Looking at the node and judging what is there, without removals. */
export const scanDuration = Metric.histogram("fsb_janitor_scan_duration_seconds", {
  description: "Time of a scan without its removals",
  boundaries: scanBoundaries
})
