/**
 * The one-machine stack that is soaked: a home and a copy of the build of its own, so that whatever is built meanwhile
 * changes nothing here, and the processes that faults are aimed at. A janitor in a process of its own, as nodes of a
 * cluster have it, works beside the one in the stack, so that its death is one by itself.
 */
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { containerdNamespace } from "@fast-sandbox/core/Names"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Home from "@fast-sandbox/local/Home"
import * as PidFile from "@fast-sandbox/local/PidFile"
import * as AgentProcess from "@fast-sandbox/local/pods/AgentProcess"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import { hostname } from "node:os"
import * as Command from "../bench/Command.ts"

/** The image that all programs run in. */
export const image = "docker.io/library/busybox:latest"

/** A stack that is up. */
export interface SoakStack {
  readonly home: Home.Home
  readonly endpoint: string
  /** Starts it where it does not run; done when it takes calls. */
  readonly up: Effect.Effect<void, Command.CommandFailed>
  readonly stackPid: Effect.Effect<Option.Option<number>, never, FileSystem.FileSystem>
  readonly agentPids: Effect.Effect<ReadonlyArray<number>, never, FileSystem.FileSystem>
  readonly shimPids: Effect.Effect<ReadonlyArray<number>, never, FileSystem.FileSystem>
  readonly janitorPid: Effect.Effect<Option.Option<number>>
  readonly containerdPid: Effect.Effect<Option.Option<number>, never, FileSystem.FileSystem>
  /** The API server's address changes with every start, so this is built anew for each use. */
  readonly kube: Layer.Layer<KubeClient, unknown>
  readonly containerd: Layer.Layer<Containerd.Containerd, never, FileSystem.FileSystem>
}

/** A janitor that died is started again after this time: by then the stack may have come back with another address. */
const janitorPause = "1 second"
const janitorGrace = "5 seconds"

/** Runs a janitor beside the stack for as long as the scope is open, again and again; gives the current one's process. */
const keepJanitor = Effect.fnUntraced(function*(home: Home.Home, build: string, containerdSocket: string) {
  const current = yield* Ref.make(Option.none<number>())
  const program = `${build}/janitor.cjs`
  // Started again and again, one that is not there would be missed by nobody.
  yield* FileSystem.FileSystem.use((files) => files.access(program))
  yield* AgentProcess.start({
    file: process.execPath,
    args: [program],
    environment: {
      NODE_NAME: hostname(),
      KUBECONFIG: home.kubeconfig,
      FSB_CONTAINERD_SOCKET: containerdSocket,
      FSB_CONTAINERD_NAMESPACE: containerdNamespace,
      FSB_STATE_DIR: home.directory,
      FSB_LOG_DIR: home.logsDirectory,
      FSB_CGROUP_PARENT: home.cgroupParent
    },
    workingDirectory: home.directory,
    log: `${home.directory}/log/janitor.log`
  }, janitorGrace).pipe(
    Effect.tap(({ pid }) => Ref.set(current, Option.some(pid))),
    Effect.flatMap(({ exited }) => exited),
    Effect.scoped,
    Effect.ignore({ log: "Warn" }),
    Effect.andThen(Ref.set(current, Option.none())),
    Effect.andThen(Effect.sleep(janitorPause)),
    Effect.forever,
    Effect.forkScoped
  )
  return Ref.get(current)
})

/** Starts a stack below `directory`, with the image loaded. It is wiped when the scope closes. */
export const make = Effect.fn("SoakStack.make")(function*(repository: string, directory: string) {
  const files = yield* FileSystem.FileSystem
  const home = yield* Home.make(`${directory}/home`)
  const build = `${directory}/dist`
  yield* files.copy(`${repository}/dist`, build)
  const endpoint = `unix:${home.fastPathSocket}`
  const fsbCtl = (...args: ReadonlyArray<string>) =>
    Effect.asVoid(Command.run(process.execPath, [`${build}/fsb-ctl.cjs`, ...args]))
  const up = fsbCtl("up", "--detach", "--containerd", "own", "--home", home.directory)
  yield* Effect.acquireRelease(
    up,
    () => fsbCtl("down", "--wipe", "--home", home.directory).pipe(Effect.ignore({ log: "Warn" }))
  )
  yield* fsbCtl("--endpoint", endpoint, "image", "load", `${build}/images/busybox.tar`)
  const socket = `${home.containerdDirectory}/containerd.sock`
  const stack: SoakStack = {
    home,
    endpoint,
    up,
    stackPid: Effect.map(PidFile.read(home.pidFile), Option.map(({ pid }) => pid)),
    agentPids: Effect.map(
      Proc.processes,
      (all) => all.filter(({ args }) => args.includes(`${build}/agent.cjs`)).map(({ pid }) => pid)
    ),
    shimPids: Effect.map(Proc.shims(socket), (all) => all.map(({ pid }) => pid)),
    janitorPid: yield* keepJanitor(home, build, socket),
    containerdPid: Effect.map(
      ContainerdDaemon.find(home.containerdDirectory),
      (daemon) => Option.map(Option.fromUndefinedOr(daemon), ({ pid }) => pid)
    ),
    kube: KubeClient.layer.pipe(Layer.provide(KubeConfig.layerFile(home.kubeconfig))),
    containerd: Containerd.layer({ socket, namespace: containerdNamespace })
  }
  return stack
})
