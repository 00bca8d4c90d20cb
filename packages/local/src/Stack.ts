/**
 * Everything on one machine: the embedded API server, the controller, the agents as processes, the janitor, and
 * containerd. The same layers that run on a cluster, over an API server of our own.
 */
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import * as MachineSetup from "@fast-sandbox/containerd/MachineSetup"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import { AgentAddress } from "@fast-sandbox/controller/agents/AgentAddress"
import { Agents } from "@fast-sandbox/controller/agents/Agents"
import * as Controller from "@fast-sandbox/controller/Controller"
import { InvalidArgument, PermissionDenied, Unavailable } from "@fast-sandbox/core/Errors"
import { containerdNamespace } from "@fast-sandbox/core/Names"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import { Janitor } from "@fast-sandbox/janitor/Janitor"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Collector from "@fast-sandbox/telemetry/Collector"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { hostname } from "node:os"
import { ApiServer } from "./apiserver/ApiServer.ts"
import * as FastPathPort from "./FastPathPort.ts"
import * as FirstResources from "./FirstResources.ts"
import * as Home from "./Home.ts"
import * as MachineContainerd from "./MachineContainerd.ts"
import * as PidFile from "./PidFile.ts"
import * as PodRunner from "./pods/PodRunner.ts"

/** How a stack is run. */
export interface StackOptions {
  /** Where it keeps everything. */
  readonly home: string
  readonly containerd: MachineContainerd.Choice
  /** A TCP port for the Fast-Path API; without it there is its unix socket only. */
  readonly listen?: FastPathPort.Address | undefined
  /** What starts an agent: program and arguments. */
  readonly agentCommand: readonly [file: string, ...args: ReadonlyArray<string>]
  /** Absolute path of `fsb-logger`. */
  readonly loggerBinary: string
  /** Absolute path of `fsb-idmap`. */
  readonly idmapBinary: string
  /** Absolute path of `fsb-network`. */
  readonly networkBinary: string
  /** Absolute path of `fsb-init`. */
  readonly initBinary: string
}

/** The processes that `down` waits for get this long to end their sandboxes: the Pods' grace period and some. */
const downGrace = "60 seconds"

/** An agent that was never started before is there within a second or two. */
const firstAgentWithin = "30 seconds"

/** How often `down` looks whether the stack's process is gone. */
const downPeriod = "50 millis"

const kubeClient = KubeClient.layer.pipe(
  Layer.provide(Layer.unwrap(
    Effect.map(
      ApiServer,
      ({ caCertificate, token, url }) => KubeConfig.layer({ server: url, token, ca: caCertificate })
    )
  ))
)

const agentSockets = (home: Home.Home): Layer.Layer<AgentAddress> =>
  Layer.succeed(
    AgentAddress,
    AgentAddress.of({
      resolve: ({ metadata }) =>
        Effect.succeed(Option.some({ address: `unix:${Home.agentSocket(home, metadata.name)}` }))
    })
  )

/** Agents have no image here: the Pod runner knows what to run. */
const agentImage = "fast-sandbox/agent"

const podRunner = (home: Home.Home, options: StackOptions) =>
  Layer.unwrap(
    Effect.map(MachineContainerd.MachineContainerd, ({ runtimeDirectory, socket }) =>
      PodRunner.layer({
        home,
        nodeName: hostname(),
        agentCommand: options.agentCommand,
        environment: {
          FSB_CONTAINERD_SOCKET: socket,
          ...Collector.variables(process.env),
          FSB_LOGGER_BINARY: options.loggerBinary,
          FSB_IDMAP_BINARY: options.idmapBinary,
          FSB_NETWORK_BINARY: options.networkBinary,
          FSB_INIT_BINARY: options.initBinary,
          ...(runtimeDirectory === undefined ? {} : { FSB_RUNTIME_DIR: runtimeDirectory })
        }
      }))
  )

const janitor = (home: Home.Home) =>
  Layer.unwrap(
    Effect.map(MachineContainerd.MachineContainerd, ({ socket }) =>
      Janitor.layer({
        nodeName: hostname(),
        mode: "remove",
        places: {
          cgroupParent: home.cgroupParent,
          logDirectory: home.logsDirectory,
          agentsDirectory: home.agentsDirectory
        }
      }).pipe(Layer.provide(Containerd.layer({ socket, namespace: containerdNamespace }))))
  )

const root = Effect.suspend(() =>
  process.getuid?.() === 0
    ? Effect.void
    : Effect.fail(
      new PermissionDenied({
        problem: "the one-machine stack drives containerd and needs root; try 'sudo fsb-ctl up'"
      })
    )
)

const folders = (home: Home.Home) =>
  Layer.effectDiscard(Effect.gen(function*() {
    yield* root
    const files = yield* FileSystem.FileSystem
    for (const directory of [home.agentsDirectory, home.logsDirectory]) {
      yield* files.makeDirectory(directory, { recursive: true, mode: 0o700 })
    }
    yield* PidFile.hold(home.pidFile)
  }))

