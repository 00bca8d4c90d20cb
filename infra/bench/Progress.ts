/**
 * Says how far a scenario is: on a terminal in one line that is written over, elsewhere now and then in a line of its own.
 */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"

/** Lines of a scenario whose readers can't be shown one that changes. */
const linesElsewhere = 4

const eraseLine = "\r\u001b[K"

/** `done` of `total` rounds of `what` are over; the last call leaves the line empty for whoever writes next. */
export const show = (what: string, done: number, total: number): Effect.Effect<void> => {
  if (process.stderr.isTTY) {
    const line = done < total ? `${eraseLine}  ${what}: ${done} of ${total}` : eraseLine
    return Effect.sync(() => process.stderr.write(line))
  }
  const every = Math.max(1, Math.floor(total / linesElsewhere))
  return done < total && done % every === 0 ? Console.error(`  ${what}: ${done} of ${total}`) : Effect.void
}
