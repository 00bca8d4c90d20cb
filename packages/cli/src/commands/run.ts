/**
 * `fsb-ctl run`
 */
import { type Created, type CreateOptions, Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import { InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Quantity from "@fast-sandbox/core/Quantity"
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import * as Argument from "effect/cli/Argument"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Attachment from "../Attachment.ts"
import * as Editor from "../Editor.ts"
import * as ExitCode from "../ExitCode.ts"
import { Declined, describe, Ended, LocalError, UsageError } from "../Failure.ts"
import * as Flags from "../Flags.ts"
import * as Globals from "../Globals.ts"
import { Operands } from "../Help.ts"
import * as Manifest from "../Manifest.ts"
import { TrailingOperands } from "../Operands.ts"
import * as Pairs from "../Pairs.ts"
import * as Progress from "../Progress.ts"
import * as Question from "../Question.ts"
import * as Relay from "../Relay.ts"
import * as SandboxView from "../SandboxView.ts"
import { Screen } from "../Screen.ts"
import * as Span from "../Span.ts"
import * as Terminal from "../Terminal.ts"
import * as TextInput from "../TextInput.ts"

/** How long an interrupted run waits for the program to stop and say its last words. */
const STOP_PATIENCE = "30 seconds"

const flags = {
  operands: Argument.String("NAME").pipe(
    Argument.withDescription("The sandbox's name, then -- and the program with its arguments"),
    Argument.variadic()
  ),
  image: Flags.optionalText("image", "IMAGE", "The container image"),
  pool: Flags.optionalText("pool", "POOL", "The pool that runs it; 'default-pool' by default"),
  mode: Flag.Literals("mode", Sandbox.ConsistencyMode.literals).pipe(
    Flag.withMetavar("MODE"),
    Flag.withDescription("fast: start first, then record it; strong: the other way round"),
    Flag.optional
  ),
  ports: Flag.String("ports").pipe(
    Flag.withMetavar("PORT,..."),
    Flag.withDescription("TCP ports that the program listens on"),
    Flag.atLeast(0)
  ),
  env: Flag.String("env").pipe(
    Flag.withAlias("e"),
    Flag.withMetavar("KEY[=VALUE]"),
    Flag.withDescription("An environment variable; KEY alone takes the value from here"),
    Flag.atLeast(0)
  ),
  workdir: Flags.optionalText("workdir", "DIR", "The directory that the program starts in").pipe(Flag.withAlias("w")),
  user: Flags.optionalText("user", "UID[:GID]", "Who the program is, by number; the image's user by default").pipe(
    Flag.withAlias("u")
  ),
  cpus: Flags.optionalText("cpus", "CORES", "At most this much of the processors: 0.5, 500m, 2"),
  memory: Flags.optionalText("memory", "SIZE", "At most this much memory: 512Mi, 2Gi").pipe(Flag.withAlias("m")),
  label: Flag.String("label").pipe(
    Flag.withAlias("l"),
    Flag.withMetavar("KEY=VALUE"),
    Flag.withDescription("A label, for list -l and delete -l"),
    Flag.atLeast(0)
  ),
  readOnly: Flags.presence("read-only", "Let it write to /tmp only, which is in memory then"),
  file: Flags.optionalText("file", "FILE", "Read a YAML file, or stdin (-); flags go before it").pipe(
    Flag.withAlias("f")
  ),
  ttl: Flags.optionalText("ttl", "TIME", "Stop it after this time: 90s, 15m, 1h30m"),
  failurePolicy: Flag.Literals("failure-policy", Sandbox.FailurePolicy.literals).pipe(
    Flag.withMetavar("POLICY"),
    Flag.withDescription("Manual: leave it when it fails; AutoRecreate: start it again"),
    Flag.optional
  ),
  remove: Flags.presence("rm", "Delete the sandbox when its program ends"),
  interactive: Flags.presence("interactive", "Give it what comes on stdin").pipe(Flag.withAlias("i")),
  tty: Flags.presence("tty", "Give it a terminal; Ctrl-P Ctrl-Q leaves it running").pipe(Flag.withAlias("t")),
  detach: Flags.presence("detach", "Print the name and leave it running").pipe(Flag.withAlias("d"))
}

type Flags = Command.Command.Config.Infer<typeof flags>

const refuse = (problem: string): UsageError => new UsageError({ command: "run", problem })

const flagged = <A>(field: string, result: Result.Result<A, string>): Effect.Effect<A, InvalidArgument> =>
  Effect.fromResult(Result.mapError(result, (problem) => new InvalidArgument({ field, problem })))

const PORT_MAX = 65535

/** `8080,9090`, given once or more. */
const parsePorts = (texts: ReadonlyArray<string>): Result.Result<ReadonlyArray<number>, string> => {
  const ports: Array<number> = []
  for (const text of texts.flatMap((list) => list.split(","))) {
    const port = Number(text)
    if (!/^\d+$/.test(text) || port < 1 || port > PORT_MAX) {
      return Result.fail(`${JSON.stringify(text)} is not a port from 1 to ${PORT_MAX}`)
    }
    if (ports.includes(port)) return Result.fail(`${port} is given twice`)
    ports.push(port)
  }
  return Result.succeed(ports)
}

const MILLIS_PER_SECOND = 1000

const parseTtl = (text: string): Result.Result<number, string> =>
  Option.match(Option.filter(Span.parse(text), (millis) => millis > 0), {
    onNone: () => Result.fail(`${JSON.stringify(text)} is not ${Span.FORM}`),
    onSome: (millis) => Result.succeed(Math.ceil(millis / MILLIS_PER_SECOND))
  })

/** `1000` or `1000:1000`. */
const parseUser = (text: string): Result.Result<Sandbox.SecurityContext, string> => {
  const [, uid, gid] = /^(\d+)(?::(\d+))?$/.exec(text) ?? []
  return uid === undefined
    ? Result.fail(`${JSON.stringify(text)} is neither UID nor UID:GID`)
    : Result.succeed({ runAsUser: Number(uid), ...(gid === undefined ? {} : { runAsGroup: Number(gid) }) })
}

/** A quantity of at least `least`, as it was written: the server keeps it so. `512m`, docker's megabytes, is half a byte. */
const parseQuantity = (text: string, least: number, form: string): Result.Result<string, string> =>
  Option.match(Option.filter(Quantity.parse(text), (amount) => amount >= least), {
    onNone: () => Result.fail(`${JSON.stringify(text)} is not ${form}`),
    onSome: () => Result.succeed(text)
  })

/** What the processor's time is counted in. */
const LEAST_CORES = 0.001

const LEAST_BYTES = 1

const whenAny = <A>(all: ReadonlyArray<A>): ReadonlyArray<A> | undefined => all.length === 0 ? undefined : all

const whenFilled = <A extends object>(all: A): A | undefined => Object.keys(all).length === 0 ? undefined : all

/** What the flags and operands ask for. */
const fromFlags = Effect.fnUntraced(function*(flags: Flags) {
  const trailing = yield* TrailingOperands
  const program = flags.operands.slice(flags.operands.length - trailing)
  const [name, extra] = flags.operands.slice(0, flags.operands.length - trailing)
  if (extra !== undefined) {
    return yield* refuse(`${JSON.stringify(extra)} is one operand too many; write -- before the program`)
  }
  const ports = yield* flagged("--ports", parsePorts(flags.ports))
  const envs = yield* flagged("--env", Pairs.environment(flags.env, process.env))
  const ttl = Option.isNone(flags.ttl) ? undefined : yield* flagged("--ttl", parseTtl(flags.ttl.value))
  const user = Option.isNone(flags.user) ? {} : yield* flagged("--user", parseUser(flags.user.value))
  const labels = yield* flagged("--label", Pairs.labels(flags.label))
  const resources: Sandbox.SandboxResources = {
    ...(Option.isNone(flags.cpus) ? {} : {
      cpu: yield* flagged("--cpus", parseQuantity(flags.cpus.value, LEAST_CORES, "an amount such as 0.5, 500m or 2"))
    }),
    ...(Option.isNone(flags.memory) ? {} : {
      memory: yield* flagged("--memory", parseQuantity(flags.memory.value, LEAST_BYTES, "a size such as 512Mi or 2Gi"))
    })
  }
  const securityContext = { ...user, ...(flags.readOnly ? { readOnlyRootFilesystem: true } : {}) }
  const asked: Manifest.Manifest = {
    name,
    image: Option.getOrUndefined(flags.image),
    pool: Option.getOrUndefined(flags.pool),
    consistencyMode: Option.getOrUndefined(flags.mode),
    exposedPorts: whenAny(ports),
    envs: flags.env.length === 0 ? undefined : envs,
    workingDir: Option.getOrUndefined(flags.workdir),
    ttlSeconds: ttl,
    failurePolicy: Option.getOrUndefined(flags.failurePolicy),
    args: whenAny(program),
    tty: flags.tty ? true : undefined,
    stdin: flags.interactive ? true : undefined,
    labels: whenFilled(labels),
    resources: whenFilled(resources),
    securityContext: whenFilled(securityContext)
  }
  return asked
})

const both = <A extends object>(file: A | undefined, asked: A | undefined): A | undefined =>
  file === undefined ? asked : { ...file, ...asked }

/** Flags go before the file; of environment variables, labels, limits and security contexts, both count. */
const merge = (file: Manifest.Manifest, asked: Manifest.Manifest): Manifest.Manifest => ({
  ...file,
  ...Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined)),
  envs: both(file.envs, asked.envs),
  labels: both(file.labels, asked.labels),
  resources: both(file.resources, asked.resources),
  securityContext: both(file.securityContext, asked.securityContext),
  ...(asked.ttlSeconds === undefined ? {} : { expireTime: undefined })
})

