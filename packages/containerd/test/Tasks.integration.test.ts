import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { type ContainerdError, ignoreNotFound } from "@fast-sandbox/containerd/ContainerdError"
import { emptySpec } from "@fast-sandbox/containerd/ContainerRemoval"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Events } from "@fast-sandbox/containerd/Events"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import * as NullDevice from "@fast-sandbox/testkit/NullDevice"
import * as PrivateContainerd from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Deferred, Effect, Fiber, FileSystem, Layer, Ref, Stream } from "effect"
import { execFileSync } from "node:child_process"
import { closeSync, openSync, writeSync } from "node:fs"
import { buildNative, eventually, remove, run, runtimeOf, SIGKILL, SIGTERM, start } from "./Sandbox.ts"

const Loaded = Layer.effectDiscard(Effect.gen(function*() {
  yield* buildNative
  const images = yield* Images
  yield* images.load(OciArchive.make([
    yield* TestImages.busybox,
    yield* TestImages.variant("test.local/greeter:1", {
      entrypoint: ["echo", "entry"],
      cmd: ["default"],
      env: ["GREETING=hi", "PATH=/bin"],
      workingDir: "/tmp",
      user: "app"
    })
  ]))
})).pipe(
  Layer.orDie,
  Layer.provideMerge(PrivateContainerd.layer()),
  Layer.provideMerge(NodeServices.layer),
  Layer.provide(NullDevice.unchanged)
)

