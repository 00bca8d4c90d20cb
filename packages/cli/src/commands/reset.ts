/**
 * `fsb-ctl reset`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Progress from "../Progress.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import * as SandboxView from "../SandboxView.ts"

/** `fsb-ctl reset` */
export const reset = Command.make(
  "reset",
  { name: SandboxOperand.make() },
  Effect.fnUntraced(function*({ name }) {
    const sandboxes = yield* Sandboxes
    const sandbox = yield* sandboxes.reset(name).pipe(Progress.spin(`resetting ${name}`))
    yield* SandboxView.printChanged(sandbox, yield* Globals.OutputFormat)
  })
).pipe(
  Command.withAlias("restart"),
  Command.withShortDescription("Start a sandbox anew"),
  Command.withDescription("Stops a sandbox where it still runs, and starts a new instance of it."),
  Command.withExamples([{ command: "fsb-ctl reset web", description: "A new instance under the same name" }]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