const readFile = Effect.fnUntraced(function*(path: string) {
  return yield* Manifest.parse(yield* TextInput.read(path)).pipe(
    Effect.mapError(({ line, problem }) => new LocalError({ problem: `${TextInput.nameOf(path)}:${line}: ${problem}` }))
  )
})

const summary = (options: CreateOptions): string =>
  [
    ["image", options.image],
    ["pool", options.pool],
    ["mode", options.consistencyMode],
    ["command", options.command?.join(" ")],
    ["args", options.args?.join(" ")],
    ["ports", options.exposedPorts?.join(", ")],
    ["envs", options.envs === undefined ? undefined : Object.keys(options.envs).join(", ")],
    ["directory", options.workingDir]
  ].flatMap(([key, value]) => value === undefined || value === "" ? [] : [`  ${key}: ${value}\n`]).join("")

const complete = (manifest: Manifest.Manifest): Effect.Effect<CreateOptions, UsageError> => {
  const { image } = manifest
  return image === undefined || image === ""
    ? Effect.fail(refuse("--image is missing; give it, or a file with -f"))
    : Effect.succeed({ ...manifest, image })
}

/** Lets the user write it, shows what was understood, and asks. */
const fromEditor = Effect.fnUntraced(function*(asked: Manifest.Manifest) {
  const screen = yield* Screen
  const { editor } = yield* Globals.settings
  const written = yield* Editor.write({
    editor: Editor.choose(editor?.value, process.env),
    home: process.env.HOME || "/root",
    name: asked.name ?? ""
  })
  const options = yield* complete(merge(written, asked))
  const called = options.name === undefined ? "a sandbox" : `sandbox ${options.name}`
  yield* screen.talk(`fsb-ctl is going to run ${called}:\n${summary(options)}`)
  if (!(yield* Question.confirm("Go on?"))) return yield* new Declined({ notice: "nothing was started" })
  return options
})

