/**
 * The containerd that a one-machine stack drives: the machine's own where one answers, else one that the stack keeps
 * under its home. The latter is started again when it dies. It outlives the stack's process, so that sandboxes survive
 * that, and is stopped by `down`.
 */
import * as ContainerdClient from "@fast-sandbox/containerd/ContainerdClient"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import type { System } from "@fast-sandbox/containerd/MachineSetup"
import { Unavailable } from "@fast-sandbox/core/Errors"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Home from "./Home.ts"
import * as Programs from "./Programs.ts"

/**
 * - auto: the machine's where it answers, else one of our own
 * - own: one of our own
 * - an absolute path: the one behind that socket
 */
export type Choice = "auto" | "own" | `/${string}`

/** The containerd that is used. */
export class MachineContainerd extends Context.Service<MachineContainerd, {
  readonly socket: string
  /** Where faster copies of the OCI runtimes are, when the daemon is ours. */
  readonly runtimeDirectory: string | undefined
  /** Whether `down` stops it. */
  readonly isOwn: boolean
}>()("@fast-sandbox/local/MachineContainerd") {}

/** Whether a containerd answers behind the socket. */
export const answers = (socket: string): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const { options, raw } = yield* ContainerdClient.make({ socket, namespace: "default" })
    yield* raw.version.version({}, options.call)
    return true
  }).pipe(Effect.scoped, Effect.orElseSucceed(() => false))

const own = Effect.fnUntraced(function*(home: Home.Home) {
  if (Option.isNone(yield* Programs.find("containerd"))) {
    return yield* new Unavailable({
      target: "containerd",
      problem: "it is not installed; apt-get install --no-install-recommends containerd runc crun"
    })
  }
  const { runtimeDirectory, socket } = yield* ContainerdDaemon.keep({
    directory: home.containerdDirectory,
    pullsImages: true
  }).pipe(
    Effect.mapError((error) =>
      new Unavailable({
        target: "containerd",
        problem: error._tag === "DaemonError"
          ? `${error.problem}; its log ends with: ${error.log.trimEnd().split("\n").at(-1)}`
          : error.message
      })
    )
  )
  return { socket, runtimeDirectory, isOwn: true }
})

const find = Effect.fn("MachineContainerd.find")(function*(
  home: Home.Home,
  choice: Choice
): Effect.fn.Return<MachineContainerd["Service"], Unavailable, System | Scope.Scope> {
  if (choice === "own") {
    return yield* own(home)
  }
  // A containerd that was started under this home before holds its sandboxes and images.
  if (choice === "auto" && (yield* ContainerdDaemon.find(home.containerdDirectory)) !== undefined) {
    return yield* own(home)
  }
  const files = yield* FileSystem.FileSystem
  const socket = choice === "auto" ? ContainerdClient.defaultSocket : choice
  const isThere = yield* files.exists(socket).pipe(Effect.orElseSucceed(() => false))
  if (isThere && (yield* answers(socket))) {
    return { socket, runtimeDirectory: undefined, isOwn: false }
  }
  return choice === "auto" ? yield* own(home) : yield* new Unavailable({
    target: `containerd at ${socket}`,
    problem: "nothing answers there; start it, or leave --containerd away to let fsb-ctl start one"
  })
})

/** Finds or starts it when the layer is built. It keeps running when the layer is released. */
export const layer = (home: Home.Home, choice: Choice): Layer.Layer<MachineContainerd, Unavailable, System> =>
  Layer.effect(MachineContainerd, find(home, choice))

/** Ends the one under this home with everything that it runs, if there is one. */
export const stop = (home: Home.Home) => ContainerdDaemon.stop(home.containerdDirectory)
