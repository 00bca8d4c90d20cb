/**
 * `fsb-ctl wait`
 */
import { Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ExitCode from "../ExitCode.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as SandboxView from "../SandboxView.ts"
import { Screen } from "../Screen.ts"
import * as Span from "../Span.ts"

/** Beside the phases: any end of the program, and that the sandbox is gone. */
const ENDED = "ended"
const DELETION = "deletion"

const flags = {
  name: Argument.String("NAME").pipe(Argument.withDescription("The sandbox")),
  condition: Flag.Literals("for", [ENDED, DELETION, ...Sandbox.Phase.literals]).pipe(
    Flag.withMetavar("CONDITION"),
    Flag.withDescription("ended (the default), deletion, or a phase such as Running"),
    Flag.withDefault(ENDED)
  ),
  timeout: Flag.String("timeout").pipe(
    Flag.withMetavar("TIME"),
    Flag.withDescription("Give up after this time: 30s, 5m"),
    Flag.optional
  )
}

/** `fsb-ctl wait` */
export const wait = Command.make(
  "wait",
  flags,
  Effect.fnUntraced(function*({ condition, name, timeout }) {
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const millis = Option.map(timeout, Span.parse)
    if (Option.isSome(millis) && Option.isNone(millis.value)) {
      return yield* new InvalidArgument({
        field: "--timeout",
        problem: `${JSON.stringify(Option.getOrThrow(timeout))} is not ${Span.FORM}`
      })
    }
    const options = { deadline: Option.getOrUndefined(Option.flatten(millis)) }
    if (condition === DELETION) return yield* sandboxes.waitForDeletion(name, options)
    const sandbox = yield* sandboxes.wait(name, {
      ...options,
      for: condition === ENDED ? terminal : new Set([condition])
    })
    const format = yield* Globals.OutputFormat
    if (Option.isSome(format)) return yield* SandboxView.printChanged(sandbox, format)
    yield* screen.data(`${condition === ENDED ? ExitCode.ofSandbox(sandbox) : sandbox.phase}\n`)
  })
).pipe(
  Command.withShortDescription("Wait for a sandbox"),
  Command.withDescription(
    "Waits until a sandbox's program has ended and prints the code it ended with; or until it has a phase, and prints that; or until it is gone."
  ),
  Command.withExamples([
    { command: "fsb-ctl wait job", description: "The exit code of a program, when it has one" },
    { command: "fsb-ctl wait web --for Running --timeout 30s", description: "Until it runs, at most half a minute" },
    { command: "fsb-ctl wait web --for deletion", description: "Until it is gone" }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
