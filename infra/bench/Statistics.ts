/**
 * Percentiles of raw samples, by nearest rank and untrimmed: p99 of 200 samples is the third largest that was seen.
 */

/** What one scenario measured. `samples` are in the order in which they were taken. */
export interface Metric {
  readonly unit: "ms" | "us" | "per second" | "s" | "MiB" | "MB" | "MiB/s" | "writes"
  readonly samples: ReadonlyArray<number>
}

/** A metric in numbers. */
export interface Summary extends Metric {
  readonly n: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
}

/** The smallest sample that at least `percent` of all samples do not exceed. */
export const percentile = (samples: ReadonlyArray<number>, percent: number): number => {
  const sorted = samples.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(percent / 100 * sorted.length) - 1)] ?? Number.NaN
}

/** The metric with its percentiles. */
export const summarise = (metric: Metric): Summary => ({
  ...metric,
  n: metric.samples.length,
  p50: percentile(metric.samples, 50),
  p90: percentile(metric.samples, 90),
  p99: percentile(metric.samples, 99)
})
