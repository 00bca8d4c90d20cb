/**
 * What a user would pick instead, each started as its users start it, with the same image and the same program. A peer
 * that is not installed is named, not skipped in silence.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import * as Command from "./Command.ts"

/** One way to start a container in the background. */
export interface Peer {
  /** The metric's name. */
  readonly name: string
  /** What is timed: from the start of the command to its end. */
  readonly boundary: string
  /** Starts container `id` and gives the milliseconds that it took. */
  start(id: string): Effect.Effect<number, Command.CommandFailed>
  /** Removes it; not timed. */
  remove(id: string): Effect.Effect<void, Command.CommandFailed>
}

/** What the peers need of the run. */
export interface PeerOptions {
  /** An OCI archive of the image. */
  readonly archive: string
  readonly image: string
  readonly program: ReadonlyArray<string>
  /** The containerd that the stack uses: the same daemon serves both. */
  readonly containerdSocket: string
  readonly directory: string
}

type Setup = Effect.Effect<
  Peer,
  Command.CommandFailed | PlatformError,
  Scope.Scope | FileSystem.FileSystem
>

const ctr = (options: PeerOptions): Setup =>
  Effect.gen(function*() {
    const base = ["--address", options.containerdSocket, "--namespace", "fsb-bench"]
    const remove = (id: string) =>
      Command.run("ctr", [...base, "task", "rm", "--force", id]).pipe(
        Effect.andThen(Command.run("ctr", [...base, "container", "rm", id])),
        Effect.asVoid
      )
    yield* Effect.acquireRelease(
      Command.run("ctr", [...base, "image", "import", options.archive]),
      () =>
        Command.run("ctr", [...base, "image", "rm", "--sync", options.image]).pipe(
          Effect.andThen(Command.run("ctr", [...base, "namespace", "rm", "fsb-bench"])),
          Effect.ignore
        )
    )
    return {
      name: "peer.ctr.run",
      boundary: "process: ctr run --detach",
      start: (id) =>
        Command.run("ctr", [...base, "run", "--detach", options.image, id, ...options.program]).pipe(
          Effect.map(({ millis }) => millis)
        ),
      remove
    }
  })

const podman = (options: PeerOptions): Setup =>
  Effect.gen(function*() {
    // A store and a run folder of its own: nothing of the machine's podman is touched.
    const base = [
      "--root",
      `${options.directory}/podman/root`,
      "--runroot",
      `${options.directory}/podman/run`,
      "--cgroup-manager",
      "cgroupfs",
      "--runtime",
      "crun"
    ]
    yield* Effect.acquireRelease(
      Command.run("podman", [...base, "load", "--input", options.archive]),
      () => Command.run("podman", [...base, "system", "reset", "--force"]).pipe(Effect.ignore)
    )
    return {
      name: "peer.podman.run",
      boundary: "process: podman run --detach --network none",
      start: (id) =>
        Command.run("podman", [
          ...base,
          "run",
          "--detach",
          "--network",
          "none",
          "--name",
          id,
          // podman asks for more than a machine without CAP_SYS_RESOURCE gives.
          "--ulimit",
          "nofile=1024:1024",
          "--ulimit",
          "nproc=1024:1024",
          options.image,
          ...options.program
        ]).pipe(Effect.map(({ millis }) => millis)),
      remove: (id) => Command.run("podman", [...base, "rm", "--force", "--time", "0", id]).pipe(Effect.asVoid)
    }
  })

const crun = (options: PeerOptions): Setup =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const bundle = `${options.directory}/crun`
    yield* files.makeDirectory(`${bundle}/rootfs/bin`, { recursive: true })
    yield* files.copyFile("/bin/busybox", `${bundle}/rootfs/bin/busybox`)
    yield* files.symlink("busybox", `${bundle}/rootfs/bin/sleep`)
    yield* Command.run("crun", ["spec"], { workingDirectory: bundle })
    const text = yield* files.readFileString(`${bundle}/config.json`)
    yield* files.writeFileString(
      `${bundle}/config.json`,
      text.replace("\"terminal\": true", "\"terminal\": false").replace(
        /"args": \[[^\]]*\]/,
        `"args": ${JSON.stringify(options.program)}`
      )
    )
    const root = ["--root", `${options.directory}/crun-state`]
    return {
      name: "peer.crun.run",
      boundary: "process: crun run --detach of a prepared bundle (no image, no overlay, no network set-up)",
      start: (id) =>
        Command.run("sh", [
          "-c",
          // Detached output must not hold our pipes open.
          "exec crun \"$@\" >/dev/null 2>&1",
          "sh",
          ...root,
          "run",
          "--detach",
          "--bundle",
          bundle,
          id
        ]).pipe(Effect.map(({ millis }) => millis)),
      remove: (id) => Command.run("crun", [...root, "delete", "--force", id]).pipe(Effect.asVoid)
    }
  })

const all = { ctr, podman, crun } as const

/** The peers that are installed, ready to start containers, and the names of those that are not. */
export const make = (options: PeerOptions) =>
  Effect.gen(function*() {
    const peers: Array<Peer> = []
    const missing: Array<string> = []
    for (const [file, setup] of Object.entries(all)) {
      if (yield* Command.exists(file)) {
        peers.push(yield* setup(options))
      } else {
        missing.push(file)
      }
    }
    return { peers, missing }
  })
