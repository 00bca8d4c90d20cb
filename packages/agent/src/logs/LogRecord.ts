/**
 * One record of a sandbox's log, in the line format that the kubelet reads too (Kubernetes' CRI logging format):
 * `2026-11-23T20:01:02.123456789Z stdout F text`, with `P` where the line goes on in the next record of its stream.
 * The writer is `native/logger.c`.
 */
import * as Option from "effect/Option"

/** Where a program printed a line. */
export type LogStreamName = "stdout" | "stderr"

/** One record. `text` is without its line feed. */
export interface LogRecord {
  /** Nanoseconds since the epoch. */
  readonly timeNanos: bigint
  readonly stream: LogStreamName
  readonly text: Uint8Array
  readonly partial: boolean
}

const stampLength = 30
const textAt = 40
const space = 0x20
const streams: Readonly<Record<string, LogStreamName>> = { stdout: "stdout", stderr: "stderr" }
const nanosPerMilli = 1_000_000n

const parseStamp = (stamp: string): bigint | undefined => {
  const millis = Date.parse(`${stamp.slice(0, 23)}Z`)
  return Number.isNaN(millis) || !/^\d{6}Z$/.test(stamp.slice(23))
    ? undefined
    : BigInt(millis) * nanosPerMilli + BigInt(stamp.slice(23, 29))
}

/** Reads one line (without its line feed). None when it is not a record: a reader passes over it. */
export const parse = (line: Uint8Array): Option.Option<LogRecord> => {
  if (line.length < textAt || line[stampLength] !== space || line[textAt - 1] !== space) {
    return Option.none()
  }
  const head = Buffer.from(line.buffer, line.byteOffset, textAt).toString("latin1")
  const timeNanos = parseStamp(head.slice(0, stampLength))
  const stream = streams[head.slice(31, 37)]
  const completeness = head[38]
  if (timeNanos === undefined || stream === undefined || (completeness !== "F" && completeness !== "P")) {
    return Option.none()
  }
  return Option.some({ timeNanos, stream, text: line.subarray(textAt), partial: completeness === "P" })
}
