/**
 * Help as fsb-ctl prints it: usage, what the command does, examples, flags, wrapped to the width of the terminal. A
 * wrong command line is one line about the first thing that is wrong.
 */
import type * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import type * as HelpDoc from "effect/cli/HelpDoc"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { type PipeClosed, usage } from "./Failure.ts"
import { wrap } from "./Lines.ts"
import { Screen } from "./Screen.ts"

/** The operands of a command as its usage shows them; an annotation of the command. */
export class Operands extends Context.Service<Operands, string>()("@fast-sandbox/cli/Help/Operands") {}

/** Lines get no longer than this, however wide the terminal is: long lines are hard to read. */
const WIDTH_MAX = 100

/** Column at which descriptions begin; longer names push theirs to the next line. */
const DESCRIPTION_AT = 28

const GAP = 2
const INDENT = "  "

interface Style {
  readonly width: number
  readonly heading: (text: string) => string
}

const entry = (name: string, description: string, style: Style): string => {
  const [first = "", ...rest] = wrap(description, style.width - DESCRIPTION_AT)
  const left = `${INDENT}${name}`
  const indent = " ".repeat(DESCRIPTION_AT)
  const head = left.length + GAP > DESCRIPTION_AT ? `${left}\n${indent}${first}` : left.padEnd(DESCRIPTION_AT) + first
  return [head, ...rest.map((line) => indent + line)].join("\n").trimEnd()
}

const section = (title: string, entries: ReadonlyArray<string>, style: Style): ReadonlyArray<string> =>
  entries.length === 0 ? [] : [`${style.heading(title)}\n${entries.join("\n")}`]

/** `-n, --namespace NAME`, with the long forms below each other. */
const flagName = ({ aliases, name, type }: HelpDoc.FlagDoc): string => {
  const short = aliases.find((alias) => /^-[^-]$/.test(alias))
  const value = type === "boolean" ? "" : ` ${type.replace(/^<|>$/g, "").toUpperCase()}`
  return `${short === undefined ? "    " : `${short}, `}--${name}${value}`
}

/** The parser adds the choices of a flag to its description, which explains them already. */
const withoutChoices = (description: string): string => description.replace(/ \(choices: [^)]*\)$/, "")

const flags = (docs: ReadonlyArray<HelpDoc.FlagDoc>, style: Style): ReadonlyArray<string> =>
  docs.map((flag) => entry(flagName(flag), withoutChoices(Option.getOrElse(flag.description, () => "")), style))

const usageLine = (doc: HelpDoc.HelpDoc): string => {
  const path = (doc.commandPath ?? []).join(" ")
  const operands = Context.getOption(doc.annotations, Operands)
  if (Option.isSome(operands)) return `${path} [FLAGS] ${operands.value}`.trimEnd()
  return doc.subcommands === undefined ? `${path} [FLAGS]` : `${path} COMMAND`
}

const examples = (docs: ReadonlyArray<HelpDoc.ExampleDoc>): ReadonlyArray<string> =>
  docs.map(({ command, description }) =>
    description === undefined ? `${INDENT}${command}` : `${INDENT}# ${description}\n${INDENT}${command}`
  )

const commands = (doc: HelpDoc.HelpDoc, style: Style): ReadonlyArray<string> =>
  (doc.subcommands ?? []).flatMap(({ commands, group }) =>
    section(
      group === undefined ? "Commands" : group,
      commands.map(({ alias, description, name, shortDescription }) =>
        entry(alias === undefined ? name : `${name}, ${alias}`, shortDescription ?? description, style)
      ),
      style
    )
  )

/** The whole help of a command; ends with a line feed. */
export const format = (
  doc: HelpDoc.HelpDoc,
  options: { readonly columns: number; readonly bold: (text: string) => string }
): string => {
  const style: Style = {
    width: Math.min(options.columns, WIDTH_MAX),
    heading: (title) => options.bold(`${title}:`)
  }
  return [
    `${style.heading("Usage")} ${usageLine(doc)}`,
    ...(doc.description === "" ? [] : [wrap(doc.description, style.width).join("\n")]),
    ...section("Examples", examples(doc.examples ?? []), style),
    ...commands(doc, style),
    ...section("Flags", flags(doc.flags, style), style),
    ...section("Global flags", flags(doc.globalFlags ?? [], style), style)
  ].join("\n\n") + "\n"
}

const suggestion = (suggestions: ReadonlyArray<string>): string =>
  suggestions[0] === undefined ? "" : `; did you mean ${suggestions[0]}?`

/** What a flag takes, as people say it; the parser names types, and the ways to write yes and no. */
const inWords = (expected: string): string => {
  const choices = expected.split(" | ").map((choice) => choice.replace(/^"(.*)"$/, "$1"))
  if (choices.includes("true")) return "true or false"
  if (choices.length > 1) return `one of ${choices.join(", ")}`
  return /^(a string representing a finite number|an integer)$/.test(expected) ? "a whole number" : expected
}

/** What is wrong with a command line, without the next step. */
export const problemOf = (error: CliError.NonShowHelpErrors): string => {
  switch (error._tag) {
    case "UnrecognizedOption":
      return `there is no flag ${error.option}${suggestion(error.suggestions)}`
    case "UnknownSubcommand":
      return `there is no command ${JSON.stringify(error.subcommand)}${suggestion(error.suggestions)}`
    case "MissingOption":
      return `--${error.option} is missing`
    case "MissingArgument":
      return `${error.argument} is missing`
    case "UnexpectedArgument":
      return `${error.arguments.map((argument) => JSON.stringify(argument)).join(", ")} is one argument too many`
    case "InvalidValue": {
      const name = error.kind === "flag" ? `--${error.option}` : error.option
      const expected = inWords(error.expected.replace(/^Expected:?\s*/, "").replace(/, got .*$/s, ""))
      return error.value === ""
        ? `${name} needs a value (${expected})`
        : `${name}: ${JSON.stringify(error.value)} is not ${expected}`
    }
    case "DuplicateOption":
    case "ValidationError":
    case "UserError":
      return error.message
  }
}

const quietly = (effect: Effect.Effect<void, PipeClosed>): Effect.Effect<void> => Effect.ignore(effect)

/** Presents help on stdout, and wrong command lines on stderr. */
export const layer: Layer.Layer<never, never, Screen> = Layer.unwrap(
  Effect.map(Screen, (screen) => {
    const bold = (text: string) => screen.hasColors ? `\u001b[1m${text}\u001b[0m` : text
    return CliOutput.layerPresenter({
      present: (event) => {
        switch (event._tag) {
          case "Help":
            return quietly(screen.data(format(event.helpDoc, { columns: screen.columns, bold })))
          case "Version":
            return quietly(screen.data(`${event.name} ${event.version}\n`))
          case "InvalidInvocation": {
            const [error] = event.errors
            return error === undefined
              ? Effect.void
              : screen.complain(usage(event.commandPath.slice(1).join(" "), problemOf(error)))
          }
        }
      }
    })
  })
)
