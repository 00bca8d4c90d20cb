/**
 * `fsb-ctl exec`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as ExitCode from "../ExitCode.ts"
import { Ended, UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import { TrailingOperands } from "../Operands.ts"
import * as Pairs from "../Pairs.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import { Screen } from "../Screen.ts"
import * as Signals from "../Signals.ts"
import * as Terminal from "../Terminal.ts"

const flags = {
  operands: Argument.String("NAME").pipe(
    Argument.withDescription("The sandbox, then -- and the program with its arguments"),
    Argument.variadic()
  ),
  interactive: Flags.presence("interactive", "Give it what comes on stdin").pipe(Flag.withAlias("i")),
  tty: Flags.presence("tty", "Give it a terminal").pipe(Flag.withAlias("t")),
  env: Flag.String("env").pipe(
    Flag.withAlias("e"),
    Flag.withMetavar("KEY[=VALUE]"),
    Flag.withDescription("An environment variable; KEY alone takes the value from here"),
    Flag.atLeast(0)
  ),
  user: Flags.optionalText("user", "USER", "uid, uid:gid, name or name:group, by the sandbox's own files").pipe(
    Flag.withAlias("u")
  ),
  workdir: Flags.optionalText("workdir", "DIR", "The directory that it starts in").pipe(Flag.withAlias("w"))
}

const refuse = (problem: string): UsageError => new UsageError({ command: "exec", problem })

/** The sandbox's name and the program. */
const operandsOf = Effect.fnUntraced(function*(operands: ReadonlyArray<string>) {
  const trailing = yield* TrailingOperands
  const [name, ...before] = operands.slice(0, operands.length - trailing)
  const program = [...before, ...operands.slice(operands.length - trailing)]
  if (name === undefined) return yield* refuse("the sandbox's name is missing")
  if (program.length === 0) return yield* refuse("say what to run: fsb-ctl exec NAME -- PROGRAM ARGS...")
  if (trailing > 0 && before.length > 0) {
    return yield* refuse(`${JSON.stringify(before[0])} is one operand too many before --`)
  }
  return { name: SandboxOperand.nameOf(name), program }
})

/** `fsb-ctl exec` */
export const exec = Command.make(
  "exec",
  flags,
  Effect.fnUntraced(function*({ env, interactive, operands, tty, user, workdir }) {
    const { name, program } = yield* operandsOf(operands)
    const envs = yield* Effect.fromResult(Pairs.environment(env, process.env)).pipe(
      Effect.mapError((problem) => new InvalidArgument({ field: "--env", problem }))
    )
    const isTyped = tty && interactive
    if (isTyped && !Terminal.hasKeyboard()) {
      return yield* refuse("stdin is no terminal; leave --tty away")
    }
    const screen = yield* Screen
    const sandboxes = yield* Sandboxes
    const term = process.env.TERM
    let exitCode: number = ExitCode.OURS
    yield* Stream.runForEach(
      sandboxes.inside(name).exec({
        command: program,
        envs: { ...(tty && term !== undefined ? { TERM: term } : {}), ...envs },
        user: Option.getOrUndefined(user),
        workingDir: Option.getOrUndefined(workdir),
        stdin: interactive ? Terminal.input : undefined,
        terminal: tty ? Terminal.size() : undefined,
        control: tty ? Stream.merge(Terminal.resizes, Signals.passed) : Signals.passed
      }),
      (event) => {
        switch (event._tag) {
          case "Started":
            // whatever is wrong with the command line is told on a terminal that works
            return isTyped ? Terminal.raw : Effect.void
          case "Output":
            return event.stream === "stdout" ? screen.data(event.bytes) : screen.errorData(event.bytes)
          case "Exited":
            exitCode = event.exitCode
            return Effect.void
        }
      }
    )
    if (exitCode !== ExitCode.SUCCESS) return yield* new Ended({ exitCode })
  }, Effect.scoped)
).pipe(
  Command.withShortDescription("Run a program in a sandbox that runs"),
  Command.withDescription(
    "Runs one more program in a sandbox that runs, and ends with its exit code. Signals are passed on; a program whose caller is gone is ended."
  ),
  Command.withExamples([
    { command: "fsb-ctl exec web -- ls -l /tmp", description: "Look around" },
    { command: "fsb-ctl exec -it web -- sh", description: "A shell" },
    { command: "fsb-ctl exec -i -u app -e LANG=C web -- sort <names", description: "Work on what comes on stdin" }
  ]),
  Command.annotate(Operands, "NAME -- PROGRAM [ARGS...]"),
  Command.provide(Globals.connection)
)
