/**
 * The first process of a slot against what is no orders. It runs here without privileges, so that orders that are right
 * end where it would leave its slot, and whatever slips through can do nothing to the machine.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Orders from "@fast-sandbox/agent/parked/Orders"
import * as SlotChannel from "@fast-sandbox/agent/parked/SlotChannel"
import { Effect } from "effect"
import { execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll } from "vitest"

const native = fileURLToPath(new URL("../../native", import.meta.url))
let out = ""

beforeAll(() => {
  out = mkdtempSync(join(tmpdir(), "fsb-init-"))
  execFileSync("make", ["-s", "-C", native, `OUT=${out}`])
  chmodSync(out, 0o755)
})
afterAll(() => rmSync(out, { recursive: true, force: true }))

const nobody = 65534

/** How init exits when it was given no orders, and when it could not carry them out. */
const noOrders = 250
const notStarted = 125

const directory = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "fsb-slot-"))
    chmodSync(path, 0o755)
    return path
  }),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** An init that has connected, and how it exits. */
const start = Effect.gen(function*() {
  const slot = yield* directory
  const awaited = yield* SlotChannel.listen(slot)
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(`${out}/fsb-init`, [slot], { stdio: "ignore", uid: nobody, gid: nobody })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const exit = once(child, "exit")
  return { slot, child, channel: yield* awaited, exited: Effect.promise(async () => Number((await exit)[0])) }
})

/** Proof that something was executed. */
const proof = () => join(out, "executed")

const orders = () =>
  Orders.encode({
    hostname: "",
    process: {
      terminal: false,
      user: { uid: nobody, gid: nobody, additionalGids: [1, 2] },
      args: ["/bin/sh", "-c", `touch ${proof()}`],
      env: ["A=b"],
      cwd: "/",
      capabilities: { bounding: ["CAP_CHOWN"], effective: [], permitted: [] },
      rlimits: [{ type: "RLIMIT_CORE", soft: 0, hard: 0 }],
      noNewPrivileges: true
    }
  })

const answered = (bytes: Uint8Array) =>
  Effect.gen(function*() {
    const { channel, exited } = yield* start
    const report = yield* channel.order(bytes)
    return { report, exitCode: yield* exited }
  }).pipe(Effect.timeout("10 seconds"), Effect.scoped)

/** Numbers that look random and are the same in every run. */
const random = (seed: number) => () => {
  seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
  return seed
}

describe("fsb-init", () => {
  it.live("sleeps until it is given orders, and leaves nobody a way in", () =>
    Effect.gen(function*() {
      const { channel, child, exited, slot } = yield* start
      assert.isFalse(existsSync(join(slot, "ctl")))
      const stat = () => readFileSync(`/proc/${child.pid}/stat`, "utf8").split(" ")
      assert.strictEqual(stat()[2], "S")
      assert.strictEqual(stat()[13], "0", "ticks in user mode")
      child.kill("SIGKILL")
      yield* channel.ended
      yield* exited
      assert.deepStrictEqual(yield* channel.order(orders()), { _tag: "Died" })
    }).pipe(Effect.scoped))

  it.live("ends with its agent", () =>
    Effect.gen(function*() {
      const exited = yield* Effect.scoped(Effect.map(start, ({ exited }) => exited)).pipe(
        Effect.andThen((exited) => exited)
      )
      assert.oneOf(exited, [noOrders, 0], "ended by itself, or by the end of the test")
    }))

  it.live("refuses what it can't carry out, and says where", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* answered(orders()), {
        report: { _tag: "Refused", step: "leaving the slot", errno: 1 },
        exitCode: notStarted
      })
      const long = orders()
      long.writeUInt32LE(9 * 1024 * 1024, 4)
      assert.deepStrictEqual((yield* answered(long)).report, { _tag: "Refused", step: "reading its orders", errno: 7 })
      const many = orders()
      many.writeUInt32LE(2 ** 31, 28)
      assert.deepStrictEqual((yield* answered(many)).report, { _tag: "Refused", step: "reading its orders", errno: 22 })
    }))

  it.live("waits for the whole of its orders, and ends when they do", () =>
    Effect.gen(function*() {
      const whole = orders()
      yield* Effect.forEach([1, 63, 64, 65, whole.length - 1], (bytes) =>
        Effect.gen(function*() {
          const { channel, exited } = yield* start
          yield* Effect.forkScoped(channel.order(whole.subarray(0, bytes)))
          return exited
        }).pipe(
          Effect.scoped,
          Effect.flatten,
          Effect.timeout("10 seconds"),
          Effect.map((exitCode) => assert.oneOf(exitCode, [noOrders, 0]))
        ), { concurrency: 4 })
    }))

  it.live("executes nothing of what is garbled", () =>
    Effect.gen(function*() {
      const next = random(20_261_125)
      const garbled = Array.from({ length: 200 }, () => {
        const bytes = Buffer.from(orders())
        for (let changes = next() % 8; changes >= 0; changes--) {
          // The length is left as it is: more would only be waited for.
          const at = next() % bytes.length
          bytes[at < 8 ? at + 8 : at] = next() % 256
        }
        return bytes
      })
      const reports = yield* Effect.forEach(garbled, answered, { concurrency: 4 })
      assert.isTrue(reports.every(({ report }) => report._tag === "Refused"), "none is executed, none crashes")
      assert.isTrue(reports.every(({ exitCode }) => exitCode === notStarted))
      assert.isFalse(existsSync(proof()))
    }), 60_000)
})
