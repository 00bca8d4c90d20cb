/**
 * `fsb-ctl describe`
 */
import { type EventInfo, Sandboxes } from "@fast-sandbox/client/Sandboxes"
import type { SandboxInfo } from "@fast-sandbox/client/SandboxInfo"
import * as Command from "effect/cli/Command"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as EventView from "../EventView.ts"
import { describe as describeFailure } from "../Failure.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import * as SandboxView from "../SandboxView.ts"
import { Screen } from "../Screen.ts"

const INDENT = "  "

const section = (title: string, body: string): string =>
  body === "" ? "" : `\n${title}:\n${body.replace(/^(?=.)/gm, INDENT)}`

/** All sections. */
const page = (
  sandbox: SandboxInfo,
  events: ReadonlyArray<EventInfo>,
  now: DateTime.DateTime,
  terminal: number
): string => {
  const within = terminal - INDENT.length
  return [
    SandboxView.details(now)(sandbox, terminal),
    section("Conditions", SandboxView.conditions(sandbox, now, within)),
    section("Where the time of its start went", SandboxView.startup(sandbox)),
    section("Events", events.length === 0 ? "none; they are kept for an hour\n" : EventView.ofOne(events, now, within))
  ].join("")
}

/** `fsb-ctl describe` */
export const describe = Command.make(
  "describe",
  { name: SandboxOperand.make() },
  Effect.fnUntraced(function*({ name }) {
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const sandbox = yield* sandboxes.get(name)
    const { uid } = SandboxView.metadata(sandbox)
    const events = yield* sandboxes.events({ kind: "Sandbox", name, namespace: sandbox.namespace }).pipe(
      // a sandbox that had the same name before is another one
      Stream.filter((event) => uid === undefined || event.uid === uid),
      Stream.runCollect,
      // everything else is worth telling although the events can't be read
      Effect.catch((failure) => Effect.as(screen.complain(describeFailure(failure)), []))
    )
    const now = yield* DateTime.now
    yield* Output.printOne(SandboxView.sandboxes({ now, namespaces: "one" }), sandbox, {
      format: yield* Globals.format,
      details: (sandbox, terminal) => page(sandbox, events, now, terminal)
    })
  })
).pipe(
  Command.withShortDescription("Show one sandbox, why it is as it is, and what happened"),
  Command.withDescription(
    "Shows what a sandbox is, why it is in its state, what happened to it, and where the time of its start went."
  ),
  Command.withExamples([{ command: "fsb-ctl describe web" }]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
