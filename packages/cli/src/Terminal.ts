/**
 * The user's terminal, given to a program in a sandbox: keys go there as they are pressed, the size follows the window.
 */
import type { Control, TerminalSize } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { isatty } from "node:tty"
import { LocalError } from "./Failure.ts"

/** Where nobody tells the size: what programs take for granted. */
const DEFAULT_SIZE: TerminalSize = { columns: 80, rows: 24 }

const STDIN = 0

/** Whether stdin is a terminal; asked so, because Node's stream of stdin loads much that most commands do not need. */
export const hasKeyboard = (): boolean => isatty(STDIN)

/** The size of the window now. */
export const size = (): TerminalSize => {
  const { columns, rows } = process.stdout
  return columns > 0 && rows > 0 ? { columns, rows } : DEFAULT_SIZE
}

/** The window's new size, whenever it changes. Only the last one counts, so that a slow reader misses nothing. */
export const resizes: Stream.Stream<Control> = Stream.callback<Control>((queue) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const tell = () => Queue.offerUnsafe(queue, { _tag: "Resize", size: size() })
      process.stdout.on("resize", tell)
      return tell
    }),
    (tell) => Effect.sync(() => process.stdout.off("resize", tell))
  ), { bufferSize: 1, strategy: "sliding" })

/** Keys are not echoed and not interpreted here, Ctrl-C neither; as it was when the scope closes. */
export const raw: Effect.Effect<void, never, Scope.Scope> = Effect.asVoid(
  Effect.acquireRelease(
    Effect.sync(() => process.stdin.setRawMode(true)),
    () => Effect.sync(() => process.stdin.setRawMode(false))
  )
)

/** What comes on stdin: that of the process that runs, which is not the one in which a start-up snapshot was made. */
export const input: Stream.Stream<Uint8Array, LocalError> = Stream.suspend(() =>
  Stream.fromAsyncIterable<Uint8Array, LocalError>(
    process.stdin,
    (cause) => new LocalError({ problem: `can't read stdin: ${String(cause)}` })
  )
)
