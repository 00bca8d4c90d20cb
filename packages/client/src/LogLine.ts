/**
 * One piece of what a sandbox's program printed.
 */
/** A line, or a part of one. */
export interface LogLine {
  /** When it was printed: RFC 3339 in UTC, to the nanosecond. */
  readonly time: string
  readonly stream: "stdout" | "stderr"
  /** What was printed, without the line feed; not always UTF-8. */
  readonly bytes: Uint8Array
  /** The line goes on in the next piece of the same stream. */
  readonly partial: boolean
}

/** What was printed, as text; bytes that are no UTF-8 become replacement characters. */
export const text = (line: LogLine): string => new TextDecoder().decode(line.bytes)
