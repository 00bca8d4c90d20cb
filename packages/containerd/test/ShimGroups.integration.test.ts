import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { detect, isOn, RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { ShimGroups } from "@fast-sandbox/containerd/ShimGroups"
import { stockShim } from "@fast-sandbox/containerd/ShimRuntime"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as PrivateContainerd from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Layer } from "effect"
import { eventually, run, start } from "./Sandbox.ts"

const Profile = Layer.unwrap(
  Effect.map(
    PrivateContainerd.PrivateContainerd,
    ({ daemon }) => RuntimeProfile.layer({ runtimeDirectory: daemon.runtimeDirectory })
  )
)

const Loaded = Layer.effectDiscard(Effect.gen(function*() {
  yield* (yield* Images).load(OciArchive.make([yield* TestImages.busybox]))
})).pipe(
  Layer.provideMerge(Profile),
  Layer.orDie,
  Layer.provideMerge(PrivateContainerd.layer()),
  Layer.provideMerge(NodeServices.layer)
)

const count = 2

/** A life of an agent: groups that go away with it when it says so, and stay when it does not. */
const Groups = Layer.unwrap(
  Effect.map(
    PrivateContainerd.PrivateContainerd,
    ({ cgroupsPath, directory }) =>
      ShimGroups.layer({
        directory: `${directory}/groups`,
        name: "agent",
        count,
        cgroupsPath,
        labels: { owner: "test" }
      })
  )
)

const allUp = Effect.gen(function*() {
  const { groups } = yield* ShimGroups
  return yield* eventually(groups, (all) => all.length === count && all.every(({ isUp }) => isUp))
})

const shimCount = Effect.gen(function*() {
  const { daemon } = yield* PrivateContainerd.PrivateContainerd
  return (yield* Proc.shims(daemon.socket)).length
})

layer(Loaded, { excludeTestServices: true, timeout: "60 seconds" })("ShimGroups", (it) => {
  it.effect("knows what this machine offers, and why not", () =>
    Effect.gen(function*() {
      const { daemon } = yield* PrivateContainerd.PrivateContainerd
      const profile = yield* RuntimeProfile
      assert.strictEqual(profile.runtime.path, `${daemon.runtimeDirectory}/crun`)
      assert.deepStrictEqual(profile.runtimes.map(({ name }) => name), ["crun", "runc"])
      const names = ["crun", "groupedShim", "readOnlyRuntime", "volatileOverlay"] as const
      assert.deepStrictEqual(names.filter((name) => !isOn(profile, name)), [])
      const plain = yield* detect({ binary: "/usr/sbin/runc" })
      assert.strictEqual(plain.runtime.name, "runc")
      assert.isFalse(isOn(plain, "crun") || isOn(plain, "readOnlyRuntime"))
      assert.isTrue(plain.optimisations.every(({ reason }) => reason !== ""))
      const missing = yield* detect({ binary: "/nowhere/crun" })
      assert.strictEqual(missing.runtime.problem, "neither crun nor runc is installed")
      const kata = yield* detect({ type: "kata" })
      assert.strictEqual(kata.runtime.problem, "containerd-shim-kata-v2 is not installed")
      assert.isFalse(isOn(kata, "groupedShim"))
    }))

  it.effect("shares shims, survives their death and its own restart, and leaves nothing", () =>
    Effect.gen(function*() {
      const fileSystem = yield* FileSystem.FileSystem
      const tasks = yield* Tasks
      const { directory } = yield* PrivateContainerd.PrivateContainerd
      const before = yield* PrivateContainerd.census

      const first = yield* Effect.gen(function*() {
        const groups = yield* ShimGroups
        const up = yield* allUp
        assert.isTrue(up.every(({ shimPid }) => (shimPid ?? 0) > 0))
        assert.notStrictEqual((yield* groups.next).name, (yield* groups.next).name)
        const sandboxes = yield* Effect.forEach([1, 2, 3, 4], () =>
          Effect.flatMap(groups.next, (runtime) => start({ runtime, args: ["sleep", "1000"] })))
        // Four sandboxes and two anchors, but no shim beyond the two.
        assert.strictEqual(yield* shimCount, count)
        const runtime = yield* groups.next
        assert.strictEqual((yield* run({ runtime, args: ["sh", "-c", "echo grouped; exit 6"] })).exitCode, 6)

        // A dead shim takes its own sandboxes along, not the others', and its group comes back.
        const [victim] = up
        process.kill(victim?.shimPid ?? 0, "SIGKILL")
        yield* eventually(groups.groups, (all) =>
          all.length === count && all.every(({ anchorId, isUp }) =>
            isUp && anchorId !== victim?.anchorId
          ))
        const states = yield* Effect.forEach(sandboxes, ({ id }) =>
          tasks.get({ containerId: id }).pipe(
            Effect.map(({ status }): string =>
              status
            ),
            Effect.orElseSucceed(() => "gone")
          ))
        assert.lengthOf(states.filter((status) => status === "running"), 2, states.join())
        assert.strictEqual((yield* run({ runtime: yield* groups.next, args: ["true"] })).exitCode, 0)
        assert.strictEqual((yield* run({ runtime: yield* groups.next, args: ["true"] })).exitCode, 0)
        assert.strictEqual(yield* shimCount, count)
        return yield* groups.groups
      }).pipe(Effect.scoped, Effect.provide(Groups, { local: true }))

      // The next agent of this name finds the anchors again.
      yield* Effect.gen(function*() {
        const groups = yield* ShimGroups
        const found = yield* allUp
        const idsOf = (all: typeof found) => all.map(({ anchorId }) => anchorId).toSorted()
        assert.deepStrictEqual(idsOf(found), idsOf(first))
        // A stale answer is no answer: containers then get a shim of their own.
        const runtime = yield* groups.next
        yield* Effect.forEach([0, 1], (index) =>
          fileSystem.writeFileString(`${directory}/groups/shim-${index}.address`, "1\nunix:///nowhere\n\n"))
        assert.strictEqual((yield* run({ runtime, args: ["true"] })).exitCode, 0)
        yield* Effect.forEach([0, 1], (index) =>
          fileSystem.remove(`${directory}/groups/shim-${index}.address`))
        assert.strictEqual((yield* run({ runtime, args: ["true"] })).exitCode, 0)
        yield* groups.remove
        assert.strictEqual((yield* groups.next).name, stockShim)
      }).pipe(Effect.provide(Groups, { local: true }))

      yield* fileSystem.remove(`${directory}/groups`, { recursive: true })
      yield* eventually(
        PrivateContainerd.census,
        (after) => JSON.stringify(after) === JSON.stringify(before)
      )
    }))
})