const gather = Effect.fnUntraced(function*(flags: Flags) {
  const asked = yield* fromFlags(flags)
  if (Option.isSome(flags.file)) return yield* complete(merge(yield* readFile(flags.file.value), asked))
  const { canAsk } = yield* Screen
  return asked.image === undefined && canAsk ? yield* fromEditor(asked) : yield* complete(asked)
})

/** One word about how fast it was. */
const started = ({ name, startup }: Created, millis: number): string =>
  `${name}: started in ${SandboxView.formatMillis(millis)}${startup === undefined ? "" : ` (${startup.tier})`}\n`

/** Where the time of the start went: the agent's steps, and what is left for the connection and the controller. */
const traced = ({ startup }: Created, millis: number): string => {
  const steps = startup?.steps ?? []
  const elsewhere = millis - steps.reduce((sum, step) => sum + step.millis, 0)
  return [...steps.map((step) => ({ ...step, where: "agent" })), {
    name: "elsewhere",
    millis: elsewhere,
    where: "connection and controller"
  }]
    .map(({ millis, name, where }) => `${millis.toFixed(1).padStart(8)} ms  ${name} (${where})\n`)
    .join("")
}

/**
 * The API stops a sandbox by its expiry. A moment ago, because the server's expiry has a resolution of one second and
 * this one is meant at once.
 */
const stop = Effect.fnUntraced(function*({ name, namespace }: Created) {
  const sandboxes = yield* Sandboxes
  const now = yield* DateTime.now
  yield* sandboxes.update(name, { namespace, expireTime: DateTime.subtract(now, { seconds: 1 }) })
})

/** Says why a cleanup did not happen, and goes on. */
const reported = <A, E extends Parameters<typeof describe>[0], R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catch(effect, (failure) => Effect.flatMap(Screen, (screen) => screen.complain(describe(failure))))

