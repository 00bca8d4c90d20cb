/**
 * A Docker Engine of the run's own, in a network and mount namespace of its own, so that neither its firewall rules nor
 * its mounts reach the machine; and its API as a contender: create and start over its socket, as a program would do it.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schedule from "effect/Schedule"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { Agent, request as httpRequest } from "node:http"
import * as Command from "../Command.ts"
import { type Common, type Contender, ContenderFailed, withoutBackground } from "./Contender.ts"

const name = "peer.docker.api"

/** An engine unpacks its plugins and makes its bridge before it listens. */
const startDeadline = Duration.seconds(30)

/** Its address range is of no meaning outside of its own network namespace. */
const bridgeAddress = "172.31.255.1/24"

const failed = (problem: string) => new ContenderFailed({ contender: name, problem })

/** A running engine. */
export interface DockerEngine {
  readonly socket: string
  readonly call: (method: string, path: string, body?: object | Uint8Array) => Effect.Effect<string, ContenderFailed>
}

const caller = (socketPath: string): DockerEngine["call"] => {
  const agent = new Agent({ keepAlive: true })
  return (method, path, body) =>
    Effect.callback<string, ContenderFailed>((resume) => {
      const isBinary = body instanceof Uint8Array
      const bytes = body === undefined ? undefined : isBinary ? body : Buffer.from(JSON.stringify(body))
      const sent = httpRequest({
        socketPath,
        agent,
        method,
        path,
        headers: bytes === undefined ? {} : {
          "content-type": isBinary ? "application/x-tar" : "application/json",
          "content-length": bytes.length
        }
      }, (answer) => {
        let text = ""
        answer.setEncoding("utf8").on("data", (part: string) => {
          text += part
        })
        answer.once("end", () =>
          resume(
            (answer.statusCode ?? 500) < 400 ? Effect.succeed(text) : Effect.fail(failed(`${method} ${path}: ${text}`))
          ))
      })
      sent.once("error", (cause) => resume(Effect.fail(failed(`${method} ${path}: ${cause.message}`))))
      sent.end(bytes)
      return Effect.sync(() => sent.destroy())
    })
}

/** An engine that holds the image under `common.image`'s name, for as long as the scope is open. */
export const make = Effect.fnUntraced(function*(common: Common) {
  const files = yield* FileSystem.FileSystem
  const directory = `${common.directory}/docker`
  const socket = `${directory}/docker.sock`
  yield* files.makeDirectory(directory, { recursive: true })
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn("unshare", [
        "--net",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        "ip link set lo up && exec dockerd \"$@\" 2>\"$0\"",
        `${directory}/dockerd.log`,
        "--data-root",
        `${directory}/data`,
        "--exec-root",
        `${directory}/run`,
        "--pidfile",
        `${directory}/pid`,
        "--host",
        `unix://${socket}`,
        "--bip",
        bridgeAddress,
        "--log-level",
        "error"
      ], { stdio: "ignore" })
    ),
    (engine) =>
      Effect.promise(async () => {
        const ended = engine.exitCode === null && engine.signalCode === null ? once(engine, "exit") : undefined
        engine.kill("SIGTERM")
        await ended
      })
  )
  const call = caller(socket)
  yield* call("GET", "/_ping").pipe(
    Effect.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: startDeadline })))
  )
  // An engine of this age reads no OCI archives; the image has one layer, which is its file system.
  const layer = yield* largestBlob(common)
  const [repository = "", tag = "latest"] = common.image.split(":")
  yield* call("POST", `/images/create?${new URLSearchParams({ fromSrc: "-", repo: repository, tag })}`, layer)
  return { socket, call } satisfies DockerEngine
})

const largestBlob = Effect.fnUntraced(function*({ archive, directory }: Common) {
  const files = yield* FileSystem.FileSystem
  const unpacked = `${directory}/image`
  yield* files.makeDirectory(unpacked, { recursive: true })
  yield* Command.run("tar", ["-xf", archive, "-C", unpacked])
  const blobs = yield* files.readDirectory(`${unpacked}/blobs/sha256`)
  const sizes = yield* Effect.forEach(
    blobs,
    (blob) => Effect.map(files.stat(`${unpacked}/blobs/sha256/${blob}`), ({ size }) => ({ blob, size }))
  )
  const largest = sizes.reduce((a, b) => a.size > b.size ? a : b)
  return yield* files.readFile(`${unpacked}/blobs/sha256/${largest.blob}`)
})

/** Its API, as a contender. */
export const contender = ({ call }: DockerEngine, { image, program }: Common): Contender => ({
  name,
  boundary: "request: Docker Engine's create and start over its socket (runc, bridge network)",
  ...withoutBackground,
  start: (id) =>
    call("POST", `/containers/create?name=${id}`, {
      Image: image,
      Cmd: program,
      Env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    }).pipe(
      Effect.andThen(call("POST", `/containers/${id}/start`)),
      Effect.as(name)
    ),
  remove: (id) => Effect.asVoid(call("DELETE", `/containers/${id}?force=1`))
})
