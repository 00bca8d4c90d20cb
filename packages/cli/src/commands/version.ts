/**
 * `fsb-ctl version`
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { version as own } from "@fast-sandbox/core/Version"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as ExitCode from "../ExitCode.ts"
import { describe, Ended } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"

/** A server that needs longer is not there for this question. */
const DEADLINE = "5 seconds"

const client = { version: own, node: process.version, platform: `${process.platform}/${process.arch}` }

const ask = Sandboxes.use(({ serverVersion }) => serverVersion({ deadline: DEADLINE })).pipe(
  Effect.provide(Globals.connection),
  Effect.result
)

/** `fsb-ctl version` */
export const version = Command.make(
  "version",
  {
    client: Flags.presence("client", "Only that of fsb-ctl; ask no server")
  },
  Effect.fnUntraced(function*(flags) {
    const screen = yield* Screen
    const format = yield* Globals.format
    const asked = flags.client ? undefined : yield* ask
    const server = asked !== undefined && Result.isSuccess(asked) ? asked.success : undefined
    const wide = format === "wide"
    yield* Output.isObjectForm(format)
      ? Output.printObject(format, { client, ...(server === undefined ? {} : { server }) })
      : screen.data([
        `client ${client.version}${wide ? ` (node ${client.node}, ${client.platform})` : ""}\n`,
        ...(server === undefined ? [] : [`server ${server.version}${wide ? ` (node ${server.node})` : ""}\n`])
      ].join(""))
    if (asked !== undefined && Result.isFailure(asked)) {
      yield* screen.complain(describe(asked.failure))
      return yield* new Ended({ exitCode: ExitCode.OURS })
    }
  })
).pipe(
  Command.withShortDescription("Print the versions of fsb-ctl and of the server"),
  Command.withDescription("Prints the version of fsb-ctl, and that of the server that it talks to."),
  Command.withExamples([
    { command: "fsb-ctl version -o wide", description: "With those of Node and the platform" },
    { command: "fsb-ctl version --client", description: "Without asking the server" }
  ]),
  Command.annotate(Operands, "")
)
