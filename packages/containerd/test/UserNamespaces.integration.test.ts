import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { isOpen, rangeOf, UserNamespaces } from "@fast-sandbox/containerd/UserNamespaces"
import * as NullDevice from "@fast-sandbox/testkit/NullDevice"
import * as PrivateContainerd from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Effect, FileSystem, Layer } from "effect"
import { execFileSync } from "node:child_process"
import { chmodSync, mkdirSync } from "node:fs"
import { buildNative, run, runtimeOf } from "./Sandbox.ts"

const layered = "test.local/layered:1"

const Loaded = Layer.effectDiscard(Effect.gen(function*() {
  yield* buildNative
  const busybox = yield* TestImages.busybox
  yield* Images.use((images) =>
    images.load(OciArchive.make([busybox, {
      ...busybox,
      names: [layered],
      layers: [...busybox.layers, [{ _tag: "File", path: "etc/second", content: "layer" }]]
    }]))
  )
})).pipe(
  Layer.orDie,
  Layer.provideMerge(PrivateContainerd.layer()),
  Layer.provideMerge(NodeServices.layer),
  Layer.provide(NullDevice.unchanged)
)

const range = rangeOf("some agent")

/** The range of the agent `some agent`, with its mounts in `layers` below the test's directory. */
const make = (binary = "bin/fsb-idmap") =>
  Effect.gen(function*() {
    const { directory } = yield* PrivateContainerd.PrivateContainerd
    const options = {
      directory: `${directory}/layers`,
      binary: `${directory}/${binary}`,
      range,
      snapshotter: "overlayfs"
    }
    const context = yield* Layer.build(UserNamespaces.layer(options))
    return yield* Effect.provide(UserNamespaces, context)
  })

const mountsOf = (below: string) =>
  Effect.map(Proc.mounts, (mounts) => mounts.map(({ path }) => path).filter((path) => path.startsWith(`${below}/`)))

const questions = [
  "cat /proc/self/uid_map",
  "stat -c %u:%g / /bin/busybox /tmp",
  "touch /new /tmp/new && chown 1000:1000 /new && stat -c %u:%g /new /tmp/new",
  "cat /etc/second 2>/dev/null",
  "echo 1 2>/dev/null >/proc/sys/net/ipv4/ip_forward || echo refused",
  "ls /sys/class/net",
  "[ -r /sys/fs/cgroup ] && echo cgroup",
  "ls -d /dev/null /dev/pts /dev/shm /dev/mqueue"
].join("; ")

/** Has the machine's /sys propagate what is mounted on it, as systemd has everything, until the scope closes. */
const sharedSys = Effect.acquireRelease(
  Effect.sync(() => {
    const [before = ""] = execFileSync("findmnt", ["-no", "PROPAGATION", "/sys"], { encoding: "utf8" }).split("\n")
    execFileSync("mount", ["--make-rshared", "/sys"])
    return before
  }),
  (before) => Effect.sync(() => execFileSync("mount", [`--make-r${before}`, "/sys"]))
)

