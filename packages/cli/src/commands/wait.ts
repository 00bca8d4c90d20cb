/**
 * `fsb-ctl wait`
 */
import { Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as ExitCode from "../ExitCode.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import * as SandboxView from "../SandboxView.ts"
import { Screen } from "../Screen.ts"
import * as Span from "../Span.ts"

/** What to wait for. */
type Goal =
  | { readonly _tag: "Ended" }
  | { readonly _tag: "Deleted" }
  | { readonly _tag: "Phase"; readonly phase: Sandbox.Phase }
  | { readonly _tag: "Condition"; readonly type: string; readonly status: string }

const condition = /^condition=([A-Za-z]+)(?:=(True|False|Unknown))?$/

/** Reads what follows `--for`. */
export const parseGoal = (text: string): Option.Option<Goal> => {
  if (text === "ended") return Option.some({ _tag: "Ended" })
  if (text === "delete" || text === "deletion") return Option.some({ _tag: "Deleted" })
  const [, type, status = "True"] = condition.exec(text) ?? []
  if (type !== undefined) return Option.some({ _tag: "Condition", type, status })
  const word = text.replace(/^phase=/, "").toLowerCase()
  const phase = Sandbox.Phase.literals.find((phase) => phase.toLowerCase() === word)
  return phase === undefined ? Option.none() : Option.some({ _tag: "Phase", phase })
}

const flags = {
  name: SandboxOperand.make(),
  goal: Flag.String("for").pipe(
    Flag.filterMap(parseGoal, () => "one of ended, delete, phase=Running or another phase, condition=Ready[=False]"),
    Flag.withMetavar("GOAL"),
    Flag.withDescription("ended (the default), delete, phase=PHASE, or condition=TYPE[=STATUS]"),
    Flag.withDefault<Goal>({ _tag: "Ended" })
  ),
  timeout: Flags.optionalText("timeout", "TIME", "Give up after this time: 30s, 5m")
}

/** `fsb-ctl wait` */
export const wait = Command.make(
  "wait",
  flags,
  Effect.fnUntraced(function*({ goal, name, timeout }) {
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const millis = Option.isNone(timeout) ? undefined : yield* Span.require("--timeout", timeout.value)
    if (millis === 0) return yield* new InvalidArgument({ field: "--timeout", problem: "must be more than 0" })
    const options = { deadline: millis }
    if (goal._tag === "Deleted") return yield* sandboxes.waitForDeletion(name, options)
    const sandbox = yield* goal._tag === "Condition"
      ? sandboxes.waitForCondition(name, goal, options)
      : sandboxes.wait(name, { ...options, for: goal._tag === "Ended" ? terminal : new Set([goal.phase]) })
    const format = yield* Globals.OutputFormat
    if (Option.isSome(format)) return yield* SandboxView.printChanged(sandbox, format)
    yield* screen.data(`${goal._tag === "Ended" ? ExitCode.ofSandbox(sandbox) : sandbox.phase}\n`)
  })
).pipe(
  Command.withShortDescription("Wait for a sandbox"),
  Command.withDescription(
    "Waits until a sandbox's program has ended and prints the code it ended with; or until it has a phase or a condition, and prints its phase; or until it is gone."
  ),
  Command.withExamples([
    { command: "fsb-ctl wait job", description: "The exit code of a program, when it has one" },
    {
      command: "fsb-ctl wait web --for phase=Running --timeout 30s",
      description: "Until it runs, at most half a minute"
    },
    { command: "fsb-ctl wait web --for condition=Ready", description: "Until a condition of its status is True" },
    { command: "fsb-ctl wait web --for delete", description: "Until it is gone" }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
