/**
 * The one-machine stack, as far as the commands need it. It is loaded only when one of them is used: the commands that
 * talk to a server start without it.
 */
import * as Effect from "effect/Effect"
import { LocalError } from "./Failure.ts"

/** One thing that the stack needs of the machine. */
export interface Finding {
  readonly check: string
  readonly ok: boolean
  readonly detail: string
  /** What to do about it; empty where all is well. */
  readonly fix: string
}

/** What the commands need of the stack. Its failures are told to the user by their message. */
export interface LocalStack {
  /** Runs the stack until it is interrupted, and tells when it takes calls. */
  readonly up: (
    options: { readonly home: string; readonly onReady: Effect.Effect<void> }
  ) => Effect.Effect<void, LocalError>
  /** Stops the stack of that home, and removes everything it left when asked. Gives whether one ran. */
  readonly down: (
    options: { readonly home: string; readonly wipe: boolean }
  ) => Effect.Effect<boolean, LocalError>
  readonly report: (options: { readonly home: string }) => Effect.Effect<ReadonlyArray<Finding>>
}

/** Loads it. */
export const load: Effect.Effect<LocalStack, LocalError> = Effect.fail(
  new LocalError({ problem: "this build of fsb-ctl can't run the server; use one that can, or a cluster's --endpoint" })
)
