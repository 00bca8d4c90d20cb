/**
 * Spans of time as people type them: `90`, `90s`, `1h30m`, `500ms`; and dates.
 */
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

const millisPerUnit: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000
}

const pattern = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/
const part = /(\d+(?:\.\d+)?)(ms|s|m|h|d)/g
const bareSeconds = /^\d+(?:\.\d+)?$/

/** What {@link parse} accepts, for messages. */
export const FORM = "a time such as 90s, 15m or 1h30m"

/** Milliseconds; a number without a unit means seconds. */
export const parse = (text: string): Option.Option<number> => {
  if (bareSeconds.test(text)) return Option.some(Number(text) * 1000)
  if (!pattern.test(text)) return Option.none()
  return Option.some(
    [...text.matchAll(part)].reduce((sum, [, count, unit = ""]) => sum + Number(count) * (millisPerUnit[unit] ?? 0), 0)
  )
}

/** RFC 3339, or its date alone. */
const date = /^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2}))?$/

/** A moment. The parser of the language alone would make a year of `-1`. */
export const parseDate = (text: string): Option.Option<DateTime.Utc> =>
  date.test(text) ? Option.map(DateTime.make(text), DateTime.toUtc) : Option.none()

/** Milliseconds, or which flag has none. */
export const require = (flag: string, text: string): Effect.Effect<number, InvalidArgument> =>
  Effect.fromOption(parse(text)).pipe(
    Effect.mapError(() => new InvalidArgument({ field: flag, problem: `${JSON.stringify(text)} is not ${FORM}` }))
  )
