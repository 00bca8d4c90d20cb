/**
 * `fsb-ctl agent`: the programs that run sandboxes, one on each node or more.
 */
import { type AgentInfo, Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Output from "../Output.ts"
import * as PoolView from "../PoolView.ts"
import { Screen } from "../Screen.ts"

const name = Argument.String("NAME").pipe(Argument.withDescription("The agent"))

const list = Command.make(
  "list",
  {
    allNamespaces: Globals.allNamespaces("The agents of all namespaces"),
    pool: Flags.optionalText("pool", "POOL", "Only the agents of this pool")
  },
  Effect.fnUntraced(function*({ allNamespaces, pool }) {
    const { agents } = yield* Sandboxes
    const now = yield* DateTime.now
    const found = yield* agents.list({ pool: Option.getOrUndefined(pool), ...(allNamespaces ? { allNamespaces } : {}) })
    yield* Output.printAll(PoolView.agents({ now, namespaces: allNamespaces ? "all" : "one" }), found, {
      format: yield* Globals.format,
      whenEmpty: "no agents; 'fsb-ctl pool list -o wide' says why a pool has none"
    })
  })
).pipe(
  Command.withAlias("ls"),
  Command.withShortDescription("List agents"),
  Command.withDescription("Lists the agents of a namespace, of a pool, or all. SLOTS are used/total."),
  Command.withExamples([
    { command: "fsb-ctl agent list" },
    { command: "fsb-ctl agent ls --pool gpu -o wide", description: "With their nodes and what their runtime can do" }
  ]),
  Command.annotate(Operands, ""),
  Command.provide(Globals.connection)
)

const printChanged = Effect.fnUntraced(function*(agent: AgentInfo) {
  const now = yield* DateTime.now
  yield* Output.printChanged(PoolView.agents({ now, namespaces: "one" }), agent, {
    format: yield* Globals.OutputFormat,
    details: PoolView.agentDetails(now)
  })
})

const drain = Command.make(
  "drain",
  { name },
  Effect.fnUntraced(function*({ name }) {
    const { agents } = yield* Sandboxes
    const screen = yield* Screen
    const agent = yield* agents.drain(name)
    yield* printChanged(agent)
    const { used } = agent.slots
    yield* screen.talk(
      used === 0
        ? `${name} takes nothing more, and is removed in a moment\n`
        : `${name} takes nothing more, and is removed when its ${used} sandbox${
          used === 1 ? " has" : "es have"
        } ended\n`
    )
  })
).pipe(
  Command.withShortDescription("Take an agent out of use"),
  Command.withDescription(
    "The agent takes no new sandboxes. Those that it holds stay until they end; then it is removed, and replaced where its pool needs one."
  ),
  Command.withExamples([
    { command: "fsb-ctl agent drain default-pool-agent-x7k2p" },
    { command: "fsb-ctl agent resume default-pool-agent-x7k2p", description: "To take it back" }
  ]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)

const resume = Command.make(
  "resume",
  { name },
  Effect.fnUntraced(function*({ name }) {
    const { agents } = yield* Sandboxes
    yield* printChanged(yield* agents.resume(name))
  })
).pipe(
  Command.withShortDescription("Take a drain back"),
  Command.withDescription("The agent takes new sandboxes again."),
  Command.withExamples([{ command: "fsb-ctl agent resume default-pool-agent-x7k2p" }]),
  Command.annotate(Operands, "NAME"),
  Command.provide(Globals.connection)
)

/** `fsb-ctl agent` */
export const agents = Command.make("agent").pipe(
  Command.withShortDescription("List and drain the agents that run sandboxes"),
  Command.withDescription("An agent runs the sandboxes of one pool on one node."),
  Command.withSubcommands([list, drain, resume])
)
