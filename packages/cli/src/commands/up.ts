/**
 * `fsb-ctl up` and `fsb-ctl down`: the whole stack on this machine.
 */
import * as Endpoint from "@fast-sandbox/client/Endpoint"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import * as Config from "../Config.ts"
import { LocalError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
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

const listen = Flags.optionalText(
  "listen",
  "HOST:PORT",
  "Also take calls there: TLS, for who has a token; see client.json in the home"
)

/** Where to listen beside the socket: what a client would connect to. */
const listenOf = (text: string): Result.Result<string, InvalidArgument> => {
  const address = Endpoint.parse(text)
  return Result.isSuccess(address) && !address.success.startsWith("unix:") ? address : Result.fail(
    new InvalidArgument({
      field: "--listen",
      problem: `${JSON.stringify(text)} must be host:port, such as 127.0.0.1:9090`
    })
  )
}

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

const ready = (directory: string, listen: string | undefined): string => {
  const endpoint = Config.defaultEndpoint(directory)
  const hint = directory === Config.DEFAULT_HOME ? "" : `; use it with --endpoint ${endpoint}`
  const port = listen === undefined ? "" : `and at ${listen}: use it with --config ${directory}/client.json\n`
  return `fast-sandbox is up at ${endpoint}${hint}\n${port}`
}

const lastLines = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  const text = yield* Effect.orElseSucceed(files.readFileString(path), () => "")
  return text.trimEnd().split("\n").slice(-LOG_SHOWN_LINES).join("; ")
})

/** Starts this very program once more, as a process of its own session that outlives this one. */
const startDetached = Effect.fnUntraced(function*(
  directory: string,
  containerd: string,
  listen: string | undefined
) {
  const files = yield* FileSystem.FileSystem
  const log = `${directory}/log/stack.log`
  yield* files.makeDirectory(`${directory}/log`, { recursive: true }).pipe(
    Effect.mapError(({ message }) => new LocalError({ problem: `can't write below ${directory}: ${message}` }))
  )
  const [script = ""] = process.argv.slice(1)
  const up = Effect.callback<void, LocalError>((resume) => {
    const output = openSync(log, "a")
    const args = [...process.execArgv, script, "up", "--home", directory, "--containerd", containerd]
    if (listen !== undefined) args.push("--listen", listen)
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
    detach: Flags.presence("detach", "Return when it takes calls, and leave it running").pipe(Flag.withAlias("d")),
    home: Globals.home,
    containerd,
    listen
  },
  Effect.fnUntraced(function*({ containerd, detach, home, listen }) {
    const screen = yield* Screen
    if (!isChoice(containerd)) {
      const problem = `${JSON.stringify(containerd)} is neither auto nor own nor the absolute path of a socket`
      return yield* new InvalidArgument({ field: "--containerd", problem })
    }
    const address = Option.isNone(listen) ? undefined : yield* Effect.fromResult(listenOf(listen.value))
    const onReady = screen.talk(ready(home, address))
    if (detach) return yield* Effect.andThen(startDetached(home, containerd, address), onReady)
    const stack = yield* loadStack
    return yield* stack.up({ home, containerd, listen: address, onReady })
  })
).pipe(
  Command.withShortDescription("Run everything on this machine"),
  Command.withDescription(
    "Runs controller, agent, janitor and a Kubernetes-style API server on this machine, without a cluster. Needs root."
  ),
  Command.withExamples([
    { command: "fsb-ctl up", description: "Until Ctrl-C" },
    { command: "fsb-ctl up --detach", description: "In the background; 'fsb-ctl down' stops it" },
    { command: "fsb-ctl up --listen 127.0.0.1:9090", description: "Also on a TCP port, with TLS and a token" }
  ]),
  Command.annotate(Operands, "")
)

/** `fsb-ctl down` */
export const down = Command.make(
  "down",
  {
    wipe: Flags.presence("wipe", "Remove sandboxes, images, logs and resources too"),
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
