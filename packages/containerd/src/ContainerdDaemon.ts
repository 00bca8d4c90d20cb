/**
 * A containerd of one's own: everything it keeps (content, state, socket, log) lies under one directory, so that it
 * disturbs no other containerd of the machine. It outlives the program that starts it, is found again through its pid
 * file and socket, and is stopped by an explicit call that first ends everything it runs.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as ContainerdClient from "./ContainerdClient.ts"
import { ignoreNotFound } from "./ContainerdError.ts"
import { type CommandError, run } from "./internal/command.ts"
import * as MachineSetup from "./MachineSetup.ts"
import * as Proc from "./Proc.ts"
import { binaryDirectories } from "./RuntimeProfile.ts"
import { runtimeState } from "./ShimRuntime.ts"

/** containerd could not be started, or does not answer. `log` are the last lines of its log. */
export class DaemonError extends Schema.TaggedError<DaemonError>()("DaemonError", {
  directory: Schema.String,
  problem: Schema.String,
  log: Schema.String
}) {
  override get message(): string {
    return `containerd in ${this.directory}: ${this.problem}${this.log === "" ? "" : `\n${this.log}`}`
  }
}

/** How to run it. */
export interface DaemonOptions {
  /** Absolute; made if it is not there. */
  readonly directory: string
  /** Whether images can be pulled (containerd's CRI plugin, 20 ms and 20 MB). */
  readonly pullsImages?: boolean | undefined
}

/** A running containerd. */
export interface Daemon {
  readonly directory: string
  readonly socket: string
  readonly pid: number
  /** Where the OCI runtimes are bound read-only: `<runtimeDirectory>/crun`. */
  readonly runtimeDirectory: string
}

const pathsOf = (directory: string) => ({
  root: `${directory}/root`,
  state: `${directory}/state`,
  socket: `${directory}/containerd.sock`,
  config: `${directory}/config.toml`,
  log: `${directory}/containerd.log`,
  pid: `${directory}/containerd.pid`,
  runtimes: `${directory}/runtimes`
})

/** Plugins that have nothing to do for sandboxes; the last three make up the CRI in containerd 2. */
const unusedPlugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing",
  "io.containerd.tracing.processor.v1.otlp"
]
const criPlugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]

// Collecting garbage blocks all writes, so it must not follow every single deletion.
const configOf = (options: DaemonOptions): string => {
  const paths = pathsOf(options.directory)
  const disabled = options.pullsImages === true ? unusedPlugins : [...criPlugins, ...unusedPlugins]
  return `version = 2
root = ${JSON.stringify(paths.root)}
state = ${JSON.stringify(paths.state)}
disabled_plugins = ${JSON.stringify(disabled)}
[grpc]
  address = ${JSON.stringify(paths.socket)}
[plugins."io.containerd.gc.v1.scheduler"]
  pause_threshold = 0.02
  deletion_threshold = 64
  mutation_threshold = 2000
  schedule_delay = "500ms"
  startup_delay = "100ms"
`
}

/** The runtimes that are bound read-only, where they are installed. */
const runtimeNames = ["crun", "runc"]

/**
 * Starts containerd in a session of its own, and returns when it has one: until then it would be killed together with
 * this script. `$1` is the configuration, `$2` the log, `$3` the pid file. The variable tells runc-like runtimes that they
 * run from a copy that can't be overwritten, which the read-only bind makes true.
 */
const startScript = `
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; export PATH
rm -f "$3"
setsid sh -c 'echo $$ >"$3.new" && mv "$3.new" "$3"
  _LIBCONTAINER_CLONED_BINARY=1 exec containerd --config "$1" >>"$2" 2>&1 </dev/null' sh "$@" >/dev/null 2>&1 &
tries=500
while [ ! -e "$3" ] && [ $tries -gt 0 ]; do sleep 0.01; tries=$((tries - 1)); done
`

/** 20 ms apart for 20 s: it is up in 0.1 s, but a loaded machine may take long to replay its database. */
const untilUp = Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "20 seconds" }))
/** 20 ms apart for 10 s. */
const untilGone = Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))

const logLines = 20

const logOf = Effect.fnUntraced(function*(directory: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const text = yield* Effect.orElseSucceed(fileSystem.readFileString(pathsOf(directory).log), () => "")
  return text.trimEnd().split("\n").slice(-logLines).join("\n")
})

const isAlive = (pid: number, directory: string) =>
  Effect.map(Proc.argsOf(pid), (args) => args.includes(pathsOf(directory).config))