layer(Loaded, { excludeTestServices: true, timeout: "60 seconds" })("UserNamespaces", (it) => {
  for (const name of ["crun", "runc"] as const) {
    it.effect(`mounts nothing on the machine for a sandbox of ${name}, though what is mounted there propagates`, () =>
      Effect.gen(function*() {
        const userNamespaces = yield* make()
        const runtime = yield* runtimeOf(name)
        const netns = `userns-sys-${name}`
        yield* Effect.acquireRelease(
          Effect.sync(() => execFileSync("ip", ["netns", "add", netns])),
          () => Effect.sync(() => execFileSync("ip", ["netns", "delete", netns]))
        )
        yield* sharedSys
        const mounts = Effect.map(
          Proc.mounts,
          (all) => all.map(({ path }) => path).filter((path) => path.startsWith("/sys"))
        )
        const before = yield* mounts
        const { errors, output } = yield* run({
          runtime,
          userNamespaces,
          netnsPath: `/run/netns/${netns}`,
          args: ["sh", "-c", "[ -r /sys/fs/cgroup ] && echo cgroup"]
        })
        assert.strictEqual(output, "cgroup\n", errors)
        assert.deepStrictEqual(yield* mounts, before)
      }).pipe(Effect.scoped))

    it.effect(`gives a sandbox of ${name} its files, with a network of its own or a given one`, () =>
      Effect.gen(function*() {
        const userNamespaces = yield* make()
        const runtime = yield* runtimeOf(name)
        assert.deepStrictEqual(userNamespaces.range, range)
        const netns = `userns-${name}`
        yield* Effect.acquireRelease(
          Effect.sync(() => execFileSync("ip", ["netns", "add", netns])),
          () => Effect.sync(() => execFileSync("ip", ["netns", "delete", netns]))
        )
        const answer = (second: string, interfaces: string) =>
          new RegExp([
            `^\\s+0\\s+${range.hostId}\\s+${range.size}`,
            "0:0\n0:0\n0:0",
            "1000:1000\n0:0",
            `${second}refused`,
            `${interfaces}cgroup`,
            "/dev/mqueue\n/dev/null\n/dev/pts\n/dev/shm\n$"
          ].join("\n"))
        const own = yield* run({ runtime, userNamespaces, args: ["sh", "-c", questions] })
        assert.match(own.output, answer("", "lo\n"), own.errors)
        const given = yield* run({
          runtime,
          userNamespaces,
          image: layered,
          netnsPath: `/run/netns/${netns}`,
          args: ["sh", "-c", questions]
        })
        // The host's sysfs, without the names of the host's interfaces.
        assert.match(given.output, answer("layer", ""), given.errors)
        const user = yield* run({
          runtime,
          userNamespaces,
          userName: "app",
          args: ["sh", "-c", "id -u; touch /x || id -G"]
        })
        assert.strictEqual(user.output, "1000\n1000 2000\n")
      }).pipe(Effect.scoped))
  }

  it.effect("mounts a layer once, read-only, and leaves nothing", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd.PrivateContainerd
      const below = `${directory}/layers`
      yield* Effect.scoped(Effect.gen(function*() {
        const userNamespaces = yield* make()
        const runtime = yield* runtimeOf("crun")
        assert.deepStrictEqual(yield* mountsOf(below), [])
        yield* Effect.all([1, 2, 3].map(() => run({ runtime, userNamespaces, image: layered, args: ["true"] })), {
          concurrency: 3
        })
        const mounted = yield* mountsOf(below)
        assert.lengthOf(mounted, 2)
        const files = yield* FileSystem.FileSystem
        // Whoever removes a folder with a layer in it does not remove the layer.
        yield* Effect.ignore(files.remove(below, { recursive: true, force: true }))
        const survivors = yield* Effect.filter(mounted, (path) => files.exists(`${path}/etc/second`))
        assert.lengthOf(survivors, 1)
      }))
      assert.deepStrictEqual(yield* mountsOf(below), [])
      assert.deepStrictEqual(
        yield* Snapshots.use((snapshots) =>
          Effect.map(snapshots.list(), (all) => all.filter(({ kind }) => kind === "active"))
        ),
        []
      )
    }))

  it.effect("takes up what a killed predecessor left", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd.PrivateContainerd
      const left = `${directory}/layers/0`
      mkdirSync(left, { recursive: true })
      execFileSync("mount", ["--bind", `${directory}/bin`, left])
      yield* Effect.scoped(Effect.gen(function*() {
        const userNamespaces = yield* make()
        const { output } = yield* run({
          runtime: yield* runtimeOf("crun"),
          userNamespaces,
          args: ["stat", "-c", "%u", "/bin"]
        })
        assert.strictEqual(output, "0\n")
      }))
      assert.deepStrictEqual(yield* mountsOf(`${directory}/layers`), [])
    }))

  it.effect("says why it is off where it can't be had", () =>
    Effect.gen(function*() {
      const { range, reason, rootfs } = yield* make("bin/nothing")
      assert.isUndefined(range)
      assert.include(reason, "bin/nothing")
      const mounts = [{ type: "bind", source: "/", options: [] }]
      assert.deepStrictEqual(yield* rootfs(mounts), mounts)
    }).pipe(Effect.scoped))

  it.effect("knows which folders others may enter", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd.PrivateContainerd
      mkdirSync(`${directory}/closed/open`, { recursive: true })
      assert.isTrue(yield* isOpen(`${directory}/closed/open`))
      chmodSync(`${directory}/closed`, 0o700)
      assert.isFalse(yield* isOpen(`${directory}/closed/open`))
      assert.isFalse(yield* isOpen("/nowhere"))
    }))
})
