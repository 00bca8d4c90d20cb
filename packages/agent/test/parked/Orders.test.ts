import { assert, describe, it } from "@effect/vitest"
import * as Orders from "@fast-sandbox/agent/parked/Orders"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import { seccompProfile } from "@fast-sandbox/containerd/SeccompProfile"
import { Result, Schema } from "effect"

const image = { entrypoint: [], cmd: ["sh"], env: [], workingDir: "", user: "", stopSignal: "" }

const spec = (changes: Partial<OciSpec.SandboxSpec> = {}): OciSpec.Spec =>
  Result.getOrThrow(OciSpec.make({ image, hostname: "box", cgroupsPath: "/x/1", seccomp: seccompProfile, ...changes }))

const words = (...all: ReadonlyArray<number>) => Buffer.from(Uint32Array.from(all).buffer)

describe("Orders", () => {
  it("hand over the process and nothing else", () => {
    const { process } = spec({ command: ["a", ""], env: { V: "ü" }, user: { uid: 7, gid: 8, additionalGids: [9] } })
    const orders = Orders.encode({ hostname: "h", process })
    assert.strictEqual(orders.readUInt32LE(4), orders.length - 64)
    assert.deepStrictEqual([orders.readUInt32LE(8), orders.readUInt32LE(12), orders.readUInt32LE(64)], [7, 8, 9])
    assert.strictEqual(orders.readBigUInt64LE(48), 0n, "nothing is effective for who is not root")
    const strings = orders.subarray(64 + 4 + 24 * process.rlimits.length).toString().split("\0")
    assert.deepStrictEqual(strings, ["h", process.cwd, "a", "", ...process.env, ""])
  })

  it("are reported on in full", () => {
    assert.deepStrictEqual(Orders.decode(words()), { _tag: "Died" })
    assert.deepStrictEqual(Orders.decode(words(0)), { _tag: "Died" }, "half a word is none")
    assert.deepStrictEqual(Orders.decode(words(0, 0)), { _tag: "Executed" })
    assert.deepStrictEqual(Orders.decode(words(0, 0, 10, 2)), {
      _tag: "Refused",
      step: "executing the program",
      errno: 2
    })
    assert.strictEqual(Orders.decode(words(99, 1))._tag, "Refused")
  })

  it.prop("are reported on whatever init says", [
    Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
  ], ([
    said
  ]) => {
    const report = Orders.decode(Buffer.from(said))
    assert.oneOf(report._tag, ["Executed", "Refused", "Died"])
    // Nothing but a whole word that says so counts as a start.
    assert.isTrue(report._tag !== "Executed" || said.slice(0, 4).every((byte) => byte === 0))
    return true
  })

  it("serve who differs only in what can be handed over or limited", () => {
    const fixed = Orders.fixedPart(spec())
    const other = { command: ["x"], env: { A: "1" }, workingDir: "/w", hostname: "other", user: { uid: 1, gid: 1 } }
    assert.strictEqual(
      Orders.fixedPart(spec({ ...other, cgroupsPath: "/x/2", resources: { cpu: 2, memoryBytes: 1, pids: 3 } })),
      fixed
    )
    assert.notStrictEqual(Orders.fixedPart(spec({ readonlyRoot: true })), fixed)
    assert.notStrictEqual(Orders.fixedPart(spec({ terminal: true })), fixed)
    assert.notStrictEqual(Orders.fixedPart(spec({ netnsPath: "/run/netns/x" })), fixed)
  })

  it("are awaited with no more privileges than init gives up again", () => {
    const parked = Orders.parkedSpec(spec(), "/slots/1")
    const extra = parked.process.capabilities.bounding.filter((name) =>
      !spec().process.capabilities.bounding.includes(name)
    )
    assert.deepStrictEqual(extra, ["CAP_SYS_ADMIN"])
    const allowed = (seccomp: OciSpec.Seccomp | undefined) =>
      new Set(seccomp?.syscalls.filter(({ action }) => action === "SCMP_ACT_ALLOW").flatMap(({ names }) => names))
    const usual = allowed(seccompProfile)
    const more = [...allowed(parked.linux.seccomp)].filter((name) => !usual.has(name))
    assert.deepStrictEqual(more, ["sethostname", "umount2"])
    assert.isTrue(parked.mounts.at(-1)?.options.includes("ro"))
  })
})
