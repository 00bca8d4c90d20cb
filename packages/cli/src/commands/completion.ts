/**
 * `fsb-ctl completion`, and `fsb-ctl __complete`, which the scripts ask.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Completions from "effect/cli/Completions"
import * as Effect from "effect/Effect"
import * as Completion from "../Completion.ts"
import * as Config from "../Config.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import { Screen } from "../Screen.ts"

/** `fsb-ctl completion` */
export const completion = Command.make(
  "completion",
  {
    shell: Argument.Literals("SHELL", ["bash", "zsh", "fish"]).pipe(
      Argument.withDescription("bash, zsh or fish")
    )
  },
  Effect.fnUntraced(function*({ shell }) {
    yield* (yield* Screen).data(Completion.scripts[shell])
  })
).pipe(
  Command.withShortDescription("Print a completion script for a shell"),
  Command.withDescription(
    "Prints a script that teaches a shell to complete fsb-ctl's commands and flags, and the names of sandboxes, pools, agents, images and contexts."
  ),
  Command.withExamples([
    { command: "source <(fsb-ctl completion bash)", description: "In ~/.bashrc" },
    { command: "source <(fsb-ctl completion zsh)", description: "In ~/.zshrc, after compinit" },
    { command: "fsb-ctl completion fish > ~/.config/fish/completions/fsb-ctl.fish", description: "For fish" }
  ]),
  Command.annotate(Operands, "bash|zsh|fish")
)

/** The flags of every command, as those of one, since the tree does not show them. */
const globals = Command.make("globals", Object.fromEntries(Globals.all.map(({ flag }, at) => [String(at), flag])))

/** Whoever waits for a completion has no patience. */
const DEADLINE = "2 seconds"

/** Flags of the words that decide which server is asked; the parser of the commands refuses lines that are not whole. */
const flagsOf = (words: ReadonlyArray<string>): Config.Flags => {
  const valueOf = (...names: ReadonlyArray<string>): string | undefined => {
    const at = words.findLastIndex((word) => names.includes(word))
    const attached = words.findLast((word) => names.some((name) => word.startsWith(`${name}=`)))
    return at >= 0 ? words[at + 1] : attached?.slice(attached.indexOf("=") + 1)
  }
  return {
    config: valueOf("--config"),
    endpoint: valueOf("--endpoint"),
    namespace: valueOf("--namespace", "-n"),
    context: valueOf("--context")
  }
}

const namesFrom = Effect.fnUntraced(function*(names: Completion.Names, settings: Config.Settings) {
  if (names === "context") return Object.keys(settings.contexts)
  const read = Sandboxes.use(({ agents, images, list, pools }): Effect.Effect<ReadonlyArray<string>, unknown> => {
    const nameOf = ({ name }: { readonly name: string }) => name
    const options = { deadline: DEADLINE } as const
    switch (names) {
      case "sandbox":
        return Effect.map(list(options), (all) => all.map(nameOf))
      case "pool":
        return Effect.map(pools.list(options), (all) => all.map(nameOf))
      case "agent":
        return Effect.map(agents.list(options), (all) => all.map(nameOf))
      case "image":
        return Effect.map(
          images.list(options),
          (all) => all.map(({ name }) => name.replace(/^docker\.io\/(library\/)?/, ""))
        )
    }
  })
  return yield* Effect.provide(read, Globals.connectionOf(settings))
})

/** Prints what may come next, a word and its description in each line. Without a server there are fewer words. */
export const complete = Effect.fnUntraced(function*(tree: Command.Command.Any, typed: ReadonlyArray<string>) {
  const screen = yield* Screen
  const { flags } = Completions.fromCommand(globals)
  const { candidates, files, names } = Completion.next(Completions.fromCommand(tree), flags, typed)
  const found = names === undefined ? [] : yield* Config.load(flagsOf(typed), process.env).pipe(
    Effect.flatMap((settings) => namesFrom(names, settings)),
    Effect.catchCause(() => Effect.succeed<ReadonlyArray<string>>([]))
  )
  yield* screen.data([
    ...candidates.map(({ description, word }) => `${word}\t${description}\n`),
    ...found.map((name) => `${name}\t\n`),
    ...(files ? [":files\n"] : [])
  ].join(""))
})
