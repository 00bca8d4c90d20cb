/**
 * Runs a program as this process: signals interrupt it, a second one ends it at once, and its failure becomes one line
 * and an exit code.
 */
import * as Cause from "effect/Cause"
import * as CliError from "effect/cli/CliError"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Runtime from "effect/Runtime"
import { writeSync } from "node:fs"
import * as ExitCode from "./ExitCode.ts"
import * as Failure from "./Failure.ts"
import * as Signals from "./Signals.ts"

const STDERR = 2

/** Says the last words; a reader that is gone misses nothing. */
const say = (text: string): void => {
  try {
    writeSync(STDERR, text)
  } catch {
    // the terminal or pipe is gone, and there is nobody else to tell
  }
}

/** Usage errors and help were presented already. */
const ofCliError = (error: CliError.CliError): number =>
  error._tag === "ShowHelp" && error.errors.length === 0 ? ExitCode.SUCCESS : ExitCode.OURS

const ofCause = (cause: Cause.Cause<Failure.Failure | CliError.CliError>): number => {
  const found = Cause.findError(cause)
  if (Result.isSuccess(found)) {
    if (CliError.isCliError(found.success)) return ofCliError(found.success)
    say(Failure.describe(found.success))
    return Failure.exitCode(found.success)
  }
  if (Cause.hasInterruptsOnly(cause)) return ExitCode.ofSignal(ExitCode.signals.SIGINT)
  say(`fsb-ctl: a fault of fsb-ctl itself; please report it with these lines\n${Cause.pretty(cause)}\n`)
  return ExitCode.OURS
}

/** Runs the program and ends the process. */
export const run = (program: Effect.Effect<void, Failure.Failure | CliError.CliError>): void => {
  let exitCode: number = ExitCode.ofSignal(ExitCode.signals.SIGINT)
  const launch = Runtime.makeRunMain(({ fiber }) => {
    let received: Signals.Name | undefined
    for (const signal of Signals.names) {
      process.on(signal, () => {
        if (received === undefined && Signals.handOver(signal)) return
        // whoever asks twice does not want to wait for a clean end
        if (received !== undefined) process.exit(ExitCode.ofSignal(ExitCode.signals[signal]))
        received = signal
        fiber.interruptUnsafe(fiber.id)
      })
    }
    fiber.addObserver(() =>
      process.exit(received === undefined ? exitCode : ExitCode.ofSignal(ExitCode.signals[received]))
    )
  })
  launch(
    Effect.matchCause(program, {
      onFailure: (cause) => {
        exitCode = ofCause(cause)
      },
      onSuccess: () => {
        exitCode = ExitCode.SUCCESS
      }
    })
  )
}
