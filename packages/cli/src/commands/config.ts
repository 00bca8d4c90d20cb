/**
 * `fsb-ctl config`
 */
import * as Endpoint from "@fast-sandbox/client/Endpoint"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Config from "../Config.ts"
import * as ConfigStore from "../ConfigStore.ts"
import { LocalError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as KubernetesTarget from "../KubernetesTarget.ts"
import * as Output from "../Output.ts"
import { Screen } from "../Screen.ts"
import type * as Table from "../Table.ts"

interface Row {
  readonly key: string
  readonly value: string
  readonly from: string
}

const columns: ReadonlyArray<Table.Column<Row>> = [
  { heading: "KEY", cell: ({ key }) => key },
  { heading: "VALUE", cell: ({ value }) => value, narrow: "wrap" },
  { heading: "FROM", cell: ({ from }) => from, narrow: "wrap" }
]

const rows: Output.View<Row> = {
  columns,
  wideColumns: [],
  name: ({ key }) => key,
  object: (row) => row
}

const view = Command.make(
  "view",
  {},
  Effect.fnUntraced(function*() {
    const { context, editor, namespace, server, tls, token } = yield* Globals.settings
    const { from, value } = server
    const all: ReadonlyArray<Row> = [
      typeof value === "string"
        ? { key: "endpoint", value, from }
        : { key: "kubernetes", value: KubernetesTarget.describe(value), from },
      { key: "namespace", ...namespace },
      ...(context === undefined ? [] : [{ key: "context", ...context }]),
      ...(token === undefined ? [] : [{ key: "token", ...token, value: "(hidden)" }]),
      ...(tls === undefined ? [] : [{ key: "tls", ...tls, value: Object.keys(tls.value).join(", ") || "yes" }]),
      ...(editor === undefined ? [] : [{ key: "editor", ...editor }])
    ]
    const format = yield* Globals.format
    yield* Output.isObjectForm(format)
      ? Output.printObject(format, Object.fromEntries(all.map(({ key, value }) => [key, value])))
      : Output.printAll(rows, all, { format, whenEmpty: "" })
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

interface NamedContext extends Config.Context {
  readonly name: string
  readonly current: boolean
}

const contexts: Output.View<NamedContext> = {
  columns: [
    { heading: "CURRENT", cell: ({ current }) => current ? "*" : "" },
    { heading: "NAME", cell: ({ name }) => name },
    {
      heading: "SERVER",
      cell: ({ endpoint, kubernetes }) =>
        endpoint ?? (kubernetes === undefined ? "" : KubernetesTarget.describe(kubernetes))
    },
    { heading: "NAMESPACE", cell: ({ namespace }) => namespace ?? "" }
  ],
  wideColumns: [{ heading: "TOKEN", cell: ({ token }) => token === undefined ? "" : "(hidden)" }],
  name: ({ name }) => `context/${name}`,
  object: ({ token, ...context }) => ({ ...context, ...(token === undefined ? {} : { token: "(hidden)" }) })
}

const getContexts = Command.make(
  "get-contexts",
  {},
  Effect.fnUntraced(function*() {
    const settings = yield* Globals.settings
    const all = Object.entries(settings.contexts).map(([name, context]) => ({
      ...context,
      name,
      current: settings.context?.value === name
    }))
    yield* Output.printAll(contexts, all, {
      format: yield* Globals.format,
      whenEmpty: "no contexts; 'fsb-ctl config set contexts.NAME.endpoint ADDRESS' makes one"
    })
  })
).pipe(
  Command.withShortDescription("List the contexts"),
  Command.withDescription("Lists the contexts that the configuration defines. The one that applies has a star."),
  Command.withExamples([{ command: "fsb-ctl config get-contexts" }]),
  Command.annotate(Operands, "")
)

const local = Flags.presence("local", `Change ./${Config.FILE} instead of ~/${Config.FILE}`)

/** The file that is changed. */
const target = Effect.fnUntraced(function*(isLocal: boolean) {
  const chosen = yield* Globals.ConfigPath
  if (Option.isSome(chosen)) return chosen.value
  if (isLocal) return Config.FILE
  const { HOME } = process.env
  return HOME
    ? `${HOME}/${Config.FILE}`
    : yield* new LocalError({ problem: "HOME is not set; say which file with --config or --local" })
})

const key = Argument.String("KEY").pipe(Argument.withDescription("Such as namespace or contexts.prod.endpoint"))

/** Names of contexts may hold dots, their keys do not. */
const pathOf = (key: string): ReadonlyArray<string> => {
  const [, name, rest] = /^contexts\.(.+?)\.((?:kubernetes|tls)\.[^.]+|[^.]+)$/.exec(key) ?? []
  return name === undefined || rest === undefined ? key.split(".") : ["contexts", name, ...rest.split(".")]
}

const set = Command.make(
  "set",
  { key, value: Argument.String("VALUE").pipe(Argument.withDescription("The value")), local },
  Effect.fnUntraced(function*({ key, local, value }) {
    const screen = yield* Screen
    const file = yield* target(local)
    const path = pathOf(key)
    // what is in a file already is refused only where it is used, so that it can be set right here
    if (path.at(-1) === "endpoint") yield* Effect.fromResult(Endpoint.parse(value))
    yield* ConfigStore.change(file, (config) => Effect.succeed(ConfigStore.withKey(config, path, value)))
    yield* screen.talk(`${key} is set in ${file}\n`)
  })
).pipe(
  Command.withShortDescription("Set a value"),
  Command.withDescription(
    "Sets a value of the configuration: endpoint, namespace, token, editor, context, tls.KEY, kubernetes.KEY, or one of these under contexts.NAME."
  ),
  Command.withExamples([
    { command: "fsb-ctl config set namespace team-a" },
    { command: "fsb-ctl config set contexts.prod.endpoint 10.0.0.7:9090", description: "A context with an endpoint" },
    {
      command: "fsb-ctl config set contexts.prod.kubernetes.context prod-admin",
      description: "One that goes through a cluster's Kubernetes API"
    }
  ]),
  Command.annotate(Operands, "KEY VALUE")
)

/** A context that goes can't be the chosen one any more. */
const withoutChoice = (config: Config.ConfigFile, key: string) =>
  key === `contexts.${config.context}` ? ConfigStore.withKey(config, ["context"], undefined) : config

const unset = Command.make(
  "unset",
  { key, local },
  Effect.fnUntraced(function*({ key, local }) {
    const screen = yield* Screen
    const file = yield* target(local)
    const path = pathOf(key)
    yield* ConfigStore.change(file, (config) =>
      ConfigStore.hasKey(config, path)
        ? Effect.succeed(ConfigStore.withKey(withoutChoice(config, key), path, undefined))
        : Effect.fail(new LocalError({ problem: `${file} has no ${key}; see 'fsb-ctl config view'` })))
    yield* screen.talk(`${key} is gone from ${file}\n`)
  })
).pipe(
  Command.withShortDescription("Remove a value"),
  Command.withDescription("Removes a value from the configuration, or a whole context."),
  Command.withExamples([
    { command: "fsb-ctl config unset editor" },
    { command: "fsb-ctl config unset contexts.prod", description: "A whole context" }
  ]),
  Command.annotate(Operands, "KEY")
)

const useContext = Command.make(
  "use-context",
  { name: Argument.String("NAME").pipe(Argument.withDescription("The context")), local },
  Effect.fnUntraced(function*({ local, name }) {
    const screen = yield* Screen
    const { contexts } = yield* Globals.settings
    if (!Object.hasOwn(contexts, name)) {
      return yield* new LocalError({
        problem: `there is no context ${JSON.stringify(name)}; 'fsb-ctl config get-contexts' shows those there are`
      })
    }
    const file = yield* target(local)
    yield* ConfigStore.change(file, (config) => Effect.succeed({ ...config, context: name }))
    yield* screen.talk(`context ${name} applies from now on\n`)
  })
).pipe(
  Command.withShortDescription("Choose a context"),
  Command.withDescription("Chooses the context that applies where no flag and no variable says otherwise."),
  Command.withExamples([{ command: "fsb-ctl config use-context prod" }]),
  Command.annotate(Operands, "NAME")
)

/** `fsb-ctl config` */
export const config = Command.make("config").pipe(
  Command.withShortDescription("Look at the configuration, and change it"),
  Command.withDescription(
    "Configuration is JSON with the keys endpoint or kubernetes, namespace, token, tls, editor, context, and contexts: names with an endpoint or kubernetes, namespace, token and tls each."
  ),
  Command.withSubcommands([view, getContexts, useContext, set, unset])
)
