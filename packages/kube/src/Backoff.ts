/**
 * How long to wait after failures in a row: a pure function with a name.
 */
import * as Duration from "effect/Duration"

/** A pause for every number of failures in a row, counted from 1. */
export interface Backoff {
  readonly name: string
  readonly delayMillis: (failures: number) => number
}

/** `base` after the first failure, twice as long after each further one, never more than `cap`. */
export const exponential = (options: {
  readonly name: string
  readonly base: Duration.Input
  readonly cap: Duration.Input
}): Backoff => {
  const base = Duration.toMillis(options.base)
  const cap = Duration.toMillis(options.cap)
  return { name: options.name, delayMillis: (failures) => Math.min(cap, base * 2 ** Math.max(0, failures - 1)) }
}
