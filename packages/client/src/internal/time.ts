/**
 * Protobuf timestamps as instants and as text, and back.
 */
import type { Timestamp } from "@bufbuild/protobuf/wkt"
import * as DateTime from "effect/DateTime"

const MILLIS_PER_SECOND = 1000
const NANOS_PER_MILLI = 1_000_000
const NANO_DIGITS = 9

/** Seconds and nanoseconds, as a message's field takes them. */
export interface TimestampInit {
  readonly seconds: bigint
  readonly nanos: number
}

/** An instant, to the millisecond. */
export const toDateTime = ({ nanos, seconds }: Timestamp): DateTime.Utc =>
  DateTime.makeUnsafe(Number(seconds) * MILLIS_PER_SECOND + nanos / NANOS_PER_MILLI)

/** RFC 3339 in UTC with all nine digits, so that nothing is lost and texts sort as their instants do. */
export const toText = ({ nanos, seconds }: TimestampInit): string =>
  DateTime.formatIso(DateTime.makeUnsafe(Number(seconds) * MILLIS_PER_SECOND))
    .replace(/\.\d+Z$/, `.${String(nanos).padStart(NANO_DIGITS, "0")}Z`)

/** An instant as a message's field. */
export const fromDateTime = (time: DateTime.DateTime): TimestampInit => {
  const millis = DateTime.toEpochMillis(time)
  const seconds = Math.floor(millis / MILLIS_PER_SECOND)
  return {
    seconds: BigInt(seconds),
    nanos: Math.round((millis - seconds * MILLIS_PER_SECOND) * NANOS_PER_MILLI)
  }
}

/** An instant from the text of {@link toText}, to the nanosecond. */
export const fromText = (text: string): TimestampInit => ({
  seconds: BigInt(Math.floor(DateTime.toEpochMillis(DateTime.makeUnsafe(text)) / MILLIS_PER_SECOND)),
  nanos: Number(text.slice(-1 - NANO_DIGITS, -1))
})
