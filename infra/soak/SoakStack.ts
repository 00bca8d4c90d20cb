/**
 * The one-machine stack that is soaked: a home and a copy of the build of its own, so that whatever is built meanwhile
 * changes nothing here, and the processes that faults are aimed at.
 */
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { containerdNamespace } from "@fast-sandbox/core/Names"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import * as Home from "@fast-sandbox/local/Home"
import * as PidFile from "@fast-sandbox/local/PidFile"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
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
  readonly containerdPid: Effect.Effect<Option.Option<number>, never, FileSystem.FileSystem>
  /** The API server's address changes with every start, so this is built anew for each use. */
  readonly kube: Layer.Layer<KubeClient, unknown>
  readonly containerd: Layer.Layer<Containerd.Containerd, never, FileSystem.FileSystem>
}

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
      (all) => all.filter(({ args }) => args.includes(`${build}/agent.mjs`)).map(({ pid }) => pid)
    ),
    shimPids: Effect.map(Proc.shims(socket), (all) => all.map(({ pid }) => pid)),
    containerdPid: Effect.map(
      ContainerdDaemon.find(home.containerdDirectory),
      (daemon) => Option.map(Option.fromUndefinedOr(daemon), ({ pid }) => pid)
    ),
    kube: KubeClient.layer.pipe(Layer.provide(KubeConfig.layerFile(home.kubeconfig))),
    containerd: Containerd.layer({ socket, namespace: containerdNamespace })
  }
  return stack
})
