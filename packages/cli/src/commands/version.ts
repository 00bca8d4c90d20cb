/**
 * `fsb-ctl version`
 */
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import * as Version from "../Version.ts"

/** `fsb-ctl version` */
export const version = Command.make(
  "version",
  {},
  Effect.fnUntraced(function*() {
    const screen = yield* Screen
    const format = Option.getOrElse(yield* Globals.OutputFormat, () => "table" as const)
    const node = process.version
    const platform = `${process.platform}/${process.arch}`
    yield* format === "json" || format === "yaml"
      ? Output.printObject(format, { version: Version.version, node, platform })
      : screen.data(`fsb-ctl ${Version.version}${format === "wide" ? ` (node ${node}, ${platform})` : ""}\n`)
  })
).pipe(
  Command.withShortDescription("Print the version"),
  Command.withDescription("Prints the version of fsb-ctl."),
  Command.withExamples([{ command: "fsb-ctl version -o wide", description: "With that of Node and the platform" }]),
  Command.annotate(Operands, "")
)
