/**
 * The report: a table for people, and the ratios that hold whatever the machine.
 */
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

/**
 * Medians that are compared, ours with a peer's of the same boundary: durations, or rates. `atLeast` is the ratio below
 * which a change made us slower, whatever the machine: well below what was measured when it was written down, so that
 * noise does not reach it.
 */
const comparisons: ReadonlyArray<{ readonly ours: string; readonly peer: string; readonly atLeast: number }> = [
  { ours: "create.parked.c1", peer: "peer.docker.api.c1", atLeast: 10 },
  { ours: "create.parked.c1", peer: "peer.containerd.bare.c1", atLeast: 3 },
  { ours: "create.prepared.c1", peer: "peer.docker.api.c1", atLeast: 5 },
  { ours: "create.prepared.c1", peer: "peer.containerd.bare.c1", atLeast: 1.8 },
  { ours: "create.classic.c1", peer: "peer.containerd.bare.c1", atLeast: 0.8 },
  { ours: "create.parked.c16", peer: "peer.containerd.bare.c16", atLeast: 3 },
  { ours: "cycles.create.parked.c4", peer: "cycles.peer.containerd.bare.c4", atLeast: 0.9 },
  { ours: "cycles.create.parked.c16", peer: "cycles.peer.containerd.bare.c16", atLeast: 0.9 },
  { ours: "cycles.create.prepared.c4", peer: "cycles.peer.containerd.bare.c4", atLeast: 0.9 },
  { ours: "cycles.create.prepared.c16", peer: "cycles.peer.containerd.bare.c16", atLeast: 0.9 },
  // What isolation may cost: a tenth is the goal, and the bound.
  { ours: "create.parked.isolated", peer: "create.parked.open", atLeast: 0.9 },
  // What a neighbour may cost: a quarter is the goal (0.8). Medians of few starts scatter widely on a busy machine.
  { ours: "create.parked.yes", peer: "create.parked.alone", atLeast: 0.5 },
  { ours: "create.prepared.yes", peer: "create.prepared.alone", atLeast: 0.5 },
  { ours: "create.parked.greedy", peer: "create.parked.alone", atLeast: 0.15 },
  { ours: "create.prepared.greedy", peer: "create.prepared.alone", atLeast: 0.25 },
  { ours: "cli.run", peer: "peer.docker.run", atLeast: 2.2 },
  { ours: "cli.run", peer: "peer.podman.run", atLeast: 0.9 },
  { ours: "cli.run", peer: "peer.ctr.run", atLeast: 0.7 }
]

/** How many times as fast as a peer we are at the median. */
export interface Ratio {
  readonly ours: string
  readonly peer: string
  readonly ratio: number
  readonly atLeast: number
}

/** The ratio of every pair that was measured. */
export const ratiosOf = (
  all: ReadonlyArray<Pick<Summary, "unit" | "p50"> & { readonly name: string }>
): ReadonlyArray<Ratio> =>
  comparisons.flatMap((comparison) => {
    const mine = all.find(({ name }) => name === comparison.ours)
    const theirs = all.find(({ name }) => name === comparison.peer)
    if (mine === undefined || theirs === undefined) {
      return []
    }
    const quotient = theirs.p50 / mine.p50
    return [{ ...comparison, ratio: mine.unit === "per second" ? 1 / quotient : quotient }]
  })

/** The same, of what was just measured. */
export const ratios = (metrics: Metrics): ReadonlyArray<Ratio> =>
  ratiosOf([...metrics].map(([name, metric]) => ({ name, ...summarise(metric) })))

/** One line. */
export const sentence = ({ atLeast, ours, peer, ratio }: Ratio): string =>
  `${ours} is ${ratio.toFixed(2)} times as fast as ${peer} at p50 (bound: ${atLeast})`
