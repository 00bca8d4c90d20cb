/**
 * `fsb-ctl attach`
 */
import { Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import * as Core from "@fast-sandbox/core/Sandbox"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Attachment from "../Attachment.ts"
import * as ExitCode from "../ExitCode.ts"
import { Ended } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import { Screen } from "../Screen.ts"

const flags = {
  name: SandboxOperand.make(),
  noStdin: Flags.presence("no-stdin", "Only look")
}

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Core.Sandbox))

/** `fsb-ctl attach` */
export const attach = Command.make(
  "attach",
  flags,
  Effect.fnUntraced(function*({ name, noStdin }) {
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const { spec } = Option.getOrElse(
      decode((yield* sandboxes.get(name)).resource),
      (): { readonly spec: Partial<Core.SandboxSpec> } => ({ spec: {} })
    )
    const outcome = yield* Attachment.follow(sandboxes.inside(name), {
      replay: false,
      hasStdin: !noStdin && spec.stdin === true,
      closesStdin: false,
      hasTerminal: spec.tty === true,
      passesSignals: true
    })
    if (outcome === "left") return yield* screen.talk(`\n${name} goes on\n`)
    const exitCode = ExitCode.ofSandbox(yield* sandboxes.wait(name, { for: terminal }))
    if (exitCode !== ExitCode.SUCCESS) return yield* new Ended({ exitCode })
  })
).pipe(
  Command.withShortDescription("Attach to a sandbox's program"),
  Command.withDescription(
    "Shows what a sandbox's program prints from now on and gives it what is typed, until it ends; ends with its exit code. Ctrl-P Ctrl-Q leaves it running. A program can be typed to when it was started with 'run -i'."
  ),
  Command.withExamples([
    { command: "fsb-ctl attach shell", description: "Back to a shell that was left" },
    { command: "fsb-ctl attach --no-stdin shell", description: "Only look" }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
