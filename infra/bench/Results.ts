/**
 * What was measured on one machine, with its raw samples: the file that benchmarks add to and that the published page is
 * made of. Each metric says when it was measured and how busy the machine was, because a run of one scenario replaces only
 * its own.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import type { Environment } from "./Environment.ts"
import type { Metrics } from "./Report.ts"
import { summarise, type Summary } from "./Statistics.ts"

const Measured = Schema.Struct({
  unit: Schema.Literals(["ms", "us", "per second", "s", "MiB", "MB", "MiB/s", "writes"]),
  boundary: Schema.String,
  /** ISO 8601. */
  time: Schema.String,
  /** The machine's load average of one minute when the run began. */
  loadBefore: Schema.Number,
  /** In the order in which they were taken. */
  samples: Schema.Array(Schema.Number)
})

/** The results of a machine, by the name of the metric. */
export const Results = Schema.Struct({
  machine: Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Number])),
  metrics: Schema.Record(Schema.String, Measured)
})
export type Results = typeof Results.Type

const Text = Schema.fromJsonString(Results)

/** A metric with its percentiles. */
export type Row = Summary & Results["metrics"][string] & { readonly name: string }

/** Each metric as a row, in the order in which they were measured first. */
export const rows = ({ metrics }: Results): ReadonlyArray<Row> =>
  Object.entries(metrics).map(([name, metric]) => ({ name, ...metric, ...summarise(metric) }))

/** The results in a file; fails when they can't be read. */
export const read = (path: string) =>
  FileSystem.FileSystem.use((files) => files.readFileString(path)).pipe(Effect.flatMap(Schema.decodeEffect(Text)))

/** Digits of a sample that mean something: no clock here is better than a thousandth. */
const sampleDigits = 5

const rounded = (sample: number): number => Number(sample.toPrecision(sampleDigits))

/** As text, with each metric in a line of its own. */
export const format = ({ machine, metrics }: Results): string => {
  const lines = Object.entries(metrics).map(([name, metric]) =>
    `    ${JSON.stringify(name)}: ${JSON.stringify({ ...metric, samples: metric.samples.map(rounded) })}`
  )
  return `{\n  "machine": ${JSON.stringify(machine)},\n  "metrics": {\n${lines.join(",\n")}\n  }\n}\n`
}

/** Both; what was measured later replaces what has its name, and all of it when it was on another machine. */
export const merge = (before: Results, after: Results): Results => {
  const isSame = JSON.stringify(before.machine) === JSON.stringify(after.machine)
  return { machine: after.machine, metrics: { ...(isSame ? before.metrics : {}), ...after.metrics } }
}

/** Adds to a file. Metrics of the same name are replaced, and all of them when the file is of another machine. */
export const add = Effect.fnUntraced(function*(path: string, environment: Environment, measured: Metrics) {
  const files = yield* FileSystem.FileSystem
  const { loadBefore, time, ...machine } = environment
  const before = yield* Effect.orElseSucceed(read(path), (): Results => ({ machine, metrics: {} }))
  const metrics = Object.fromEntries(
    [...measured].map(([name, { boundary, samples, unit }]) => [name, { unit, boundary, time, loadBefore, samples }])
  )
  yield* files.writeFileString(path, format(merge(before, { machine, metrics })))
})
