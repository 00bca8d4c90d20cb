import { assert, describe, it } from "@effect/vitest"
import * as LogLine from "@fast-sandbox/client/LogLine"
import { type Client, connect } from "@fast-sandbox/client/Promise"
import { NotFound } from "@fast-sandbox/core/Errors"
import { Effect, SubscriptionRef } from "effect"
import * as FakeFastPath from "./FakeFastPath.ts"

const names = Effect.map(
  FakeFastPath.Fake.use(({ state }) => SubscriptionRef.get(state)),
  (state) => [...state.keys()]
)

/** Runs a program without Effect against a server of its own, then checks that nothing is left. */
const withClient = (use: (client: Client) => Promise<void>) =>
  Effect.gen(function*() {
    const endpoint = yield* FakeFastPath.endpoint
    yield* Effect.promise(async () => {
      await using client = connect({ endpoint })
      await use(client)
    })
    assert.deepStrictEqual(yield* names, [])
  }).pipe(Effect.provide(FakeFastPath.layer()))

describe("Promise", () => {
  it.live("runs, follows, waits and disposes", () =>
    withClient(async (client) => {
      await using sandbox = await client.run({ image: "alpine", args: ["complain", "oh", "no"] })
      const lines: Array<string> = []
      for await (const line of sandbox.logs({ follow: true })) lines.push(LogLine.text(line))
      assert.deepStrictEqual(lines, ["oh no"])
      assert.strictEqual((await sandbox.wait()).exitCode, 3)
      assert.strictEqual((await sandbox.info()).phase, "Failed")
    }))

  it.live("closing the client deletes what is still in use", () =>
    withClient(async (client) => {
      await client.run({ image: "alpine", name: "a" })
      await client.run({ image: "alpine", name: "b" })
      assert.deepStrictEqual((await client.list()).map(({ name }) => name), ["a", "b"])
    }))

  it.live("rejects with the failure itself", () =>
    withClient(async (client) => {
      const error: unknown = await client.get("nope").then(() => undefined, (error: unknown) => error)
      assert.instanceOf(error, NotFound)
    }))

  it.live("leaving an iteration ends it", () =>
    withClient(async (client) => {
      await using _ = await client.run({ image: "alpine", name: "a" })
      for await (const event of client.watch()) {
        if (event._tag === "Synced") break
      }
    }))

  it.live("runs programs and copies files inside of a sandbox", () =>
    withClient(async (client) => {
      await using sandbox = await client.run({ image: "alpine" })
      assert.deepStrictEqual(await sandbox.output({ command: ["cat"], stdin: "hello" }), {
        exitCode: 0,
        stdout: "hello",
        stderr: ""
      })
      const events: Array<string> = []
      for await (const event of client.inside(sandbox.name).exec({ command: ["echo", "a"] })) events.push(event._tag)
      assert.deepStrictEqual(events, ["Output", "Exited"])
      await sandbox.files.write("/tmp/a", "content")
      assert.strictEqual(new TextDecoder().decode(await sandbox.files.read("/tmp/a")), "content")
      const sent = async function*() {
        yield new Uint8Array([1, 2])
      }
      const echoed: Array<Uint8Array> = []
      for await (const bytes of sandbox.connect(80, sent())) echoed.push(bytes)
      assert.deepStrictEqual(Buffer.concat(echoed), Buffer.from([1, 2]))
      for await (const { pids, readBytes, writtenBytes } of sandbox.stats()) {
        assert.deepStrictEqual([pids, readBytes, writtenBytes], [2, 7, undefined])
      }
      assert.deepStrictEqual((await sandbox.processes()).map(({ command }) => command.join(" ")), ["sleep 1"])
    }))

  it.live("a signal gives a call up", () =>
    withClient(async (client) => {
      const controller = new AbortController()
      const call = client.run({ image: "alpine", name: "a", args: ["slow"], signal: controller.signal })
      const outcome = call.then(() => "answered", () => "given up")
      for await (const event of client.watch()) {
        if (event._tag === "Added") break
      }
      controller.abort()
      assert.strictEqual(await outcome, "given up")
    }))
})
