/**
 * What was acknowledged survives `kill -9`, and watches go on where they were after a restart.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Schema } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { arrayAt, client, stringAt } from "./TestServer.ts"

const Announcement = Schema.fromJsonString(Schema.Struct({
  url: Schema.String,
  token: Schema.String,
  caCertificate: Schema.String,
  kubeconfigPath: Schema.String
}))

const program = fileURLToPath(new URL("serverProcess.ts", import.meta.url))

const start = (dataDirectory: string, port: string) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [program, dataDirectory, port], { stdio: ["ignore", "pipe", "inherit"] })
      ),
      (process) => kill(process)
    )
    const line = yield* Effect.callback<string>((resume) => {
      child.stdout.once("data", (chunk: Buffer) => resume(Effect.succeed(chunk.toString())))
      child.once("exit", (code) => resume(Effect.die(new Error(`the server ended with ${code}`))))
    })
    const server = yield* Schema.decodeUnknownEffect(Announcement)(line)
    const http = client(server)
    yield* Effect.addFinalizer(() => http.close)
    return { child, server, ...http }
  })

const kill = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    child.kill("SIGKILL")
  })

const path = "/api/v1/namespaces/default/configmaps"

const body = (name: string) => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name }, data: { of: name } })

/** Writers at the same time, and the answers after which the server is killed. */
const writers = 8
const killAfter = 400

describe("durability", () => {
  it.live("keeps what it acknowledged through kill -9, and resumes watches", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped({ prefix: "fast-sandbox-durability-" })
      const first = yield* start(directory, "0")
      const before = stringAt((yield* first.request("GET", path)).body, "metadata", "resourceVersion") ?? ""
      const acknowledged: Array<string> = []
      const writer = (number: number) =>
        Effect.gen(function*() {
          for (let index = 0; acknowledged.length < killAfter; index++) {
            const name = `w${number}-${index}`
            const reply = yield* first.request("POST", path, { body: body(name) })
            if (reply.code === 201) acknowledged.push(name)
          }
          yield* kill(first.child)
        })
      // The kill breaks the requests that are under way; those were not acknowledged.
      yield* Effect.exit(Effect.forEach(Array.from({ length: writers }, (_, index) => index), writer, {
        concurrency: "unbounded",
        discard: true
      }))
      assert.isAtLeast(acknowledged.length, killAfter)

      const { port } = new URL(first.server.url)
      const second = yield* start(directory, port)
      assert.strictEqual(second.server.token, first.server.token)
      assert.strictEqual(second.server.caCertificate, first.server.caCertificate)
      const list = yield* second.request("GET", path)
      const present = new Set(arrayAt(list.body, "items").map((entry) => stringAt(entry, "metadata", "name")))
      assert.deepStrictEqual(acknowledged.filter((name) => !present.has(name)), [])

      const stream = yield* second.watch(`${path}?watch=1&resourceVersion=${before}`)
      const seen = new Set<string | undefined>()
      let last = 0
      while (seen.size < present.size) {
        const event = yield* stream.next
        assert.strictEqual(event?.type, "ADDED")
        const revision = Number(stringAt(event?.object, "metadata", "resourceVersion"))
        assert.isAbove(revision, last)
        last = revision
        seen.add(stringAt(event?.object, "metadata", "name"))
      }
      const later = yield* second.request("POST", path, { body: body("later") })
      assert.isAbove(Number(stringAt(later.body, "metadata", "resourceVersion")), last)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
