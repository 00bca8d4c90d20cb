/**
 * The report: a table for people, and the raw samples beside it for everybody who wants to check.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { type Metric, summarise, type Summary } from "./Statistics.ts"

/** Metrics by name, each with the boundary that it was measured between. */
export type Metrics = ReadonlyMap<string, Metric & { readonly boundary: string }>

const columns = [30, 7, 10, 10, 10] as const

const row = (cells: ReadonlyArray<string>): string =>
  cells.map((cell, at) => at === 0 ? cell.padEnd(columns[0]) : cell.padStart(columns[at] ?? 0)).join("")

/** A table of 70 columns and the boundaries below it. */
export const table = (metrics: Metrics): string => {
  const summaries = [...metrics].map(([name, metric]): readonly [string, Summary] => [name, summarise(metric)])
  return [
    row(["", "n", "p50", "p90", "p99"]),
    ...summaries.map(([name, { n, p50, p90, p99, unit }]) =>
      row([`${name} (${unit})`, String(n), p50.toFixed(2), p90.toFixed(2), p99.toFixed(2)])
    ),
    "",
    ...[...metrics].map(([name, { boundary }]) => `${name}: ${boundary}`)
  ].join("\n")
}

/** Writes `{ environment, metrics: { name: { unit, boundary, n, p50, p90, p99, samples } } }`. */
export const write = (path: string, environment: object, metrics: Metrics) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const summaries = Object.fromEntries([...metrics].map(([name, metric]) => [name, summarise(metric)]))
    yield* files.writeFileString(path, `${JSON.stringify({ environment, metrics: summaries }, undefined, 2)}\n`)
  })

const Written = Schema.fromJsonString(Schema.Struct({
  environment: Schema.Record(Schema.String, Schema.Unknown),
  metrics: Schema.Record(Schema.String, Schema.Unknown)
}))

/** As `write`, into a file that may hold other metrics already; those of the same names are replaced. */
export const add = (path: string, environment: object, metrics: Metrics) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const before = yield* files.readFileString(path).pipe(
      Effect.flatMap(Schema.decodeEffect(Written)),
      Effect.orElseSucceed(() => ({ environment, metrics: {} }))
    )
    const summaries = Object.fromEntries([...metrics].map(([name, metric]) => [name, summarise(metric)]))
    const merged = { environment: before.environment, metrics: { ...before.metrics, ...summaries } }
    yield* files.writeFileString(path, `${JSON.stringify(merged, undefined, 2)}\n`)
  })
