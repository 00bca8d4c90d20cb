/**
 * A question with yes or no as its answer, asked on stderr so that stdout stays data.
 */
import * as Effect from "effect/Effect"
import * as Readline from "node:readline"
import { Screen } from "./Screen.ts"

/** The next line of stdin, or nothing at its end. The terminal is left as it is, so that Ctrl-C stays a signal. */
const nextLine: Effect.Effect<string> = Effect.callback((resume) => {
  const lines = Readline.createInterface({ input: process.stdin, terminal: false })
  lines.once("line", (line) => {
    lines.removeAllListeners("close")
    lines.close()
    resume(Effect.succeed(line))
  })
  lines.once("close", () => resume(Effect.succeed("")))
  return Effect.sync(() => lines.close())
})

/** Whether the user says yes; everything else is no. */
export const confirm = Effect.fnUntraced(function*(question: string) {
  const screen = yield* Screen
  yield* screen.talk(`${question} [y/N] `)
  return /^\s*y(es)?\s*$/i.test(yield* nextLine)
})
