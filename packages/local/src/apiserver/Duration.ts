/**
 * Ages as kubectl prints them: two units at most, coarser as they grow.
 */

const second = 1000
const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour

const two = (millis: number, unit: number, letter: string, rest: number, restLetter: string, until: number): string => {
  const whole = Math.floor(millis / unit)
  const remainder = Math.floor((millis % unit) / rest)
  return whole >= until || remainder === 0 ? `${whole}${letter}` : `${whole}${letter}${remainder}${restLetter}`
}

/** The human form of a duration in milliseconds, such as `90s`, `5m30s`, `3h`, `2d4h`, `1y20d`. */
export const humanDuration = (millis: number): string => {
  if (millis < 0) return millis > -2 * second ? "0s" : "<invalid>"
  if (millis < 2 * minute) return `${Math.floor(millis / second)}s`
  if (millis < 10 * minute) return two(millis, minute, "m", second, "s", 10)
  if (millis < 3 * hour) return `${Math.floor(millis / minute)}m`
  if (millis < 8 * hour) return two(millis, hour, "h", minute, "m", 8)
  if (millis < 2 * day) return `${Math.floor(millis / hour)}h`
  if (millis < 8 * day) return two(millis, day, "d", hour, "h", 8)
  if (millis < 2 * 365 * day) return `${Math.floor(millis / day)}d`
  if (millis < 8 * 365 * day) return two(millis, 365 * day, "y", day, "d", 8)
  return `${Math.floor(millis / (365 * day))}y`
}

/** The time since a timestamp, or `<unknown>`. */
export const age = (timestamp: string | undefined, nowMillis: number): string => {
  const then = timestamp === undefined ? Number.NaN : Date.parse(timestamp)
  return Number.isNaN(then) ? "<unknown>" : humanDuration(nowMillis - then)
}
