/**
 * `fsb-ctl stats`
 */
import { Sandboxes, type Stats } from "@fast-sandbox/client/Sandboxes"
import { NotFound } from "@fast-sandbox/core/Errors"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import * as Progress from "../Progress.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import { Screen } from "../Screen.ts"
import * as Table from "../Table.ts"

const flags = {
  names: SandboxOperand.make("The sandboxes; all that run where none is given").pipe(Argument.variadic()),
  noStream: Flags.presence("no-stream", "Print once and end")
}

/** Long enough for a share of the processor that means something, short enough to wait for. */
const INTERVAL_MILLIS = 1000

/** What is printed of one sandbox. */
interface Row {
  readonly name: string
  readonly stats: Stats
  /** Of one core, over the last interval. */
  readonly cpuPercent: number
}

const NANOS_PER_MILLI = 1_000_000
const PERCENT = 100

const millisBetween = (earlier: Stats, later: Stats): number =>
  DateTime.toEpochMillis(later.time) - DateTime.toEpochMillis(earlier.time)

/** The share of the processor between two looks. */
const rowOf = (name: string, earlier: Stats, later: Stats): Row => {
  const millis = millisBetween(earlier, later)
  const used = (later.cpuNanos - earlier.cpuNanos) / NANOS_PER_MILLI
  return { name, stats: later, cpuPercent: millis <= 0 ? 0 : Math.max(0, used / millis * PERCENT) }
}

const bytes = (count: number | undefined): string => count === undefined ? "-" : Progress.formatBytes(count)

const limited = (used: string, limit: string, isLimited: boolean): string => isLimited ? `${used} / ${limit}` : used

const view: Output.View<Row> = {
  columns: [
    { heading: "NAME", cell: ({ name }) => name, narrow: "shorten" },
    { heading: "CPU %", cell: ({ cpuPercent }) => `${cpuPercent.toFixed(1)}%` },
    {
      heading: "MEMORY / LIMIT",
      cell: ({ stats }) => limited(bytes(stats.memoryBytes), bytes(stats.memoryLimitBytes), stats.memoryLimitBytes > 0)
    },
    {
      heading: "PIDS",
      cell: ({ stats }) => limited(String(stats.pids), String(stats.pidsLimit), stats.pidsLimit > 0)
    },
    { heading: "READ", cell: ({ stats }) => bytes(stats.readBytes) },
    { heading: "WRITTEN", cell: ({ stats }) => bytes(stats.writtenBytes) }
  ],
  wideColumns: [
    {
      heading: "CPU LIMIT",
      cell: ({ stats }) => stats.cpuLimitMillis === 0 ? "-" : `${stats.cpuLimitMillis}m`
    }
  ],
  name: ({ name }) => `sandbox/${name}`,
  object: ({ cpuPercent, name, stats }) => ({
    name,
    ...stats,
    time: DateTime.formatIso(stats.time),
    cpuPercent: Number(cpuPercent.toFixed(2))
  })
}

/** Begins at the top of an empty screen (ECMA-48 CUP and ED). */
const CLEAR_SCREEN = "\u001b[H\u001b[2J"

/** `fsb-ctl stats` */
export const stats = Command.make(
  "stats",
  flags,
  Effect.fnUntraced(function*({ names, noStream }) {
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const format = yield* Globals.format
    const chosen = names.length > 0
      ? names
      : (yield* sandboxes.list()).filter(({ phase }) => phase === "Running").map(({ name }) => name)
    if (chosen.length === 0) {
      return yield* new NotFound({ kind: "running sandbox", name: "of this namespace", hint: "start one with 'run'" })
    }
    const rows = new Map<string, Row>()
    const follow = (name: string) =>
      sandboxes.inside(name).stats({ intervalMillis: INTERVAL_MILLIS }).pipe(
        Stream.mapAccum(
          (): Stats | undefined => undefined,
          (earlier, later) => [later, earlier === undefined ? [] : [rowOf(name, earlier, later)]]
        ),
        // one that ends while others are looked at leaves the table
        (stream) =>
          chosen.length === 1 ? stream : Stream.catch(stream, (error) =>
            error._tag === "FailedPrecondition"
              ? Stream.fromEffectDrain(Effect.sync(() => rows.delete(name)))
              : Stream.fail(error)),
        (stream) => noStream ? Stream.take(stream, 1) : stream
      )
    const all = Stream.mergeAll(chosen.map(follow), { concurrency: "unbounded" })
    if (noStream) {
      const last = yield* Stream.runCollect(all)
      return yield* Output.printAll(view, [...last].toSorted((a, b) => a.name < b.name ? -1 : 1), {
        format,
        whenEmpty: "none runs any more"
      })
    }
    if (format === "table" && screen.isDataTerminal) {
      return yield* Stream.runForEach(all, (row) => {
        rows.set(row.name, row)
        const shown = chosen.flatMap((name) => Option.toArray(Option.fromNullishOr(rows.get(name))))
        return screen.data(`${CLEAR_SCREEN}${Table.format(view.columns, shown, screen.dataWidth())}`)
      })
    }
    const print = yield* Output.printer(format)
    yield* Stream.runForEach(all, (row) => print(view, [row]))
  })
).pipe(
  Command.withShortDescription("Show what sandboxes use"),
  Command.withDescription(
    "Shows processor, memory, processes and disk of running sandboxes, once a second, until they end. Processor time is in percent of one core."
  ),
  Command.withExamples([
    { command: "fsb-ctl stats", description: "All that run" },
    { command: "fsb-ctl stats web -o json", description: "One JSON object for each look" },
    { command: "fsb-ctl stats --no-stream", description: "Once" }
  ]),
  Command.annotate(Operands, "[NAME...]"),
  Command.provide(Globals.connection)
)
