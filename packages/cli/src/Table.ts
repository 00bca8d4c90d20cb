/**
 * Tables for terminals: columns as wide as their widest cell, two spaces apart, nothing cut off.
 */
import { displayWidth } from "effect/cli/CliOutput"

/** One column: its heading, and its cell in a row. */
export interface Column<A> {
  readonly heading: string
  readonly cell: (row: A) => string
}

/** What stands where nothing is known. */
const NOTHING = "-"

const GAP = 2

const pad = (text: string, width: number): string => text + " ".repeat(Math.max(0, width - displayWidth(text)))

const line = (cells: ReadonlyArray<string>, widths: ReadonlyArray<number>): string =>
  cells.map((cell, at) => at === cells.length - 1 ? cell : pad(cell, (widths[at] ?? 0) + GAP)).join("")

const cellsOf = <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<string>> =>
  rows.map((row) => columns.map(({ cell }) => cell(row) || NOTHING))

/** A table that comes in parts: the headings once, and columns that keep the widths that they have. */
export const growing = () => {
  let widths: ReadonlyArray<number> | undefined
  return <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>): string => {
    const headings = widths === undefined ? [columns.map(({ heading }) => heading)] : []
    const cells = [...headings, ...cellsOf(columns, rows)]
    const current = columns.map((_, at) =>
      Math.max(widths?.[at] ?? 0, ...cells.map((row) => displayWidth(row[at] ?? "")))
    )
    widths = current
    return cells.map((row) => `${line(row, current)}\n`).join("")
  }
}

/** The table with its headings; every line ends with a line feed. */
export const format = <A>(columns: ReadonlyArray<Column<A>>, rows: ReadonlyArray<A>): string => growing()(columns, rows)

/** Names and values below each other; pairs without a value are left out. */
export const formatPairs = (pairs: ReadonlyArray<readonly [name: string, value: string]>): string => {
  const known = pairs.filter(([, value]) => value !== "")
  const width = Math.max(0, ...known.map(([name]) => displayWidth(name) + 1))
  return known.map(([name, value]) => `${line([`${name}:`, value], [width])}\n`).join("")
}