const apiServer = (home: Home.Home) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const { kubeconfigPath } = yield* ApiServer
    const files = yield* FileSystem.FileSystem
    // One file at the top of the home is what people are told about.
    yield* files.remove(home.kubeconfig, { force: true })
    yield* files.symlink(kubeconfigPath, home.kubeconfig)
    yield* FirstResources.ensure
  })).pipe(
    Layer.provideMerge(kubeClient),
    Layer.provideMerge(ApiServer.layer({ dataDirectory: home.apiServerDirectory }))
  )

const controller = (home: Home.Home, { listen }: StackOptions) =>
  Layer.unwrap(Effect.gen(function*() {
    const socket = GrpcServer.unix(home.fastPathSocket)
    return Controller.layer({
      agentImage,
      listeners: listen === undefined ? [socket] : [socket, yield* FastPathPort.listener(home, listen)]
    })
  }))

/** The whole stack. It serves when the layer is built; releasing it ends the agents in order and keeps the data. */
export const layer = (options: StackOptions) =>
  Layer.unwrap(
    Effect.map(Home.make(options.home), (home) =>
      controller(home, options).pipe(
        Layer.provide(agentSockets(home)),
        Layer.provideMerge(janitor(home)),
        Layer.provideMerge(podRunner(home, options)),
        Layer.provideMerge(apiServer(home)),
        Layer.provideMerge(MachineContainerd.layer(home, options.containerd)),
        Layer.provide(folders(home))
      ))
  )

/** Done when an agent answers, so that a sandbox can be started; after half a minute without one it is done anyway. */
export const firstAgent: Effect.Effect<void, never, Agents> = Effect.gen(function*() {
  const agents = yield* Agents
  const isThere = Effect.map(agents.list, (views) => views.some(({ connection }) => connection === "synced"))
  yield* Stream.fromEffect(isThere).pipe(
    Stream.concat(Stream.mapEffect(agents.changes, () => isThere)),
    Stream.takeUntil((found) => found),
    Stream.runDrain,
    Effect.timeoutOrElse({
      duration: firstAgentWithin,
      orElse: () => Effect.logWarning("no agent answers yet: every pool may be empty, or see the agents' logs")
    })
  )
})

/** The networks of agents that were killed: whose they are is told by the agents' directories. */
const removeNetworks = Effect.fnUntraced(function*(home: Home.Home) {
  const files = yield* FileSystem.FileSystem
  const names = yield* Effect.orElseSucceed(files.readDirectory(home.agentsDirectory), (): ReadonlyArray<string> => [])
  yield* Effect.forEach(
    names,
    (name) =>
      NetworkNamespaces.removeAll(Home.agentDirectory(home, name)).pipe(
        Effect.ignore({ log: "Warn" })
      ),
    { discard: true }
  )
})

/** A folder that never was a home, such as one that was mistyped, is not for us to remove. */
const refuseStranger = Effect.fnUntraced(function*({ apiServerDirectory, directory, log, pidFile }: Home.Home) {
  const files = yield* FileSystem.FileSystem
  if (!(yield* files.exists(directory)) || (yield* files.readDirectory(directory)).length === 0) return
  for (const trace of [apiServerDirectory, log, pidFile]) {
    if (yield* files.exists(trace)) return
  }
  return yield* new InvalidArgument({ field: "--home", problem: `${directory} holds no stack; it is not removed` })
})

/**
 * Ends the stack of a home, with its agents, their sandboxes and the containerd that it started. `wipe` also removes
 * the home. Gives whether a stack ran. Safe to repeat, and after a crash.
 */
export const down = Effect.fn("Stack.down")(function*(options: {
  readonly home: string
  readonly wipe: boolean
}): Effect.fn.Return<boolean, InvalidArgument | Unavailable | PlatformError, MachineSetup.System> {
  const home = yield* Home.make(options.home)
  if (options.wipe) yield* refuseStranger(home)
  const files = yield* FileSystem.FileSystem
  const running = yield* PidFile.read(home.pidFile)
  if (Option.isSome(running)) {
    const { pid } = running.value
    yield* Effect.sync(() => process.kill(pid, "SIGTERM"))
    yield* PidFile.isRunning(running.value).pipe(
      Effect.repeat({ schedule: Schedule.spaced(downPeriod), until: (isRunning) => !isRunning }),
      Effect.timeoutOrElse({
        duration: downGrace,
        orElse: () =>
          Effect.fail(
            new Unavailable({
              target: `the stack (process ${pid})`,
              problem: `it did not end in time; see ${home.log}, or kill it and run this again`
            })
          )
      })
    )
  }
  yield* MachineContainerd.stop(home)
  yield* removeNetworks(home)
  yield* MachineSetup.removeCgroups(home.cgroupParent)
  // What an agent that was killed has mounted: layers of images, which must not be removed through it.
  yield* MachineSetup.unmountBelow(home.agentsDirectory)
  if (options.wipe) {
    yield* files.remove(home.directory, { recursive: true, force: true })
  }
  return Option.isSome(running)
})
