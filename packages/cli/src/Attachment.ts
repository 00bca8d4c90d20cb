/**
 * Attached to a sandbox's program: what it prints comes here, what is typed goes there, until it ends or the user leaves.
 */
import type { Session } from "@fast-sandbox/client/Sandboxes"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as DetachKeys from "./DetachKeys.ts"
import { Screen } from "./Screen.ts"
import * as Signals from "./Signals.ts"
import * as Terminal from "./Terminal.ts"

/** How to be attached. */
export interface Options {
  /** Begin with all that was printed so far. */
  readonly replay: boolean
  /** Whether the program reads what comes on stdin. */
  readonly hasStdin: boolean
  /** Whether the end of stdin is the end of the program's, where it has no terminal. */
  readonly closesStdin: boolean
  /** Whether the program has a terminal. */
  readonly hasTerminal: boolean
  /** Whether signals go to the program; otherwise they interrupt this. */
  readonly passesSignals: boolean
}

/** Stays until the program has ended or the user has left; says which. */
export const follow = Effect.fnUntraced(function*(session: Session, options: Options) {
  const { hasStdin, hasTerminal, passesSignals } = options
  const screen = yield* Screen
  const left = yield* Deferred.make<void>()
  const keys = DetachKeys.make()
  const typed = !hasTerminal ? Terminal.input : Terminal.input.pipe(
    Stream.mapEffect((bytes) => {
      const { isLeaving, passed } = keys(bytes)
      return isLeaving ? Effect.as(Deferred.succeed(left, undefined), passed) : Effect.succeed(passed)
    }),
    Stream.filter((bytes) => bytes.length > 0)
  )
  yield* session.attach({
    replay: options.replay,
    stdin: hasStdin ? typed : undefined,
    closesStdin: options.closesStdin,
    size: hasTerminal ? Terminal.size() : undefined,
    control: Stream.merge(
      hasTerminal ? Terminal.resizes : Stream.empty,
      passesSignals ? Signals.passed : Stream.empty
    )
  }).pipe(
    Stream.interruptWhen(Deferred.await(left)),
    Stream.runForEach((event) =>
      event._tag === "Attached"
        ? hasStdin && hasTerminal && Terminal.hasKeyboard() ? Terminal.raw : Effect.void
        : event.stream === "stdout"
        ? screen.data(event.bytes)
        : screen.errorData(event.bytes)
    )
  )
  return (yield* Deferred.isDone(left)) ? "left" as const : "ended" as const
}, Effect.scoped)
