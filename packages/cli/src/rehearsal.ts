/**
 * What is done while a start-up snapshot is made, so that the snapshot holds what most calls need, loaded and compiled:
 * command lines up to the point at which a server would be called. Nothing is shown, and no network is touched, which a
 * snapshot could not hold.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { programOf } from "./main.ts"
import { Screen } from "./Screen.ts"

/** Is refused as soon as what speaks to servers is loaded. */
const NOWHERE = "none"

const calls: ReadonlyArray<ReadonlyArray<string>> = [
  ["run", "web", "-d", "--image", "alpine", "-e", "A=b", "--endpoint", NOWHERE, "--", "true"],
  ["list", "-A", "-l", "a=b", "--endpoint", NOWHERE],
  ["list", "--help"]
]

const blank = Layer.succeed(Screen, {
  data: () => Effect.void,
  errorData: () => Effect.void,
  talk: () => Effect.void,
  complain: () => Effect.void,
  isQuiet: false,
  canAsk: false,
  isTalkTerminal: false,
  isDataTerminal: false,
  hasColors: false,
  columns: 80,
  dataWidth: () => Infinity
})

/** Does it. */
export const rehearse = (): Promise<void> =>
  Effect.runPromise(
    Effect.forEach(calls, (args) => Effect.ignoreCause(programOf(args)), { discard: true }).pipe(Effect.provide(blank))
  )
