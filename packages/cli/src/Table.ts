/**
 * Tables for terminals: columns as wide as their widest cell, two spaces apart. In a narrow terminal the columns that can
 * give way do; elsewhere nothing is cut and a row is one line, whatever its length, as programs want to read it.
 */
import * as Lines from "./Lines.ts"

/** One column: its heading, and its cell in a row. */
export interface Column<A> {
  readonly heading: string
  readonly cell: (row: A) => string
  /**
   * How the column gives way where the terminal is narrow: prose goes on below itself, names lose their middle. One that
   * does not say stays as wide as it is.
   */
  readonly narrow?: "wrap" | "shorten" | undefined
}

/** The columns without those ways to give way that lose something. */
export const whole = <A>(columns: ReadonlyArray<Column<A>>): ReadonlyArray<Column<A>> =>
  columns.map(({ narrow, ...column }) => narrow === "wrap" ? { ...column, narrow } : column)

/** What stands where nothing is known. */
const NOTHING = "-"

const GAP = 2

/** No column gets narrower than this: names can still be told apart, and prose is no thin strip. */
const NARROWEST = { shorten: 8, wrap: 24 } as const

const pad = (text: string, width: number): string => text + " ".repeat(Math.max(0, width - Lines.widthOf(text)))

const line = (cells: ReadonlyArray<string>, widths: ReadonlyArray<number>): string =>
  cells.map((cell, at) => at === cells.length - 1 ? cell : pad(cell, (widths[at] ?? 0) + GAP)).join("").trimEnd()

const cellsOf = <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<string>> =>
  rows.map((row) => columns.map(({ cell }) => Lines.oneLine(cell(row)) || NOTHING))

const sum = (numbers: ReadonlyArray<number>): number => numbers.reduce((total, number) => total + number, 0)

/**
 * The widths that fit into the terminal: the widest columns that can give way do, down to one width for all of them.
 * Where that is not enough, prose stays on its line, which the terminal breaks anyway.
 */
const fit = <A>(
  columns: ReadonlyArray<Column<A>>,
  widths: ReadonlyArray<number>,
  terminal: number
): ReadonlyArray<number> => {
  const room = terminal - GAP * (widths.length - 1)
  const narrowed = (most: number) =>
    widths.map((width, at) => {
      const narrow = columns[at]?.narrow
      return narrow === undefined ? width : Math.min(width, Math.max(most, NARROWEST[narrow]))
    })
  let fitting = widths
  for (let most = room; most >= NARROWEST.shorten && sum(fitting) > room; most--) fitting = narrowed(most)
  return sum(fitting) <= room
    ? fitting
    : narrowed(0).map((width, at) => columns[at]?.narrow === "wrap" ? widths[at] ?? width : width)
}

/** One row, over as many lines as its cells need. */
const lines = <A>(
  columns: ReadonlyArray<Column<A>>,
  row: ReadonlyArray<string>,
  widths: ReadonlyArray<number>
): string => {
  const cells = row.map((cell, at) => {
    const width = widths[at] ?? 0
    switch (columns[at]?.narrow) {
      case "wrap":
        return Lines.wrap(cell, width)
      case "shorten":
        return [Lines.shorten(cell, width)]
      case undefined:
        return [cell]
    }
  })
  const height = Math.max(...cells.map(({ length }) => length))
  return Array.from({ length: height }, (_, at) => `${line(cells.map((cell) => cell[at] ?? ""), widths)}\n`).join("")
}

/** Rows as they are shown. `terminal` is the width to fit into, or infinite. */
const show = <A>(
  columns: ReadonlyArray<Column<A>>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  widths: ReadonlyArray<number>,
  terminal: number
): string => {
  const fitting = fit(columns, widths, terminal)
  return rows.map((row) => lines(columns, row, fitting)).join("")
}

/** As wide as the widest cell, and no narrower than they were. */
const widthsOf = (
  columns: number,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  before: ReadonlyArray<number>
): ReadonlyArray<number> =>
  Array.from(
    { length: columns },
    (_, at) => Math.max(before[at] ?? 0, ...rows.map((row) => Lines.widthOf(row[at] ?? "")))
  )

/** A table that comes in parts: the headings once, and columns that keep the widths that they have. */
export const growing = () => {
  let widths: ReadonlyArray<number> | undefined
  return <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>, terminal: number): string => {
    const headings = widths === undefined ? [columns.map(({ heading }) => heading)] : []
    const cells = [...headings, ...cellsOf(columns, rows)]
    widths = widthsOf(columns.length, cells, widths ?? [])
    return show(columns, cells, widths, terminal)
  }
}

/** The table with its headings; every line ends with a line feed. `terminal` is the width to fit into, or infinite. */
export const format = <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>, terminal: number): string =>
  growing()(columns, rows, terminal)

type Pair = readonly [name: string, value: string]

const pairColumns: ReadonlyArray<Column<Pair>> = [
  { heading: "NAME", cell: ([name]) => `${name}:` },
  { heading: "VALUE", cell: ([, value]) => value, narrow: "wrap" }
]

/** Names and values below each other; pairs without a value are left out. `terminal` as in {@link format}. */
export const formatPairs = (pairs: ReadonlyArray<Pair>, terminal: number): string => {
  const cells = cellsOf(pairColumns, pairs.filter(([, value]) => value !== ""))
  return show(pairColumns, cells, widthsOf(pairColumns.length, cells, []), terminal)
}
