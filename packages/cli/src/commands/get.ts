/**
 * `fsb-ctl get`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Command from "effect/cli/Command"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import * as SandboxView from "../SandboxView.ts"

/** `fsb-ctl get` */
export const get = Command.make(
  "get",
  { name: SandboxOperand.make() },
  Effect.fnUntraced(function*({ name }) {
    const sandboxes = yield* Sandboxes
    const sandbox = yield* sandboxes.get(name)
    const now = yield* DateTime.now
    yield* Output.printOne(SandboxView.sandboxes({ now, namespaces: "one" }), sandbox, {
      format: yield* Globals.format,
      details: SandboxView.details(now)
    })
  })
).pipe(
  Command.withShortDescription("Show one sandbox"),
  Command.withDescription("Shows one sandbox: where it runs, how it was started, and what became of it."),
  Command.withExamples([
    { command: "fsb-ctl get web", description: "For people" },
    { command: "fsb-ctl get web -o yaml", description: "The whole resource, as kubectl shows it" }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
