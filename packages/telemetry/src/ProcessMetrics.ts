/**
 * Metrics of the process itself, by the names that Prometheus' own libraries give them.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Instruments from "./Instruments.ts"

const residentMemory = Instruments.gauge("process_resident_memory_bytes", "Resident memory in bytes")

const heapUsed = Instruments.gauge("nodejs_heap_size_used_bytes", "Bytes of the JavaScript heap in use")

const processorTime = Instruments.gauge("process_cpu_seconds_total", "User and system processor time spent in seconds")

const startTime = Instruments.gauge(
  "process_start_time_seconds",
  "Start time of the process since the Unix epoch in seconds"
)

const eventLoopDelay = Instruments.gauge(
  "nodejs_eventloop_lag_seconds",
  "Delay of the event loop since the last scrape, by quantile"
)

const quantiles = [["0.5", 50], ["0.9", 90], ["0.99", 99], ["1", 100]] as const

/** How often the delay is looked at: each look costs microseconds. */
const resolutionMillis = 10

const microsPerSecond = 1e6
const nanosPerSecond = 1e9
const millisPerSecond = 1e3

let delays: ReturnType<typeof monitorEventLoopDelay> | undefined

/** Observes the event loop for the life of the layer. */
export const layer: Layer.Layer<never> = Layer.effectDiscard(Effect.acquireRelease(
  Effect.sync(() => {
    delays = monitorEventLoopDelay({ resolution: resolutionMillis })
    delays.enable()
  }),
  () => Effect.sync(() => delays?.disable())
))

/** Brings them up to date. */
export const sample: Effect.Effect<void> = Effect.gen(function*() {
  const { heapUsed: heap, rss } = yield* Effect.sync(() => process.memoryUsage())
  const { system, user } = yield* Effect.sync(() => process.cpuUsage())
  yield* Metric.update(residentMemory, rss)
  yield* Metric.update(heapUsed, heap)
  yield* Metric.update(processorTime, (user + system) / microsPerSecond)
  yield* Metric.update(startTime, performance.timeOrigin / millisPerSecond)
  if (delays === undefined) return
  for (const [quantile, percentile] of quantiles) {
    // The histogram holds the time between two looks; what is longer than the pause is the delay.
    const seconds = Math.max(0, delays.percentile(percentile) / nanosPerSecond - resolutionMillis / millisPerSecond)
    yield* Metric.update(Metric.withAttributes(eventLoopDelay, { quantile }), Number.isFinite(seconds) ? seconds : 0)
  }
  yield* Effect.sync(() => delays?.reset())
})
