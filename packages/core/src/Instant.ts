/**
 * Instants, between the text that Kubernetes stores (RFC 3339) and the milliseconds since the epoch that are compared.
 */
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"

/** Milliseconds since the epoch; none when the text is absent or no instant (a user may write anything). */
export const parseMillis = (text: string | null | undefined): Option.Option<number> =>
  text === undefined || text === null ? Option.none() : Option.map(DateTime.make(text), DateTime.toEpochMillis)

/** RFC 3339 in UTC with milliseconds. */
export const format = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))