/** Whether the process of the pid file is there, even while it has no command line because it is being replaced. */
const exists = Effect.fnUntraced(function*(directory: string) {
  const fileSystem = yield* FileSystem.FileSystem
  return yield* fileSystem.readFileString(pathsOf(directory).pid).pipe(
    Effect.flatMap((pid) => fileSystem.exists(`/proc/${pid.trim()}`)),
    Effect.orElseSucceed(() => false)
  )
})

const answers = (directory: string) =>
  Effect.gen(function*() {
    const { options, raw } = yield* ContainerdClient.make({ socket: pathsOf(directory).socket, namespace: "default" })
    yield* raw.version.version({}, options.call)
  }).pipe(Effect.scoped)

/** The containerd of a directory, if its process lives. */
export const find = Effect.fn("ContainerdDaemon.find")(function*(
  directory: string
): Effect.fn.Return<Daemon | undefined, never, FileSystem.FileSystem> {
  const fileSystem = yield* FileSystem.FileSystem
  const paths = pathsOf(directory)
  const pid = Number(yield* Effect.orElseSucceed(fileSystem.readFileString(paths.pid), () => "0"))
  return pid > 0 && (yield* isAlive(pid, directory))
    ? { directory, socket: paths.socket, pid, runtimeDirectory: paths.runtimes }
    : undefined
})

/**
 * Starts it, or finds it running; either way it answers when this returns. It outlives the caller. The machine's cgroups
 * and runtimes are prepared (see `MachineSetup`), which {@link stop} undoes.
 */
export const start = Effect.fn("ContainerdDaemon.start")(function*(
  options: DaemonOptions
): Effect.fn.Return<
  Daemon,
  DaemonError | CommandError | PlatformError.PlatformError,
  MachineSetup.System
> {
  const fileSystem = yield* FileSystem.FileSystem
  const { directory } = options
  const paths = pathsOf(directory)
  const fail = (problem: string) =>
    Effect.flatMap(logOf(directory), (log) => Effect.fail(new DaemonError({ directory, problem, log })))
  if ((yield* find(directory)) === undefined) {
    yield* fileSystem.makeDirectory(paths.runtimes, { recursive: true })
    yield* MachineSetup.loadOverlay
    yield* MachineSetup.prepareCgroups(directory)
    for (const name of runtimeNames) {
      const binary = yield* Effect.findFirst(
        binaryDirectories.map((directory) => `${directory}/${name}`),
        (path) => fileSystem.exists(path)
      )
      if (binary._tag === "Some") {
        yield* MachineSetup.bindReadOnly(binary.value, `${paths.runtimes}/${name}`)
      }
    }
    yield* fileSystem.writeFileString(paths.config, configOf(options))
    // A shell in between, so that containerd is nobody's child and outlives us.
    yield* run("sh", "-c", startScript, "sh", paths.config, paths.log, paths.pid)
  }
  yield* answers(directory).pipe(
    Effect.retry({
      schedule: untilUp,
      while: () => exists(directory)
    }),
    Effect.catchTag("GrpcError", (error) => fail(`it does not answer: ${error.details}`))
  )
  const daemon = yield* find(directory)
  return daemon ?? (yield* fail("it ended"))
})

/** How long a containerd that died stays unnoticed: it is nobody's child, so nobody is told. A look takes 0.1 ms. */
const lookPeriod = "500 millis"

/** Starts it as {@link start} does, and again whenever it dies, for as long as the scope is open. */
export const keep = Effect.fn("ContainerdDaemon.keep")(function*(
  options: DaemonOptions
): Effect.fn.Return<
  Daemon,
  DaemonError | CommandError | PlatformError.PlatformError,
  MachineSetup.System | Scope.Scope
> {
  const daemon = yield* start(options)
  yield* find(options.directory).pipe(
    Effect.tap((found) =>
      found === undefined
        ? Effect.logWarning("containerd has died and is started again").pipe(
          Effect.annotateLogs({ directory: options.directory }),
          Effect.andThen(start(options)),
          Effect.catch((error) => Effect.logError(error.message))
        )
        : Effect.void
    ),
    Effect.repeat(Schedule.spaced(lookPeriod)),
    Effect.forkScoped
  )
  return daemon
})

const SIGTERM = "SIGTERM"
const SIGKILL = "SIGKILL"

const signal = (pid: number, name: "SIGTERM" | "SIGKILL"): Effect.Effect<void> =>
  // Fails only when the process is gone, which is what is wanted.
  Effect.ignore(Effect.try(() => process.kill(pid, name)))

const SIGNAL_KILL = 9

