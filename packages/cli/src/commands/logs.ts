/**
 * `fsb-ctl logs`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Relay from "../Relay.ts"
import * as SandboxOperand from "../SandboxOperand.ts"
import * as Span from "../Span.ts"

const flags = {
  name: SandboxOperand.make(),
  follow: Flag.Boolean("follow").pipe(
    Flag.withAlias("f"),
    Flag.withDescription("Go on until the program ends"),
    Flag.withDefault(false)
  ),
  tail: Flag.Int("tail").pipe(
    Flag.withMetavar("N"),
    Flag.withDescription("Only the last N lines"),
    Flag.optional
  ),
  since: Flags.optionalText("since", "TIME", "Only what came after: 10m (ago), or an RFC 3339 time"),
  timestamps: Flag.Boolean("timestamps").pipe(
    Flag.withDescription("Begin each line with its time"),
    Flag.withDefault(false)
  )
}

/** A moment: so long before `now`, or a date. */
const moment = (text: string, now: DateTime.Utc): Option.Option<DateTime.DateTime> =>
  Option.orElse(
    Option.map(Span.parse(text), (millis) => DateTime.subtract(now, { milliseconds: millis })),
    () => Span.parseDate(text)
  )

const refuse = (field: string, problem: string): InvalidArgument => new InvalidArgument({ field, problem })

/** `fsb-ctl logs` */
export const logs = Command.make(
  "logs",
  flags,
  Effect.fnUntraced(function*({ follow, name, since, tail, timestamps }) {
    const sandboxes = yield* Sandboxes
    const now = yield* DateTime.now
    const from = Option.map(since, (text) => moment(text, now))
    if (Option.isSome(from) && Option.isNone(from.value)) {
      return yield* refuse("--since", `${JSON.stringify(Option.getOrThrow(since))} is not ${Span.FORM}, nor a date`)
    }
    if (Option.isSome(tail) && tail.value < 0) {
      return yield* refuse("--tail", `${tail.value} must not be negative`)
    }
    const isJson = Option.contains(yield* Globals.OutputFormat, "json")
    const relay = yield* Relay.make(isJson ? "json" : timestamps ? "timestamps" : "plain")
    yield* Stream.runForEach(
      sandboxes.logs(name, {
        follow,
        tail: Option.getOrUndefined(tail),
        since: Option.getOrUndefined(Option.flatten(from))
      }),
      relay
    )
  })
).pipe(
  Command.withShortDescription("Print what a sandbox's program printed"),
  Command.withDescription(
    "Prints what a sandbox's program printed: its stdout on stdout, its stderr on stderr. Logs are kept until the sandbox is deleted."
  ),
  Command.withExamples([
    { command: "fsb-ctl logs web", description: "All that is kept" },
    { command: "fsb-ctl logs -f --tail 20 web", description: "The last 20 lines, then everything new" },
    { command: "fsb-ctl logs --since 5m --timestamps web", description: "The last five minutes, with their times" },
    { command: "fsb-ctl logs -o json web", description: "One JSON object for each line" }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)
