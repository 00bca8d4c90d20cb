/**
 * fsb-ctl: puts the commands together and runs the one that the command line names.
 */
import * as NodeChildProcessSpawner from "@effect/platform-node/NodeChildProcessSpawner"
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import * as NodeStdio from "@effect/platform-node/NodeStdio"
import * as Version from "@fast-sandbox/core/Version"
import * as Collector from "@fast-sandbox/telemetry/Collector"
import * as CliConfig from "effect/cli/CliConfig"
import * as Command from "effect/cli/Command"
import * as GlobalFlag from "effect/cli/GlobalFlag"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Terminal } from "effect/Terminal"
import { agents } from "./commands/agent.ts"
import { attach } from "./commands/attach.ts"
import { complete, completion } from "./commands/completion.ts"
import { config } from "./commands/config.ts"
import { cp } from "./commands/cp.ts"
import { prune, remove } from "./commands/delete.ts"
import { describe } from "./commands/describe.ts"
import { doctor } from "./commands/doctor.ts"
import { events } from "./commands/events.ts"
import { exec } from "./commands/exec.ts"
import { get } from "./commands/get.ts"
import { images } from "./commands/image.ts"
import { list } from "./commands/list.ts"
import { logs } from "./commands/logs.ts"
import { pools } from "./commands/pool.ts"
import { portForward } from "./commands/port-forward.ts"
import { reset } from "./commands/reset.ts"
import { run } from "./commands/run.ts"
import { stats } from "./commands/stats.ts"
import { top } from "./commands/top.ts"
import { down, up } from "./commands/up.ts"
import { update } from "./commands/update.ts"
import { version } from "./commands/version.ts"
import { wait } from "./commands/wait.ts"
import * as Globals from "./Globals.ts"
import * as Help from "./Help.ts"
import { countTrailing, TrailingOperands } from "./Operands.ts"
import * as Process from "./Process.ts"
import { Screen } from "./Screen.ts"

const fsbCtl = Command.make("fsb-ctl").pipe(
  Command.withDescription("Runs programs in sandboxes that start in milliseconds, on this machine or on a cluster."),
  Command.withExamples([
    { command: "fsb-ctl up --detach", description: "Once: run the server on this machine" },
    { command: "fsb-ctl run --rm --image alpine -- echo hello", description: "Run a program" }
  ]),
  Command.withSubcommands([
    { group: "Sandboxes", commands: [run, list, get, describe, logs, events, wait, update, reset, remove, prune] },
    { group: "Inside of a sandbox", commands: [exec, attach, cp, portForward, stats, top] },
    { group: "What runs them", commands: [pools, agents, images] },
    { group: "This machine", commands: [up, down, doctor] },
    { group: "fsb-ctl itself", commands: [config, completion, version] }
  ]),
  Command.provide(Globals.presentation),
  Command.withGlobalFlags(Globals.all)
)

/**
 * Without a terminal of Effect's: the commands have prompts of their own, and it would open stdin, which costs every call
 * some milliseconds.
 */
const services = Layer.mergeAll(
  Help.layer,
  CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version] }),
  NodeStdio.layer,
  Layer.mock(Terminal)({ "~effect/Terminal": "~effect/Terminal" }),
  NodeChildProcessSpawner.layer.pipe(Layer.provideMerge(Layer.merge(NodeFileSystem.layer, NodePath.layer)))
)

/** What the scripts of the shells ask; its words are no command line yet. */
const COMPLETE = "__complete"

/** What a command line asks for, shown on the screen that is given. */
export const programOf = (args: ReadonlyArray<string>) => {
  const program = args[0] === COMPLETE
    ? complete(fsbCtl, args.slice(1))
    : Command.runWith(fsbCtl, { version: Version.version })(args)
  return program.pipe(
    Effect.provide(services),
    Effect.provideService(TrailingOperands, countTrailing(args))
  )
}

/** One trace for the whole command, where a collector of traces is named; what sends it is loaded only then. */
const traced = <A, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.suspend(() =>
    Collector.isNamed(process.env)
      ? Effect.promise(() => import("@fast-sandbox/telemetry/Tracing")).pipe(
        Effect.flatMap(({ layer }) =>
          self.pipe(
            Effect.withSpan("fsb-ctl", { kind: "client" }),
            Effect.provide(layer({ name: "fsb-ctl", version: Version.version }))
          )
        )
      )
      : self
  )

/** Does what the command line asks for, and ends the process. */
export const main = (args: ReadonlyArray<string>): void =>
  Process.run(traced(Effect.provide(programOf(args), Screen.layer)))