/** Ends and deletes every task of every namespace. */
const removeTasks = Effect.fnUntraced(function*(socket: string) {
  const lister = yield* ContainerdClient.make({ socket, namespace: "default" })
  const { namespaces } = yield* lister.raw.namespaces.list({}, lister.options.call)
  for (const namespace of namespaces) {
    const { options, raw } = yield* ContainerdClient.make({ socket, namespace: namespace.name })
    const { tasks } = yield* raw.tasks.list({}, options.call)
    yield* Effect.forEach(
      tasks,
      ({ id: containerId }) =>
        raw.tasks.kill({ containerId, signal: SIGNAL_KILL, all: true }, options.call).pipe(
          Effect.exit,
          Effect.andThen(raw.tasks.wait({ containerId }, options.call)),
          Effect.andThen(raw.tasks.delete({ containerId }, options.call)),
          ContainerdClient.named("ContainerdDaemon.stop"),
          ignoreNotFound,
          Effect.ignore({ log: "Warn" })
        ),
      { concurrency: 4, discard: true }
    )
  }
  return namespaces.map(({ name }) => name)
}, Effect.scoped)

const unixScheme = "unix://"

/**
 * The sockets of its shims, which all containerds of a machine keep in one folder. Each bundle names its shim's; a shim
 * removes its own when it ends by itself, not when it is killed.
 */
const shimSockets = Effect.fnUntraced(function*(state: string) {
  const fileSystem = yield* FileSystem.FileSystem
  const entries = (directory: string) =>
    Effect.orElseSucceed(
      Effect.map(fileSystem.readDirectory(directory), (names) => names.map((name) => `${directory}/${name}`)),
      (): ReadonlyArray<string> => []
    )
  const namespaces = yield* entries(`${state}/io.containerd.runtime.v2.task`)
  const bundles = (yield* Effect.forEach(namespaces, entries)).flat()
  const addresses = yield* Effect.forEach(
    bundles,
    (bundle) => Effect.orElseSucceed(fileSystem.readFileString(`${bundle}/address`), () => "")
  )
  return new Set(
    addresses.filter((address) => address.startsWith(unixScheme)).map((address) =>
      address.slice(unixScheme.length).trim()
    )
  )
})

/**
 * Ends all tasks, containerd and what is left of its shims, unmounts everything below the directory and gives the
 * machine's cgroups back. Images stay for the next {@link start}. Safe to repeat, and after a crash.
 */
export const stop = Effect.fn("ContainerdDaemon.stop")(function*(
  directory: string
): Effect.fn.Return<void, PlatformError.PlatformError, MachineSetup.System> {
  const fileSystem = yield* FileSystem.FileSystem
  const paths = pathsOf(directory)
  const daemon = yield* find(directory)
  const sockets = yield* shimSockets(paths.state)
  const namespaces = daemon === undefined
    ? []
    : yield* Effect.orElseSucceed(removeTasks(paths.socket), (): ReadonlyArray<string> => [])
  if (daemon !== undefined) {
    yield* signal(daemon.pid, SIGTERM)
    const isGone = yield* find(directory).pipe(
      Effect.repeat({ schedule: untilGone, until: (found) => found === undefined }),
      Effect.map((found) => found === undefined)
    )
    yield* isGone ? Effect.void : signal(daemon.pid, SIGKILL)
  }
  yield* Effect.forEach(yield* Proc.shims(paths.socket), ({ pid }) => signal(pid, SIGKILL), { discard: true })
  yield* Effect.forEach(sockets, (socket) => fileSystem.remove(socket, { force: true }), { discard: true })
  yield* MachineSetup.unmountBelow(directory)
  yield* fileSystem.remove(paths.pid, { force: true })
  // Only what is empty goes: another containerd may use a namespace of the same name.
  yield* Effect.forEach(
    namespaces,
    (name) => Effect.ignore(run("rmdir", `${runtimeState}/${name}`)),
    { discard: true }
  )
  yield* MachineSetup.releaseCgroups(directory)
})

/** A containerd for the life of a scope; its directory goes with it. */
export const scoped = (
  options: DaemonOptions
): Effect.Effect<
  Daemon,
  DaemonError | CommandError | PlatformError.PlatformError,
  MachineSetup.System | Scope.Scope
> =>
  Effect.acquireRelease(
    start(options).pipe(Effect.onError(() => Effect.ignore(remove(options.directory)))),
    ({ directory }) => remove(directory).pipe(Effect.ignore({ log: "Warn" }))
  )

/** {@link stop}, and the directory with all images and logs. */
export const remove = Effect.fn("ContainerdDaemon.remove")(function*(
  directory: string
): Effect.fn.Return<void, PlatformError.PlatformError, MachineSetup.System> {
  const fileSystem = yield* FileSystem.FileSystem
  yield* stop(directory)
  yield* fileSystem.remove(directory, { recursive: true, force: true })
})
