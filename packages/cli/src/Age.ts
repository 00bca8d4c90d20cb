/**
 * Ages as kubectl writes them: the two largest units that matter.
 */
const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const YEAR = 365 * DAY

const pair = (millis: number, large: number, largeUnit: string, small: number, smallUnit: string): string => {
  const rest = Math.floor((millis % large) / small)
  return `${Math.floor(millis / large)}${largeUnit}${rest === 0 ? "" : `${rest}${smallUnit}`}`
}

/** A span of milliseconds, such as `12s`, `2m5s`, `3h` or `4d5h`. A clock that runs behind the server's gives `0s`. */
export const format = (millis: number): string => {
  if (millis < 2 * MINUTE) return `${Math.max(0, Math.floor(millis / SECOND))}s`
  if (millis < 10 * MINUTE) return pair(millis, MINUTE, "m", SECOND, "s")
  if (millis < 3 * HOUR) return `${Math.floor(millis / MINUTE)}m`
  if (millis < 8 * HOUR) return pair(millis, HOUR, "h", MINUTE, "m")
  if (millis < 2 * DAY) return `${Math.floor(millis / HOUR)}h`
  if (millis < 8 * DAY) return pair(millis, DAY, "d", HOUR, "h")
  if (millis < 2 * YEAR) return `${Math.floor(millis / DAY)}d`
  return pair(millis, YEAR, "y", DAY, "d")
}
