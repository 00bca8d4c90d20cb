/**
 * `fsb-ctl up` and `fsb-ctl down`: the whole stack on this machine.
 */
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import * as Config from "../Config.ts"
import { LocalError } from "../Failure.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import { type LocalStack, readyFdVariable, type UpOptions } from "../LocalStack.ts"
import * as Progress from "../Progress.ts"
import { Screen } from "../Screen.ts"

const containerd = Flag.String("containerd").pipe(
  Flag.withMetavar("auto|own|SOCKET"),
  Flag.withDescription("auto: the machine's where it answers, else one of its own"),
  Flag.withDefault("auto")
)

const isChoice = (text: string): text is UpOptions["containerd"] =>
  text === "auto" || text === "own" || text.startsWith("/")

// the large half of fsb-ctl, which the commands that talk to a server do without
const loadStack: Effect.Effect<LocalStack, LocalError> = Effect.tryPromise({
  try: () => import("../OneMachine.ts"),
  catch: (cause) => new LocalError({ problem: `this build of fsb-ctl can't run the server: ${String(cause)}` })
}).pipe(Effect.map(({ stack }) => stack))

/** How long a stack in the background may take until it takes calls. */
const READY_WITHIN = "1 minute"

/** The pipe between a stack in the background and its starter. */
const READY_FD = 3

/** The end of the stack's log that is shown when it does not come up. */
const LOG_SHOWN_LINES = 5

const ready = (directory: string): string => {
  const endpoint = Config.defaultEndpoint(directory)
  const hint = directory === Config.DEFAULT_HOME ? "" : `; use it with --endpoint ${endpoint}`
  return `fast-sandbox is up at ${endpoint}${hint}\n`
}

const lastLines = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  const text = yield* Effect.orElseSucceed(files.readFileString(path), () => "")
  return text.trimEnd().split("\n").slice(-LOG_SHOWN_LINES).join("; ")
})

/** Starts this very program once more, as a process of its own session that outlives this one. */
const startDetached = Effect.fnUntraced(function*(directory: string, containerd: string) {
  const files = yield* FileSystem.FileSystem
  const log = `${directory}/log/stack.log`
  yield* files.makeDirectory(`${directory}/log`, { recursive: true }).pipe(
    Effect.mapError(({ message }) => new LocalError({ problem: `can't write below ${directory}: ${message}` }))
  )
  const [script = ""] = process.argv.slice(1)
  const up = Effect.callback<void, LocalError>((resume) => {
    const output = openSync(log, "a")
    const args = [...process.execArgv, script, "up", "--home", directory, "--containerd", containerd]
    const child = spawn(process.execPath, args, {
      detached: true,
      env: { ...process.env, [readyFdVariable]: String(READY_FD) },
      stdio: ["ignore", output, output, "pipe"]
    })
    closeSync(output)
    const fail = (problem: string) => resume(Effect.fail(new LocalError({ problem })))
    child.once("error", ({ message }) => fail(message))
    child.once("exit", (code, signal) => fail(`the stack ended at once (${signal ?? `code ${code}`})`))
    child.stdio[READY_FD]?.once("data", () => resume(Effect.void))
    return Effect.sync(() => child.unref())
  }).pipe(
    Effect.timeoutOrElse({
      duration: READY_WITHIN,
      orElse: () => Effect.fail(new LocalError({ problem: "the stack does not take calls after a minute" }))
    })
  )
  yield* up.pipe(
    Progress.spin("starting"),
    Effect.catchTag(
      "LocalError",
      ({ problem }) =>
        Effect.flatMap(
          lastLines(log),
          (lines) => Effect.fail(new LocalError({ problem: `${problem}; ${log} ends with: ${lines}` }))
        )
    )
  )
})

/** `fsb-ctl up` */
export const up = Command.make(
  "up",
  {
    detach: Flag.Boolean("detach").pipe(
      Flag.withAlias("d"),
      Flag.withDescription("Return when it takes calls, and leave it running"),
      Flag.withDefault(false),
      Flag.withoutNegation
    ),
    home: Globals.home,
    containerd
  },
  Effect.fnUntraced(function*({ containerd, detach, home }) {
    const screen = yield* Screen
    if (!isChoice(containerd)) {
      const problem = `${JSON.stringify(containerd)} is neither auto nor own nor the absolute path of a socket`
      return yield* new InvalidArgument({ field: "--containerd", problem })
    }
    const onReady = screen.talk(ready(home))
    if (detach) return yield* Effect.andThen(startDetached(home, containerd), onReady)
    const stack = yield* loadStack
    return yield* stack.up({ home, containerd, onReady })
  })
).pipe(
  Command.withShortDescription("Run everything on this machine"),
  Command.withDescription(
    "Runs controller, agent, janitor and a Kubernetes-style API server on this machine, without a cluster. Needs root."
  ),
  Command.withExamples([
    { command: "fsb-ctl up", description: "Until Ctrl-C" },
    { command: "fsb-ctl up --detach", description: "In the background; 'fsb-ctl down' stops it" }
  ]),
  Command.annotate(Operands, "")
)

/** `fsb-ctl down` */
export const down = Command.make(
  "down",
  {
    wipe: Flag.Boolean("wipe").pipe(
      Flag.withDescription("Remove sandboxes, images, logs and resources too"),
      Flag.withDefault(false),
      Flag.withoutNegation
    ),
    home: Globals.home
  },
  Effect.fnUntraced(function*({ home, wipe }) {
    const screen = yield* Screen
    const stack = yield* loadStack
    const wasUp = yield* stack.down({ home, wipe }).pipe(Progress.spin("stopping"))
    const gone = wipe ? `; ${home} is removed` : ""
    yield* screen.talk(`${wasUp ? "fast-sandbox is down" : `nothing ran in ${home}`}${gone}\n`)
  })
).pipe(
  Command.withShortDescription("Stop what 'up' started"),
  Command.withDescription(
    "Stops the stack of this machine. Its resources stay for the next 'up', unless --wipe is given."
  ),
  Command.withExamples([
    { command: "fsb-ctl down", description: "Stop it; the next 'up' goes on where it was" },
    { command: "fsb-ctl down --wipe", description: "Stop it and leave nothing behind" }
  ]),
  Command.annotate(Operands, "")
)
