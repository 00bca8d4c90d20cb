/**
 * Where a reader of a log is, so that it can take up again after a lost connection: the lines from the last time stamp
 * on are asked for once more, and those that were told already are passed over.
 */
import type { LogLine } from "../LogLine.ts"

/** The time stamp of the last line that was told, and how many lines with that stamp were. */
export interface Position {
  readonly time: string
  readonly told: number
}

/** The position after one more line. */
export const advance = (position: Position | undefined, line: LogLine): Position =>
  position?.time === line.time
    ? { time: line.time, told: position.told + 1 }
    : { time: line.time, told: 1 }

/** A filter for the lines of a stream that begins again at a position: true for those that were not told yet. */
export const isNew = (position: Position | undefined): (line: LogLine) => boolean => {
  let repeated = position?.told ?? 0
  return (line) => {
    if (line.time !== position?.time || repeated === 0) return true
    repeated -= 1
    return false
  }
}
