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
  /** Whether the program reads what is typed. */
  readonly hasStdin: boolean
  /** Whether the program has a terminal. */
  readonly hasTerminal: boolean
}

/** Stays until the program has ended or the user has left; says which. */
export const follow = Effect.fnUntraced(function*(session: Session, { hasStdin, hasTerminal, replay }: Options) {
  const screen = yield* Screen
  const left = yield* Deferred.make<void>()
  const keys = DetachKeys.make()
  const typed = Terminal.input.pipe(
    Stream.mapEffect((bytes) => {
      const { isLeaving, passed } = keys(bytes)
      return isLeaving ? Effect.as(Deferred.succeed(left, undefined), passed) : Effect.succeed(passed)
    }),
    Stream.filter((bytes) => bytes.length > 0)
  )
  yield* session.attach({
    replay,
    stdin: hasStdin ? typed : undefined,
    size: hasTerminal ? Terminal.size() : undefined,
    control: hasTerminal ? Stream.merge(Terminal.resizes, Signals.passed) : Signals.passed
  }).pipe(
    Stream.interruptWhen(Deferred.await(left)),
    Stream.runForEach((event) =>
      event._tag === "Attached"
        ? hasStdin && Terminal.hasKeyboard() ? Terminal.raw : Effect.void
        : event.stream === "stdout"
        ? screen.data(event.bytes)
        : screen.errorData(event.bytes)
    )
  )
  return (yield* Deferred.isDone(left)) ? "left" as const : "ended" as const
}, Effect.scoped)
