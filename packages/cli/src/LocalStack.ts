/**
 * The one-machine stack, as far as the commands need it. It is loaded only when one of them is used: the commands that
 * talk to a server start without it.
 */
import * as Effect from "effect/Effect"
import { LocalError } from "./Failure.ts"

/** Which stack, and on what. */
export interface UpOptions {
  /** Where everything is kept. */
  readonly home: string
  /** auto: the machine's containerd where it answers, else one of its own; own; or the path of a socket. */
  readonly containerd: "auto" | "own" | `/${string}`
  /** Run when the stack takes calls. */
  readonly onReady: Effect.Effect<void>
}

/** What the commands need of the stack. Its failures are told to the user by their message. */
export interface LocalStack {
  /** Runs the stack until it is interrupted. */
  readonly up: (options: UpOptions) => Effect.Effect<never, LocalError>
  /** Stops the stack of that home, and removes everything it left when asked. Gives whether one ran. */
  readonly down: (
    options: { readonly home: string; readonly wipe: boolean }
  ) => Effect.Effect<boolean, LocalError>
}

/** Loads it. */
export const load: Effect.Effect<LocalStack, LocalError> = Effect.tryPromise({
  try: () => import("./OneMachine.ts"),
  catch: (cause) => new LocalError({ problem: `this build of fsb-ctl can't run the server: ${String(cause)}` })
}).pipe(Effect.map(({ stack }) => stack))
