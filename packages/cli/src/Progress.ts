/**
 * Shows that something is under way. On a terminal one line goes on in place and disappears at the end; elsewhere
 * nothing is said, or one line for each step.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Age from "./Age.ts"
import { Screen } from "./Screen.ts"

/** What takes less than this is not worth a word. */
const PATIENCE = "400 millis"

const FRAME = "120 millis"
const frames = ["|", "/", "-", "\\"]

/** Goes to the start of the line and clears it (ECMA-48 EL). */
const CLEAR_LINE = "\r\u001b[2K"

const units = ["B", "kB", "MB", "GB", "TB"] as const
const UNIT_STEP = 1000

/** Bytes for people: `3.4MB`. */
export const formatBytes = (bytes: number): string => {
  const at = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(bytes) / 3))
  const value = bytes / UNIT_STEP ** at
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)}${units[at]}`
}

/** Turns a spinner with the text while `self` runs; only on a terminal, and only when it takes a while. */
export const spin = (text: string) => <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Screen> =>
  Effect.gen(function*() {
    const screen = yield* Screen
    if (!screen.isTalkTerminal) return yield* self
    const begun = yield* Clock.currentTimeMillis
    let frame = 0
    const turn = Effect.gen(function*() {
      const elapsed = Age.format((yield* Clock.currentTimeMillis) - begun)
      yield* screen.talk(`${CLEAR_LINE}${frames[frame++ % frames.length]} ${text} ${elapsed}`)
    })
    const spinner = Effect.repeat(turn, Schedule.spaced(FRAME)).pipe(
      Effect.delay(PATIENCE),
      Effect.ensuring(Effect.suspend(() => frame === 0 ? Effect.void : screen.talk(CLEAR_LINE)))
    )
    return yield* Effect.scoped(Effect.andThen(Effect.forkScoped(spinner), self))
  })

/** Says how far something is: in place on a terminal, else each time that the step (the first part) changes. */
export const reporter: Effect.Effect<
  (step: string, detail: string) => Effect.Effect<void>,
  never,
  Screen
> = Effect.map(Screen, (screen) => {
  let last = ""
  return (step, detail) =>
    Effect.suspend(() => {
      const isNew = step !== last
      last = step
      if (screen.isTalkTerminal) return screen.talk(`${CLEAR_LINE}${step} ${detail}`.trimEnd())
      return isNew ? screen.talk(`${step}\n`) : Effect.void
    })
})

/** Removes what a {@link reporter} left in place. */
export const clear: Effect.Effect<void, never, Screen> = Effect.flatMap(
  Screen,
  (screen) => screen.isTalkTerminal ? screen.talk(CLEAR_LINE) : Effect.void
)
