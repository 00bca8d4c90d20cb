/**
 * The one-machine stack, as far as the commands need it.
 */
import type * as Effect from "effect/Effect"
import type { LocalError } from "./Failure.ts"

/** Which stack, and on what. */
export interface UpOptions {
  /** Where everything is kept. */
  readonly home: string
  /** auto: the machine's containerd where it answers, else one of its own; own; or the path of a socket. */
  readonly containerd: "auto" | "own" | `/${string}`
  /** `host:port` of a TCP port for the API; absent: its unix socket only. */
  readonly listen?: string | undefined
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

/**
 * Names the file descriptor of the pipe on which a stack in the background tells its starter that it takes calls, by one
 * byte.
 */
export const readyFdVariable = "FSB_READY_FD"
