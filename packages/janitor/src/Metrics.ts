/**
 * What the janitor counts and measures.
 */
import * as Instruments from "@fast-sandbox/telemetry/Instruments"

/** Upper bounds in seconds: a node with a handful of sandboxes takes 10 ms, one with thousands a second. */
const scanBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** What the last scan found, with the attributes `kind` and `verdict`. */
export const findings = Instruments.gauge("fsb_janitor_findings", "Findings of the last scan")

/** Things that were removed, with the attribute `kind`. */
export const removed = Instruments.counter("fsb_janitor_removed_total", "Removed things by kind")

/** Things that were to be removed but were spared by the last look at the evidence, with the attribute `kind`. */
export const spared = Instruments.counter(
  "fsb_janitor_spared_total",
  "Things that were spared when their evidence was checked once more"
)

/** Removals that failed, with the attribute `kind`. */
export const failed = Instruments.counter("fsb_janitor_removals_failed_total", "Removals that failed by kind")

/** Looking at the node and judging what is there, without removals. */
export const scanDuration = Instruments.seconds(
  "fsb_janitor_scan_duration_seconds",
  "Time of a scan without its removals",
  scanBoundaries
)
