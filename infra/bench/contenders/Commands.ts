/**
 * What a user would type instead, each as its users start it.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Command from "../Command.ts"
import { type Common, type Contender, withoutBackground } from "./Contender.ts"

/** A contender whose start and removal are commands. */
const contender = (
  name: string,
  boundary: string,
  commands: Record<"start" | "remove", (id: string) => Effect.Effect<Command.Ran, Command.CommandFailed>>
): Contender => ({
  name,
  boundary,
  ...withoutBackground,
  start: (id) => Effect.as(commands.start(id), name),
  remove: (id) => Effect.asVoid(commands.remove(id))
})

/** `ctr run`, against the containerd that the stack uses. */
export const ctr = Effect.fnUntraced(function*(common: Common, containerdSocket: string) {
  const base = ["--address", containerdSocket, "--namespace", "fsb-bench"]
  yield* Effect.acquireRelease(
    Command.run("ctr", [...base, "image", "import", common.archive]),
    () =>
      Command.run("ctr", [...base, "image", "rm", "--sync", common.image]).pipe(
        Effect.andThen(Command.run("ctr", [...base, "namespace", "rm", "fsb-bench"])),
        Effect.ignore
      )
  )
  return contender("peer.ctr.run", "process: ctr run --detach (runc, loopback only)", {
    start: (id) => Command.run("ctr", [...base, "run", "--detach", common.image, id, ...common.program]),
    remove: (id) =>
      Effect.andThen(
        Command.run("ctr", [...base, "task", "rm", "--force", id]),
        Command.run("ctr", [...base, "container", "rm", id])
      )
  })
})

/** `podman run`, with a store of its own. */
export const podman = Effect.fnUntraced(function*(common: Common) {
  // Nothing of the machine's podman is touched.
  const base = [
    "--root",
    `${common.directory}/podman/root`,
    "--runroot",
    `${common.directory}/podman/run`,
    "--cgroup-manager",
    "cgroupfs",
    "--runtime",
    "crun"
  ]
  // It asks for more open files than a machine without CAP_SYS_RESOURCE gives.
  const limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
  yield* Effect.acquireRelease(
    Command.run("podman", [...base, "load", "--input", common.archive]),
    () => Effect.ignore(Command.run("podman", [...base, "system", "reset", "--force"]))
  )
  const options = ["--detach", "--network", "none", ...limits]
  return contender("peer.podman.run", "process: podman run --detach --network none (crun)", {
    start: (id) => Command.run("podman", [...base, "run", ...options, "--name", id, common.image, ...common.program]),
    remove: (id) => Command.run("podman", [...base, "rm", "--force", "--time", "0", id])
  })
})

/** `docker run`, against the given engine. */
export const docker = (common: Common, engineSocket: string): Contender => {
  const base = ["--host", `unix://${engineSocket}`]
  return contender("peer.docker.run", "process: docker run --detach (runc, bridge network)", {
    start: (id) => Command.run("docker", [...base, "run", "--detach", "--name", id, common.image, ...common.program]),
    remove: (id) => Command.run("docker", [...base, "rm", "--force", id])
  })
}

/** `crun run` of a bundle that was made beforehand: the floor, with neither image nor supervision. */
export const crun = Effect.fnUntraced(function*(common: Common) {
  const files = yield* FileSystem.FileSystem
  const bundle = `${common.directory}/crun`
  yield* files.makeDirectory(`${bundle}/rootfs/bin`, { recursive: true })
  yield* files.copyFile("/bin/busybox", `${bundle}/rootfs/bin/busybox`)
  yield* files.symlink("busybox", `${bundle}/rootfs/bin/sleep`)
  yield* Command.run("crun", ["spec"], { workingDirectory: bundle })
  const text = yield* files.readFileString(`${bundle}/config.json`)
  yield* files.writeFileString(
    `${bundle}/config.json`,
    text.replace("\"terminal\": true", "\"terminal\": false").replace(
      /"args": \[[^\]]*\]/,
      `"args": ${JSON.stringify(common.program)}`
    )
  )
  const root = ["--root", `${common.directory}/crun-state`]
  const boundary = "process: crun run --detach of a prepared bundle (no image, no overlay, no network set-up)"
  // Detached output must not hold our pipes open.
  const script = "exec crun \"$@\" >/dev/null 2>&1"
  return contender("peer.crun.run", boundary, {
    start: (id) => Command.run("sh", ["-c", script, "sh", ...root, "run", "--detach", "--bundle", bundle, id]),
    remove: (id) => Command.run("crun", [...root, "delete", "--force", id])
  })
})
