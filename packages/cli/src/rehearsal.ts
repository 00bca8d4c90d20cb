/**
 * What is done while a start-up snapshot is made, so that the snapshot holds what most calls need, loaded and compiled:
 * command lines from their parsing to what they print, against a server of the build. Nothing is shown, and every
 * connection is closed again, since a snapshot can't hold one.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { Screen } from "./Screen.ts"
import * as Terminal from "./Terminal.ts"

const calls: ReadonlyArray<ReadonlyArray<string>> = [
  ["run", "web", "-d", "--image", "alpine", "-e", "A=b", "--", "true"],
  ["list", "-A", "-l", "a=b"],
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

/** Puts something else into the place of a property; the scope's end puts it back. */
const replace = (target: object, name: string, value: unknown) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const own = Object.getOwnPropertyDescriptor(target, name)
      Object.defineProperty(target, name, { configurable: true, value })
      return own
    }),
    (own) =>
      Effect.sync(() =>
        own === undefined ? Reflect.deleteProperty(target, name) : Object.defineProperty(target, name, own)
      )
  )

const inertTimer = { ref: () => inertTimer, unref: () => inertTimer }

/**
 * Takes away what leaves something behind in Node that is wrong in another process. Node remembers by the clock of the
 * process when its next timer is due: with a timer of the builder in the snapshot, later ones never fire. It keeps the
 * numbers of its next UUIDs in stock: with them in the snapshot, every process takes the same ids.
 */
const precautions = Effect.all([
  replace(globalThis, "setTimeout", () => inertTimer),
  replace(globalThis, "setInterval", () => inertTimer),
  replace(crypto, "randomUUID", () => {
    throw new Error("a UUID in a start-up snapshot is the same in every process")
  })
])

/** A rehearsal that does not come to its end makes no snapshot. */
const untilDone = Effect.acquireRelease(
  Effect.sync(() => {
    process.exitCode = 1
  }),
  (_, exit) =>
    Effect.sync(() => {
      if (Exit.isSuccess(exit)) process.exitCode = undefined
    })
)

/** Does it; what can't be rehearsed fails the build. `endpoint` is the build's server. */
export const rehearse = (endpoint: string): Promise<void> =>
  Effect.runPromise(
    Effect.gen(function*() {
      yield* untilDone
      yield* precautions
      // as the entry loads it
      const { programOf } = yield* Effect.promise(() => import("./main.ts"))
      Terminal.hasKeyboard()
      for (const args of calls) yield* programOf(["--endpoint", endpoint, ...args])
    }).pipe(Effect.scoped, Effect.provide(blank))
  )
