/**
 * `fsb-ctl completion`
 */
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Completions from "effect/cli/Completions"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { Operands } from "../Help.ts"
import { Screen } from "../Screen.ts"

/** The whole tree of commands, which this one is a part of. */
export class CommandTree extends Context.Service<CommandTree, Command.Command.Any>()(
  "@fast-sandbox/cli/commands/completion/CommandTree"
) {}

/** `fsb-ctl completion` */
export const completion = Command.make(
  "completion",
  {
    shell: Argument.Literals("SHELL", ["bash", "zsh", "fish"]).pipe(
      Argument.withDescription("bash, zsh or fish")
    )
  },
  Effect.fnUntraced(function*({ shell }) {
    const screen = yield* Screen
    const tree = yield* CommandTree
    yield* screen.data(`${Completions.generate(tree.name, shell, Completions.fromCommand(tree))}\n`)
  })
).pipe(
  Command.withShortDescription("Print a completion script for a shell"),
  Command.withDescription("Prints a script that teaches a shell to complete fsb-ctl's commands and flags."),
  Command.withExamples([
    { command: "source <(fsb-ctl completion bash)", description: "In ~/.bashrc" },
    { command: "fsb-ctl completion fish > ~/.config/fish/completions/fsb-ctl.fish", description: "For fish" }
  ]),
  Command.annotate(Operands, "bash|zsh|fish")
)
