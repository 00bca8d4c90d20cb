/**
 * Collects samples by metric, in the order in which they are taken.
 */
import type * as Report from "./Report.ts"
import type { Metric } from "./Statistics.ts"

/** See the module. The boundary says between which two points a sample was measured. */
export class Recorder {
  private readonly metrics = new Map<string, { unit: Metric["unit"]; boundary: string; samples: Array<number> }>()

  add(name: string, boundary: string, value: number, unit: Metric["unit"] = "ms"): void {
    const metric = this.metrics.get(name)
    if (metric === undefined) {
      this.metrics.set(name, { unit, boundary, samples: [value] })
    } else {
      metric.samples.push(value)
    }
  }

  addAll(name: string, boundary: string, values: ReadonlyArray<number>, unit?: Metric["unit"]): void {
    for (const value of values) {
      this.add(name, boundary, value, unit)
    }
  }

  get all(): Report.Metrics {
    return this.metrics
  }
}
