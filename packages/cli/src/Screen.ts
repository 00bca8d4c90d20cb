/**
 * The standard streams of the process. stdout is data, stderr is talk; what a terminal alone can show (progress,
 * questions, bold) depends on whether it is one.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { PipeClosed } from "./Failure.ts"
import { hasKeyboard } from "./Terminal.ts"

/** Width that is assumed where the terminal does not tell its own. */
const DEFAULT_COLUMNS = 80

type Output = Pick<NodeJS.WriteStream, "write" | "on">

const write = (output: Output, content: string | Uint8Array): Effect.Effect<void, PipeClosed> =>
  Effect.callback((resume) => {
    output.write(content, (error) => resume(error ? Effect.fail(new PipeClosed()) : Effect.void))
  })

/** The standard streams of the process. */
export class Screen extends Context.Service<Screen, {
  /** Writes data to stdout. */
  readonly data: (content: string | Uint8Array) => Effect.Effect<void, PipeClosed>
  /** Writes data of a program to stderr. */
  readonly errorData: (content: string | Uint8Array) => Effect.Effect<void, PipeClosed>
  /** Says something to the user, on stderr. Nobody who listens is no failure. */
  readonly talk: (text: string) => Effect.Effect<void>
  /** Says what went wrong, on stderr; also to who wants quiet. */
  readonly complain: (text: string) => Effect.Effect<void>
  /** The user wants nothing said but errors. */
  readonly isQuiet: boolean
  /** The user can be asked: stdin and stderr are terminals. */
  readonly canAsk: boolean
  /** What is said can be overwritten and go on in place. */
  readonly isTalkTerminal: boolean
  /** Data goes to the eyes of a person. */
  readonly isDataTerminal: boolean
  /** Whether colours and bold are welcome (https://no-color.org). */
  readonly hasColors: boolean
  readonly columns: number
  /** How wide lines of data may be now: as the window is, and without end where there is none. */
  readonly dataWidth: () => number
}>()("@fast-sandbox/cli/Screen") {
  /** The process's own streams. */
  static readonly layer: Layer.Layer<Screen> = Layer.sync(Screen, () => {
    const { env, stderr, stdout } = process
    // a closed pipe is told by the callback of a write; without a listener it would end the process with a stack trace
    stdout.on("error", () => {})
    stderr.on("error", () => {})
    const isDumb = env.TERM === "dumb"
    return Screen.of({
      data: (content) => write(stdout, content),
      errorData: (content) => write(stderr, content),
      talk: (text) => Effect.ignore(write(stderr, text)),
      complain: (text) => Effect.ignore(write(stderr, text)),
      isQuiet: false,
      canAsk: hasKeyboard() && stderr.isTTY,
      isTalkTerminal: stderr.isTTY && !isDumb,
      isDataTerminal: stdout.isTTY,
      hasColors: stdout.isTTY && !isDumb && (env.NO_COLOR ?? "") === "",
      columns: stdout.columns ?? DEFAULT_COLUMNS,
      dataWidth: () => stdout.isTTY && stdout.columns > 0 ? stdout.columns : Infinity
    })
  })

  /** The same, as the flags want it. */
  static readonly layerWith = (
    options: { readonly isQuiet: boolean; readonly hasColors: boolean }
  ): Layer.Layer<Screen, never, Screen> =>
    Layer.effect(
      Screen,
      Effect.map(Screen, (screen) => ({
        ...screen,
        ...(options.isQuiet ? { isQuiet: true, isTalkTerminal: false, talk: () => Effect.void } : {}),
        hasColors: screen.hasColors && options.hasColors
      }))
    )
}