for (const name of ["crun", "runc"] as const) {
  layer(Loaded, { excludeTestServices: true, timeout: "60 seconds" })(`Tasks with ${name}`, (it) => {
    it.effect("gives back exit codes and both outputs", () =>
      Effect.gen(function*() {
        const runtime = yield* runtimeOf(name)
        const result = yield* run({ runtime, args: ["sh", "-c", "echo out; echo err >&2; exit 3"] })
        assert.deepStrictEqual(result, { exitCode: 3, output: "out\n", errors: "err\n" })
      }))

    it.effect("signals one process or all, and tells the exit once", () =>
      Effect.gen(function*() {
        const tasks = yield* Tasks
        const runtime = yield* runtimeOf(name)
        const polite = yield* start({
          runtime,
          args: ["sh", "-c", "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"]
        })
        yield* eventually(polite.output, (output) => output.includes("ready"))
        yield* tasks.kill({ containerId: polite.id }, SIGTERM)
        assert.strictEqual((yield* tasks.wait({ containerId: polite.id })).exitCode, 7)
        const process = yield* tasks.get({ containerId: polite.id })
        assert.deepInclude(process, { status: "stopped", exitCode: 7 })
        assert.strictEqual((yield* tasks.delete({ containerId: polite.id })).exitCode, 7)
        assert.include(yield* polite.output, "bye")
        assert.isTrue((yield* Effect.flip(tasks.get({ containerId: polite.id }))).isNotFound)

        const stubborn = yield* start({ runtime, args: ["sh", "-c", "trap '' TERM; sleep 1000 & wait"] })
        const refusal = yield* Effect.flip(tasks.delete({ containerId: stubborn.id }))
        assert.include(["FAILED_PRECONDITION", "UNKNOWN"], refusal.code)
        assert.strictEqual((yield* tasks.get({ containerId: stubborn.id })).status, "running")
        assert.isAtLeast((yield* tasks.pids(stubborn.id)).length, 1)
        yield* tasks.killAll(stubborn.id, SIGKILL)
        assert.strictEqual((yield* tasks.wait({ containerId: stubborn.id })).exitCode, 128 + SIGKILL)
      }))

    it.effect("runs more programs inside", () =>
      Effect.gen(function*() {
        const tasks = yield* Tasks
        const fileSystem = yield* FileSystem.FileSystem
        const { directory } = yield* PrivateContainerd.PrivateContainerd
        const sandbox = yield* start({ runtime: yield* runtimeOf(name), args: ["sleep", "1000"] })
        const execId = "e1"
        const stdout = `${directory}/exec.out`
        yield* fileSystem.writeFileString(stdout, "")
        const process = yield* Effect.fromResult(
          OciSpec.makeProcess(sandbox.image.config, "sandbox", { command: ["sh", "-c", "hostname; exit 5"] })
        )
        yield* tasks.exec({ containerId: sandbox.id, execId, process, stdio: { stdout, stderr: "/dev/null" } })
        yield* tasks.start({ containerId: sandbox.id, execId })
        const ref = { containerId: sandbox.id, execId }
        assert.strictEqual((yield* tasks.wait(ref)).exitCode, 5)
        assert.strictEqual((yield* tasks.delete(ref)).exitCode, 5)
        assert.strictEqual(yield* fileSystem.readFileString(stdout), "sandbox\n")
        yield* fileSystem.remove(stdout)
      }))

    it.effect("feeds stdin until it is closed, and gives a terminal of a size", () =>
      Effect.gen(function*() {
        const tasks = yield* Tasks
        const fileSystem = yield* FileSystem.FileSystem
        const { directory } = yield* PrivateContainerd.PrivateContainerd
        const sandbox = yield* start({ runtime: yield* runtimeOf(name), args: ["sleep", "1000"] })
        const stdin = `${directory}/stdin`
        const stdout = `${directory}/stdout`
        yield* Effect.addFinalizer(() =>
          Effect.orDie(Effect.all([fileSystem.remove(stdin), fileSystem.remove(stdout)]))
        )
        yield* Effect.sync(() => execFileSync("mkfifo", [stdin]))
        yield* fileSystem.writeFileString(stdout, "")
        const execute = Effect.fnUntraced(function*(execId: string, command: string, terminal: boolean) {
          const process = yield* Effect.fromResult(
            OciSpec.makeProcess(sandbox.image.config, "sandbox", { command: ["sh", "-c", command], terminal })
          )
          const stdio = terminal ? { stdin, stdout, terminal } : { stdin, stdout, stderr: "/dev/null" }
          yield* tasks.exec({ containerId: sandbox.id, execId, process, stdio })
          const ref = { containerId: sandbox.id, execId }
          yield* tasks.start(ref)
          return ref
        })
        const cat = yield* execute("cat", "cat; echo end", false)
        // Effect's files write at a position, which a FIFO refuses.
        const open = Effect.sync(() => openSync(stdin, "r+"))
        const cable = yield* open
        yield* Effect.sync(() => writeSync(cable, "hello\n"))
        yield* eventually(fileSystem.readFileString(stdout), (text) => text === "hello\n")
        // Both writers have to go: the shim's and ours.
        yield* Effect.sync(() => closeSync(cable))
        yield* tasks.closeStdin(cat)
        yield* tasks.wait(cat)
        yield* tasks.delete(cat)
        assert.strictEqual(yield* fileSystem.readFileString(stdout), "hello\nend\n")
        const shell = yield* execute("tty", "read x; tty; stty size", true)
        yield* tasks.resizePty(shell, { columns: 123, rows: 45 })
        const keyboard = yield* open
        yield* Effect.sync(() => writeSync(keyboard, "go\n"))
        yield* tasks.wait(shell)
        yield* tasks.delete(shell)
        yield* Effect.sync(() => closeSync(keyboard))
        const output = yield* fileSystem.readFileString(stdout)
        assert.include(output, "/dev/pts/0\r\n45 123\r\n")
      }).pipe(Effect.scoped, Effect.timeout("15 seconds")))

    it.effect("says why a program can't start, and leaves nothing", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(run({ runtime: yield* runtimeOf(name), args: ["/no/such/program"] }))
        assert.strictEqual(error._tag, "ContainerdError")
        assert.match(error.message, /no such file|not found/i)
      }))

    it.effect("follows Kubernetes in what is run, and the image in the rest", () =>
      Effect.gen(function*() {
        const runtime = yield* runtimeOf(name)
        const image = "test.local/greeter:1"
        const output = (program: { readonly command?: Array<string>; readonly args?: Array<string> }) =>
          Effect.map(run({ runtime, image, ...program }), (result) => result.output.trim())
        assert.strictEqual(yield* output({}), "entry default")
        assert.strictEqual(yield* output({ args: ["mine"] }), "entry mine")
        assert.strictEqual(yield* output({ command: ["echo", "alone"] }), "alone")
        assert.strictEqual(yield* output({ command: ["echo"], args: ["both"] }), "both")
        const shown = yield* run({
          runtime,
          image,
          userName: "app",
          env: { EXTRA: "1", GREETING: "hello" },
          command: ["sh", "-c", "echo $GREETING $EXTRA $PATH; pwd; id"]
        })
        assert.strictEqual(
          shown.output,
          "hello 1 /bin\n/tmp\nuid=1000(app) gid=1000(app) groups=2000(staff)\n"
        )
      }))

    it.effect("is hard to break out of", () =>
      Effect.gen(function*() {
        const runtime = yield* runtimeOf(name)
        const script = [
          "grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status | tr -d '\\t '",
          "for n in pid net ipc uts mnt cgroup; do echo $n $(stat -L -c %i /proc/self/ns/$n); done",
          "cat /proc/sched_debug /proc/keys /proc/timer_list 2>/dev/null | wc -c",
          "echo 1 >/proc/sys/kernel/panic && echo WRITABLE",
          "echo b >/proc/sysrq-trigger && echo WRITABLE",
          "unshare -U true && echo USERNS",
          "unshare -m true && echo MOUNTNS",
          "mount -t tmpfs x /tmp && echo MOUNTED",
          "mknod /tmp/disk b 8 0 && echo DEVICE",
          "ps | wc -l",
          "ls /sys/class/net"
        ].join("\n")
        const { output } = yield* run({ runtime, args: ["sh", "-c", script] })
        assert.include(output, "NoNewPrivs:1\n")
        assert.include(output, "Seccomp:2\n")
        // CAP_SYS_ADMIN is bit 21, CAP_NET_RAW 13, CAP_MKNOD 27, CAP_AUDIT_WRITE 29.
        assert.include(output, "CapEff:00000000000405fb\nCapBnd:00000000000405fb\n")
        for (const forbidden of ["WRITABLE", "USERNS", "MOUNTNS", "MOUNTED", "DEVICE"]) {
          assert.notInclude(output, forbidden)
        }
        const fileSystem = yield* FileSystem.FileSystem
        for (const namespace of ["pid", "net", "ipc", "uts", "mnt", "cgroup"]) {
          const own = (yield* fileSystem.readLink(`/proc/self/ns/${namespace}`)).replace(/\D/g, "")
          assert.match(output, new RegExp(`^${namespace} \\d+$`, "m"))
          assert.notInclude(output, `${namespace} ${own}\n`)
        }
        assert.match(output, /^0$/m)
        assert.match(output, /^lo$/m)
        const plain = yield* run({
          runtime,
          userName: "1000",
          args: ["sh", "-c", "grep CapEff /proc/self/status; id -u"]
        })
        assert.match(plain.output, /CapEff:\s+0{16}\n1000\n/)
        const readOnly = yield* run({ runtime, readonlyRoot: true, args: ["sh", "-c", "touch /x || echo refused"] })
        assert.strictEqual(readOnly.output, "refused\n")
      }))

    it.effect("limits, and changes the limits", () =>
      Effect.gen(function*() {
        const tasks = yield* Tasks
        const memoryBytes = 32 * 1024 * 1024
        const sandbox = yield* start({
          runtime: yield* runtimeOf(name),
          args: ["sleep", "1000"],
          resources: { cpu: 0.5, memoryBytes, pids: 20 }
        })
        const usage = yield* tasks.usage(sandbox.id)
        assert.deepInclude({ ...usage }, { memoryLimitBytes: memoryBytes, pidsLimit: 20, oomKills: 0 })
        yield* tasks.update(sandbox.id, OciSpec.makeResources({ memoryBytes: memoryBytes * 2, pids: 30 }))
        const changed = yield* tasks.usage(sandbox.id)
        assert.deepInclude({ ...changed }, { memoryLimitBytes: memoryBytes * 2, pidsLimit: 30 })
        yield* tasks.pause(sandbox.id)
        assert.strictEqual((yield* tasks.get({ containerId: sandbox.id })).status, "paused")
        yield* tasks.resume(sandbox.id)
      }))

    it.effect("removes more than once, and nothing is left", () =>
      Effect.gen(function*() {
        const before = yield* PrivateContainerd.census
        const sandbox = yield* start({ runtime: yield* runtimeOf(name), args: ["sleep", "1000"] })
        const during = yield* PrivateContainerd.census
        assert.deepInclude(during, { containers: [sandbox.id], tasks: [sandbox.id], snapshots: [sandbox.id] })
        assert.lengthOf(during.shims, 1)
        assert.isNotEmpty(during.mounts)
        assert.isNotEmpty(during.cgroups)
        assert.deepStrictEqual(during.runtimeState, [sandbox.id])
        yield* remove(sandbox.id)
        yield* remove(sandbox.id)
        assert.deepStrictEqual(before.containers, [])
        const { files } = yield* PrivateContainerd.census
        yield* eventually(PrivateContainerd.census, (after) =>
          JSON.stringify(after) === JSON.stringify({ ...before, files }))
      }))
  })
}

