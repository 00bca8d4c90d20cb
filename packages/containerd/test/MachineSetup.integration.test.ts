import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import * as MachineSetup from "@fast-sandbox/containerd/MachineSetup"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { Effect, FileSystem } from "effect"

const cgroupMounts = Effect.map(
  Proc.mounts,
  (mounts) => mounts.filter(({ type }) => type === "cgroup").map(({ path }) => path).toSorted()
)

const owner = (name: string) =>
  Effect.flatMap(FileSystem.FileSystem, (files) => files.makeTempDirectoryScoped({ prefix: `fsb-${name}-` }))

describe("MachineSetup", () => {
  it.live("mounts the v1 hierarchies that lack a mount, and leaves no cgroup in them to keep them alive", () =>
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const before = yield* cgroupMounts
      const first = yield* owner("first")
      yield* Effect.addFinalizer(() => Effect.orDie(MachineSetup.releaseCgroups(first)))
      yield* MachineSetup.prepareCgroups(first)
      const mounted = (yield* cgroupMounts).filter((path) => !before.includes(path))
      if ((yield* cgroupMounts).length > 0) {
        const controllers = (yield* files.readFileString("/proc/self/cgroup"))
          .split("\n")
          .map((line) => line.split(":")[1] ?? "")
          .filter((names) => names !== "" && !names.startsWith("name="))
        const options = new Set(
          (yield* Proc.mounts).flatMap((mount) => mount.type === "cgroup" ? [...mount.options] : [])
        )
        assert.deepStrictEqual(
          controllers.flatMap((names) => names.split(",")).filter((name) => !options.has(name)),
          []
        )
      }
      yield* Effect.forEach(mounted, (path) => files.makeDirectory(`${path}/fsb-left/behind`, { recursive: true }))

      yield* MachineSetup.releaseCgroups(first)
      assert.deepStrictEqual(yield* cgroupMounts, before)
      yield* MachineSetup.prepareCgroups(first)
      assert.deepStrictEqual(
        yield* Effect.filter(mounted, (path) => files.exists(`${path}/fsb-left`)),
        []
      )
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
