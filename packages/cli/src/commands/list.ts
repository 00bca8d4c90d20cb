/**
 * `fsb-ctl list`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import type { SandboxInfo } from "@fast-sandbox/client/SandboxInfo"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import * as SandboxView from "../SandboxView.ts"

const flags = {
  allNamespaces: Globals.allNamespaces("List the sandboxes of all namespaces"),
  selector: Globals.selector("Only those with these labels: key=value,..."),
  sortBy: Flag.Literals("sort-by", SandboxView.orders).pipe(
    Flag.withMetavar("COLUMN"),
    Flag.withDescription(`Sort by one of ${SandboxView.orders.join(", ")}`),
    Flag.optional
  ),
  watch: Flag.Boolean("watch").pipe(
    Flag.withAlias("w"),
    Flag.withDescription("Go on with every change until interrupted"),
    Flag.withDefault(false)
  )
}

/** `fsb-ctl list` */
export const list = Command.make(
  "list",
  flags,
  Effect.fnUntraced(function*({ allNamespaces, selector, sortBy, watch }) {
    const sandboxes = yield* Sandboxes
    const format = yield* Globals.format
    const namespaces = allNamespaces ? "all" : "one"
    const query = {
      labelSelector: Option.getOrUndefined(selector),
      ...(allNamespaces ? { allNamespaces } : {})
    }
    const view = Effect.map(DateTime.now, (now) => SandboxView.sandboxes({ now, namespaces }))
    if (!watch) {
      const { value: namespace } = (yield* Globals.settings).namespace
      const whenEmpty = allNamespaces ? "no sandboxes" : `no sandboxes in the namespace ${namespace}`
      const found = yield* sandboxes.list(query)
      const sorted = Option.match(sortBy, {
        onNone: () => found,
        onSome: (order) => found.toSorted(SandboxView.compare(order))
      })
      return yield* Output.printAll(yield* view, sorted, { format, whenEmpty })
    }
    const print = yield* Output.printer(format)
    let existing: Array<SandboxInfo> | undefined = []
    yield* Stream.runForEach(sandboxes.watch(query), (event) =>
      Effect.gen(function*() {
        if (event._tag === "Synced") {
          yield* print(yield* view, existing ?? [])
          existing = undefined
        } else if (existing === undefined) {
          const { sandbox } = event
          yield* print(yield* view, [event._tag === "Deleted" ? { ...sandbox, phase: "Deleting" as const } : sandbox])
        } else {
          existing.push(event.sandbox)
        }
      }))
  })
).pipe(
  Command.withAlias("ls"),
  Command.withShortDescription("List sandboxes"),
  Command.withDescription("Lists the sandboxes of a namespace, or of all."),
  Command.withExamples([
    { command: "fsb-ctl list", description: "The sandboxes of the namespace" },
    { command: "fsb-ctl ls -A -o wide", description: "Those of all namespaces, with all there is to see" },
    { command: "fsb-ctl ls -w -l app=web", description: "Those with a label, as they come and go" },
    { command: "fsb-ctl ls --sort-by age", description: "The oldest first" },
    { command: "fsb-ctl delete $(fsb-ctl ls -q -l app=web)", description: "Names for another command" },
    {
      command: "fsb-ctl ls -o jsonpath='{range .items[*]}{.metadata.name}{\"\\n\"}{end}'",
      description: "Whatever kubectl can show"
    }
  ]),
  Command.annotate(Operands, ""),
  Command.provide(Globals.connection)
)