/** Follows the program to its end; an interruption stops it and still prints its last words. */
const attend = Effect.fnUntraced(function*(created: Created, { stdin }: CreateOptions, remove: boolean) {
  const sandboxes = yield* Sandboxes
  const screen = yield* Screen
  const { name, namespace } = created
  if (remove) yield* Effect.addFinalizer(() => reported(sandboxes.delete(name, { namespace })))
  const following = yield* Effect.forkScoped(
    stdin === true
      ? Attachment.follow(sandboxes.inside(name, { namespace }), {
        replay: true,
        hasStdin: true,
        closesStdin: true,
        hasTerminal: false,
        passesSignals: false
      })
      : Effect.flatMap(
        Relay.make("plain"),
        (relay) => Stream.runForEach(sandboxes.logs(name, { namespace, follow: true }), relay)
      )
  )
  const ended = yield* Fiber.join(following).pipe(
    Effect.andThen(sandboxes.wait(name, { namespace, for: terminal })),
    Effect.onInterrupt(() =>
      stop(created).pipe(
        Effect.andThen(Fiber.await(following)),
        Effect.timeoutOption(STOP_PATIENCE),
        reported
      )
    )
  )
  const exitCode = ExitCode.ofSandbox(ended)
  if (ended.phase !== "Succeeded" && ended.exitCode === undefined || ended.reason === "OOMKilled") {
    const why = ended.message || ended.reason
    yield* screen.talk(`${name}: ${ended.phase}${why === "" || why === ended.phase ? "" : `, ${why}`}\n`)
  }
  return exitCode
}, Effect.scoped)

/** The user's terminal is the program's, until it ends or the user leaves it. */
const attach = Effect.fnUntraced(function*(created: Created, options: CreateOptions, remove: boolean) {
  const sandboxes = yield* Sandboxes
  const screen = yield* Screen
  const { name, namespace } = created
  let isLeft = false
  if (remove) {
    yield* Effect.addFinalizer(() => isLeft ? Effect.void : reported(sandboxes.delete(name, { namespace })))
  }
  const outcome = yield* Attachment.follow(sandboxes.inside(name, { namespace }), {
    replay: true,
    hasStdin: options.stdin === true,
    closesStdin: false,
    hasTerminal: true,
    passesSignals: true
  })
  isLeft = outcome === "left"
  if (isLeft) {
    yield* screen.talk(`\n${name} goes on; 'fsb-ctl attach ${name}' comes back to it\n`)
    return ExitCode.SUCCESS
  }
  return ExitCode.ofSandbox(yield* sandboxes.wait(name, { namespace, for: terminal }))
}, Effect.scoped)

const report = Effect.fnUntraced(function*({ name, namespace }: Created) {
  const format = yield* Globals.OutputFormat
  const screen = yield* Screen
  if (Option.isNone(format)) return yield* screen.data(`${name}\n`)
  const sandboxes = yield* Sandboxes
  yield* SandboxView.printChanged(yield* sandboxes.get(name, { namespace }), format)
})

/** `fsb-ctl run` */
export const run = Command.make(
  "run",
  flags,
  Effect.fnUntraced(function*(flags) {
    const options = yield* gather(flags)
    if (flags.remove && flags.detach) {
      return yield* refuse("--rm and --detach exclude each other; --ttl ends it by time")
    }
    if (options.stdin === true && options.tty === true && !flags.detach && !Terminal.hasKeyboard()) {
      return yield* refuse("stdin is no terminal; leave --tty away")
    }
    const sandboxes = yield* Sandboxes
    const screen = yield* Screen
    const [duration, created] = yield* sandboxes.create(options).pipe(
      Progress.spin(`starting ${options.image}`),
      Effect.timed
    )
    yield* screen.talk(started(created, Duration.toMillis(duration)))
    if (yield* Globals.Traced) yield* screen.talk(traced(created, Duration.toMillis(duration)))
    if (flags.detach) return yield* report(created)
    const exitCode = yield* options.tty === true
      ? attach(created, options, flags.remove)
      : attend(created, options, flags.remove)
    if (exitCode !== ExitCode.SUCCESS) return yield* new Ended({ exitCode })
  })
).pipe(
  Command.withShortDescription("Run a program in a sandbox"),
  Command.withDescription(
    "Runs a program in a new sandbox, prints what it prints, and ends with its exit code. Ctrl-C stops it. With neither --image nor a file, on a terminal, it opens an editor on a template."
  ),
  Command.withExamples([
    { command: "fsb-ctl run --rm --image alpine -- echo hello", description: "Run a program and leave nothing behind" },
    {
      command: "fsb-ctl run web -d --image nginx --ports 80 --ttl 1h",
      description: "A server for an hour, in the background"
    },
    { command: "fsb-ctl run -it --rm --image alpine -- sh", description: "A shell in a sandbox of its own" },
    { command: "fsb-ctl run -i --rm --image alpine -- sort <names", description: "A program in a pipe" },
    { command: "fsb-ctl run job -f job.yaml -e TOKEN -- ./job --fast", description: "From a file, with changes" },
    { command: "fsb-ctl run web", description: "Write it in the editor" }
  ]),
  Command.annotate(Operands, "[NAME] [-- PROGRAM ARGS...]"),
  Command.provide(Globals.connection)
)
