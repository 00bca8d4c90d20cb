/**
 * `fsb-ctl events`
 */
import { type EventOptions, Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as EventView from "../EventView.ts"
import { UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"

const kinds: Readonly<Record<string, NonNullable<EventOptions["kind"]>>> = {
  sandbox: "Sandbox",
  pool: "SandboxPool",
  agent: "Pod"
}

/** `web` is a sandbox; `pool/web` says what it is. */
const parseObject = (text: string): Pick<EventOptions, "kind" | "name"> | undefined => {
  const at = text.indexOf("/")
  if (at < 0) return { kind: "Sandbox", name: text }
  const noun = text.slice(0, at)
  return Object.hasOwn(kinds, noun) ? { kind: kinds[noun], name: text.slice(at + 1) } : undefined
}

/** `fsb-ctl events` */
export const events = Command.make(
  "events",
  {
    object: Argument.String("NAME").pipe(
      Argument.withDescription("A sandbox, or pool/NAME or agent/NAME; all of them where it is left out"),
      Argument.optional
    ),
    allNamespaces: Globals.allNamespaces("The events of all namespaces"),
    watch: Flags.presence("watch", "Go on with every event until interrupted").pipe(Flag.withAlias("w"))
  },
  Effect.fnUntraced(function*({ allNamespaces, object, watch }) {
    const sandboxes = yield* Sandboxes
    const format = yield* Globals.format
    const about = Option.map(object, parseObject)
    if (Option.isSome(about) && about.value === undefined) {
      return yield* new UsageError({
        command: "events",
        problem: `${JSON.stringify(Option.getOrThrow(object))} is none of NAME, pool/NAME, agent/NAME`
      })
    }
    const told = sandboxes.events({
      ...Option.getOrUndefined(about),
      follow: watch,
      ...(allNamespaces ? { allNamespaces } : {})
    })
    const view = Effect.map(
      DateTime.now,
      (now) => EventView.events({ now, namespaces: allNamespaces ? "all" : "one" })
    )
    if (!watch) {
      const all = yield* Stream.runCollect(told)
      return yield* Output.printAll(yield* view, all, { format, whenEmpty: "no events; they are kept for an hour" })
    }
    const print = yield* Output.printer(format)
    yield* Stream.runForEachArray(told, (events) => Effect.flatMap(view, (view) => print(view, events)))
  })
).pipe(
  Command.withShortDescription("List what happened"),
  Command.withDescription(
    "Lists what was reported of a sandbox, a pool or an agent, or of all of the namespace, the oldest first."
  ),
  Command.withExamples([
    { command: "fsb-ctl events web", description: "What happened to a sandbox" },
    { command: "fsb-ctl events pool/default-pool", description: "What happened to a pool" },
    { command: "fsb-ctl events -A -w", description: "Everything, as it happens" }
  ]),
  Command.annotate(Operands, "[NAME | pool/NAME | agent/NAME]"),
  Command.provide(Globals.connection)
)
