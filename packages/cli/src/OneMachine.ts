/**
 * Joins the commands to `@fast-sandbox/local`: which programs of this build the stack starts, and how its failures read.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { version } from "@fast-sandbox/core/Version"
import * as FastPathPort from "@fast-sandbox/local/FastPathPort"
import * as Stack from "@fast-sandbox/local/Stack"
import * as Logs from "@fast-sandbox/telemetry/Logs"
import * as Tracing from "@fast-sandbox/telemetry/Tracing"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { writeSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { LocalError } from "./Failure.ts"
import { type LocalStack, readyFdVariable } from "./LocalStack.ts"

/**
 * The folder of this build: the agent's bundle and the native programs lie beside the script that runs. From a start-up
 * snapshot that script is named as it was typed, and agents have another working directory.
 */
const buildDirectory = (): string => dirname(resolve(process.argv[1] ?? ""))

const told = <A, R>(effect: Effect.Effect<A, { readonly message: string }, R>): Effect.Effect<A, LocalError, R> =>
  Effect.mapError(effect, ({ message }) => new LocalError({ problem: message.split("\n")[0] ?? message }))

/** Whoever started this stack in the background waits at the other end of a pipe. */
const tellStarter = Effect.sync(() => {
  const fd = Number(process.env[readyFdVariable])
  if (fd > 2) writeSync(fd, "\n")
})

/** The stack of this machine. */
export const stack: LocalStack = {
  up: ({ containerd, home, listen, onReady }) =>
    Layer.build(Stack.layer({
      home,
      containerd,
      listen: listen === undefined ? undefined : FastPathPort.addressOf(listen),
      agentCommand: [process.execPath, join(buildDirectory(), "agent.cjs")],
      loggerBinary: join(buildDirectory(), "fsb-logger"),
      idmapBinary: join(buildDirectory(), "fsb-idmap"),
      networkBinary: join(buildDirectory(), "fsb-network"),
      initBinary: join(buildDirectory(), "fsb-init")
    })).pipe(
      Effect.flatMap((context) => Effect.provide(Stack.firstAgent, context)),
      Effect.andThen(onReady),
      Effect.andThen(tellStarter),
      Effect.andThen(Effect.never),
      Effect.scoped,
      Effect.provide([NodeServices.layer, Logs.layer, Tracing.layer({ name: "fast-sandbox", version })]),
      told
    ),
  down: (options) => Stack.down(options).pipe(Effect.provide(NodeServices.layer), told)
}
