/**
 * `fsb-ctl config`
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import * as Table from "../Table.ts"

interface Row {
  readonly key: string
  readonly value: string
  readonly from: string
}

const columns: ReadonlyArray<Table.Column<Row>> = [
  { heading: "KEY", cell: ({ key }) => key },
  { heading: "VALUE", cell: ({ value }) => value },
  { heading: "FROM", cell: ({ from }) => from }
]

const view = Command.make(
  "view",
  {},
  Effect.fnUntraced(function*() {
    const screen = yield* Screen
    const { context, editor, endpoint, namespace, tls, token } = yield* Globals.settings
    const rows: ReadonlyArray<Row> = [
      { key: "endpoint", ...endpoint },
      { key: "namespace", ...namespace },
      ...(context === undefined ? [] : [{ key: "context", ...context }]),
      ...(token === undefined ? [] : [{ key: "token", ...token, value: "(hidden)" }]),
      ...(tls === undefined ? [] : [{ key: "tls", ...tls, value: Object.keys(tls.value).join(", ") || "yes" }]),
      ...(editor === undefined ? [] : [{ key: "editor", ...editor }])
    ]
    const format = Option.getOrElse(yield* Globals.OutputFormat, () => "table" as const)
    if (format === "json" || format === "yaml") {
      return yield* Output.printObject(format, Object.fromEntries(rows.map(({ key, value }) => [key, value])))
    }
    yield* screen.data(
      format === "name" ? rows.map(({ key }) => `${key}\n`).join("") : Table.format(columns, rows)
    )
  })
).pipe(
  Command.withShortDescription("Show what applies, and where it comes from"),
  Command.withDescription(
    "Shows the endpoint, the namespace and the rest that apply, and where each comes from. In order: flags, environment, ./.fsb/config.json, ~/.fsb/config.json."
  ),
  Command.withExamples([
    { command: "fsb-ctl config view" },
    { command: "fsb-ctl config view --context prod -o json", description: "With one of the contexts" }
  ]),
  Command.annotate(Operands, "")
)

/** `fsb-ctl config` */
export const config = Command.make("config").pipe(
  Command.withShortDescription("Look at the configuration"),
  Command.withDescription(
    "Configuration is JSON with the keys endpoint, namespace, token, tls, editor, context, and contexts: names with an endpoint, namespace, token and tls each."
  ),
  Command.withSubcommands([view])
)