layer(Loaded, { excludeTestServices: true, timeout: "60 seconds" })("Containers and Events", (it) => {
  it.effect("keeps labels and extensions, and finds by label", () =>
    Effect.gen(function*() {
      const containers = yield* Containers
      const sandbox = yield* start({ runtime: yield* runtimeOf("crun"), args: ["sleep", "1000"] })
      yield* containers.update(sandbox.id, { labels: { "fast-sandbox.io/managed": "true", extra: "1" } })
      yield* containers.update(sandbox.id, { labels: { extra: "" } })
      const [found, ...others] = yield* containers.list(`labels."fast-sandbox.io/managed"==true`)
      assert.lengthOf(others, 0)
      assert.strictEqual(found?.id, sandbox.id)
      assert.deepStrictEqual(found?.labels, { "fast-sandbox.io/managed": "true" })
      const extension = { typeUrl: "fast-sandbox.io/json", value: new TextEncoder().encode("{\"a\":1}") }
      const updated = yield* containers.update(sandbox.id, { extensions: { "fast-sandbox.io/claim": extension } })
      assert.deepStrictEqual(
        Buffer.from(updated.extensions["fast-sandbox.io/claim"]?.value ?? []).toString(),
        "{\"a\":1}"
      )
      assert.isTrue((yield* Effect.flip(containers.get("nobody"))).isNotFound)
    }))

  it.effect("lists more records than fit into one message", () =>
    Effect.gen(function*() {
      const containers = yield* Containers
      const runtime = yield* runtimeOf("crun")
      // 1,200 records of 20 KB are more than the 16 MiB that containerd sends at once.
      const ids = Array.from({ length: 1200 }, (_, index) => `many-${index}`)
      const padding = { typeUrl: "fast-sandbox.io/json", value: new Uint8Array(20_000) }
      const each = (act: (id: string) => Effect.Effect<unknown, ContainerdError>) =>
        Effect.forEach(ids, act, { concurrency: 16, discard: true })
      yield* Effect.acquireRelease(
        each((id) =>
          containers.create({
            id,
            runtime,
            labels: { "fast-sandbox.io/many": "true" },
            extensions: { "fast-sandbox.io/padding": padding },
            spec: emptySpec("")
          })
        ),
        () => Effect.orDie(each((id) => ignoreNotFound(containers.delete(id))))
      )
      const found = yield* containers.list(`labels."fast-sandbox.io/many"==true`)
      assert.deepStrictEqual(found.map(({ id }) => id).toSorted(), ids.toSorted())
      assert.lengthOf(found[0]?.extensions["fast-sandbox.io/padding"]?.value ?? [], padding.value.length)
    }).pipe(Effect.scoped))

  it.effect("tells the exit of a program after saying that it listens", () =>
    Effect.gen(function*() {
      const events = yield* Events
      const seen = yield* Ref.make<ReadonlyArray<string>>([])
      const ready = yield* Deferred.make<void>()
      const listener = yield* events.all.pipe(
        Stream.tap((event) => event._tag === "Subscribed" ? Deferred.succeed(ready, void 0) : Effect.void),
        Stream.runForEach((event) => Ref.update(seen, (all) => [...all, JSON.stringify(event)])),
        Effect.forkChild
      )
      yield* Deferred.await(ready)
      const sandbox = yield* start({ runtime: yield* runtimeOf("crun"), args: ["sh", "-c", "exit 4"] })
      yield* eventually(Ref.get(seen), (all) => all.some((event) => event.includes("TaskExited")))
      const tags = (yield* Ref.get(seen)).map((event) => {
        const { _tag, containerId, exitCode } = JSON.parse(event)
        return [_tag, containerId, exitCode].filter((part) => part !== undefined).join(" ")
      })
      assert.strictEqual(tags[0], "Subscribed")
      assert.include(tags, `TaskExited ${sandbox.id} 4`)
      yield* Fiber.interrupt(listener)
    }))
})
