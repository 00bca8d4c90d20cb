/**
 * How our programs declare what they count and measure. Names follow Prometheus: a unit at the end, `_total` for what only
 * grows. Labels are few and their values are known beforehand: nothing that a caller chooses is one.
 */
import * as Metric from "effect/Metric"

/** What only grows. */
export const counter = (name: string, description: string): Metric.Counter<number> =>
  Metric.counter(name, { description, incremental: true })

/** What goes up and down. */
export const gauge = (name: string, description: string): Metric.Gauge<number> => Metric.gauge(name, { description })

/** Times in seconds. `boundaries` are upper bounds, in seconds. */
export const seconds = (
  name: string,
  description: string,
  boundaries: ReadonlyArray<number>
): Metric.Histogram<number> => Metric.histogram(name, { description, boundaries })
