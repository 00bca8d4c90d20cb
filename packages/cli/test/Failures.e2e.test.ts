/**
 * What goes wrong with sandboxes, from outside: each has an outcome that says what it was, and costs the others nothing.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Clock, DateTime, Effect, FileSystem, Stream } from "effect"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const tiers = ["parked", "prepared", "cold"] as const

type Tier = typeof tiers[number]

/** Nothing waits parked in it, so that starts from it are prepared, or cold where the image is new. */
const unparked = "unparked"
const parked = "parked"

const poolOf = (tier: Tier): string => tier === "parked" ? parked : unparked

const pools = Effect.gen(function*() {
  const spec = { capacity: { poolMin: 1, poolMax: 1 }, maxSandboxesPerPod: 6 }
  yield* Resources.declarePool(parked, { ...spec, warmImages: [{ image: "busybox", parked: 2 }] })
  yield* Resources.declarePool(unparked, { ...spec, warmImages: [{ image: "busybox", parked: 0 }] })
  yield* eventually(Effect.gen(function*() {
    assert.strictEqual((yield* Resources.pool(unparked)).status?.ready, 1)
  }))
})

let coldImages = 0

/** An image that containerd has and has not unpacked. */
const coldImage = Effect.gen(function*() {
  const { home } = yield* LocalStack.LocalStack
  const files = yield* FileSystem.FileSystem
  const busybox = yield* TestImages.busybox
  const number = ++coldImages
  const name = `docker.io/library/cold-${number}:latest`
  const archive = yield* files.makeTempFileScoped({ prefix: "fsb-cold-" })
  const layers = [...busybox.layers, [{ _tag: "File", path: "number", content: String(number) } as const]]
  yield* OciArchive.make([{ ...busybox, names: [name], layers }]).pipe(Stream.run(files.sink(archive)))
  const socket = `${home}/containerd/containerd.sock`
  yield* Resources.stdoutOf(
    LocalStack.run("ctr", ["-a", socket, "-n", "k8s.io", "images", "import", "--no-unpack", archive])
  )
  return name
}).pipe(Effect.scoped)

/** Makes ready what a start of the tier needs; gives its image. */
const ready = (tier: Tier) =>
  Effect.gen(function*() {
    if (tier === "cold") {
      return yield* coldImage
    }
    if (tier === "parked") {
      yield* eventually(Effect.gen(function*() {
        assert.isAbove((yield* Resources.pool(parked)).status?.slots?.parked ?? 0, 0)
      }))
    }
    return "busybox"
  })

const slotsUsed = (pool: string) => Effect.map(Resources.pool(pool), ({ status }) => status?.slots?.used)

const events = (name: string) =>
  Effect.flatMap(LocalStack.LocalStack, ({ fsbCtl }) => Resources.stdoutOf(fsbCtl("events", name)))

const ends = [
  { args: ["sh", "-c", "exit 3"], is: { phase: "Failed", reason: "Error", exitCode: 3 }, event: / Warning +Error / },
  { args: ["true"], is: { phase: "Succeeded", reason: "Completed", exitCode: 0 }, event: / Normal +Succeeded / }
] as const

const remove = (name: string) =>
  Sandboxes.use((sandboxes) => Effect.andThen(sandboxes.delete(name), sandboxes.waitForDeletion(name)))

/** By the reason with which a program can't be started. */
const badPrograms = [
  { program: "/nope", code: 127, says: /^fsb-ctl: \/nope could not be started: there is no such program in the image/ },
  { program: "/etc/passwd", code: 126, says: /^fsb-ctl: \/etc\/passwd could not be started: it is no file that the / },
  { program: "/etc", code: 126, says: /^fsb-ctl: \/etc could not be started: it is no file that / }
] as const

describe("what goes wrong", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("an end within milliseconds is told in every tier: phase, reason, code, Event, slot, within 100 ms", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* pools
        const lateMillis = new Map<string, number>()
        yield* sandboxes.watch().pipe(
          Stream.runForEach((event) =>
            Effect.gen(function*() {
              if (event._tag === "Synced" || event.sandbox.finishedAt === undefined) return
              const { finishedAt, name } = event.sandbox
              const late = DateTime.toEpochMillis(yield* DateTime.now) - DateTime.toEpochMillis(finishedAt)
              if (!lateMillis.has(name)) lateMillis.set(name, late)
            })
          ),
          Effect.forkScoped
        )
        for (const tier of tiers) {
          for (const consistencyMode of ["fast", "strong"] as const) {
            for (const { args, event, is } of ends) {
              const name = `${tier}-${consistencyMode}-${is.exitCode}`
              const image = yield* ready(tier)
              const created = yield* sandboxes.create({ name, image, pool: poolOf(tier), args, consistencyMode })
              assert.strictEqual(created.startup?.tier, tier)
              assert.deepInclude(yield* sandboxes.wait(name, { for: terminal }), is)
              yield* eventually(Effect.gen(function*() {
                const status = yield* Resources.status(name)
                assert.deepInclude(status, is)
                assert.isString(status.finishedAt)
                assert.match(yield* events(name), event)
                assert.strictEqual(yield* slotsUsed(poolOf(tier)), 0)
              }))
              yield* remove(name)
            }
          }
        }
        assert.strictEqual(lateMillis.size, tiers.length * 2 * ends.length)
        // The best of them, because a busy machine makes any one late; what waits for a write or a poll always is.
        assert.isBelow(Math.min(...lateMillis.values()), 100)
      }).pipe(Effect.scoped))

    it.effect("a program that can't be started says why, in every tier and by fsb-ctl's exit code", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        yield* pools
        for (const tier of tiers) {
          for (const { code, program, says } of badPrograms) {
            const image = yield* ready(tier)
            const ran = yield* fsbCtl("run", "never", "--image", image, "--pool", poolOf(tier), "--", program)
            assert.strictEqual(ran.code, code, ran.stderr)
            assert.strictEqual(ran.stdout, "")
            assert.match(ran.stderr, says)
          }
        }
        assert.deepStrictEqual(yield* sandboxes.list(), [])
        yield* Resources.declareSandbox("declared", { image: "busybox", poolRef: unparked, args: ["/nope"] })
        yield* eventually(Effect.gen(function*() {
          assert.deepInclude(yield* Resources.status("declared"), { phase: "Failed", reason: "CommandNotFound" })
          assert.match(yield* events("declared"), / Warning +CommandNotFound /)
          assert.strictEqual(yield* slotsUsed(unparked), 0)
        }))
        yield* Resources.deleteAll("sandbox", "declared")
      }))

    it.effect("an image whose user is none is refused, by its name", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        yield* pools
        const recipe = yield* TestImages.variant("docker.io/library/haunted:latest", { user: "ghost" })
        yield* sandboxes.images.load(OciArchive.make([recipe])).pipe(Stream.runDrain)
        const { code, stderr } = yield* fsbCtl("run", "never", "--image", "haunted", "--pool", unparked, "--", "true")
        assert.strictEqual(code, 125)
        assert.match(stderr, /^fsb-ctl: .*ghost/)
        assert.deepStrictEqual(yield* sandboxes.list(), [])
        yield* Resources.declareSandbox("declared", { image: "haunted", poolRef: unparked, args: ["true"] })
        yield* eventually(Effect.gen(function*() {
          assert.deepInclude(yield* Resources.status("declared"), { phase: "Failed", reason: "UnknownUser" })
        }))
        yield* Resources.deleteAll("sandbox", "declared")
        // A user of the request need not be in the image.
        yield* sandboxes.create({
          name: "number",
          image: "busybox",
          pool: unparked,
          args: ["sh", "-c", "[ $(id -u) = 4242 ]"],
          securityContext: { runAsUser: 4242 }
        })
        assert.strictEqual((yield* sandboxes.wait("number", { for: terminal })).phase, "Succeeded")
        yield* remove("number")
      }))

    it.effect("an expiry that is over starts nothing", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const refused = yield* Effect.flip(sandboxes.create({
          name: "late",
          image: "busybox",
          args: ["sleep", "600"],
          expireTime: DateTime.makeUnsafe("2020-01-01T00:00:00Z")
        }))
        assert.deepInclude(refused, { _tag: "InvalidArgument", field: "spec.expireTime" })
        assert.deepStrictEqual(yield* sandboxes.list(), [])
        const expireTime = "2020-01-01T00:00:00Z"
        const spec = { image: "busybox", poolRef: "default-pool", args: ["sleep", "600"] }
        yield* Resources.declareSandbox("late", { ...spec, expireTime })
        const info = yield* sandboxes.wait("late", { for: new Set(["Expired"]) })
        assert.deepInclude(info, { instanceId: "", reason: "Expired" })
        assert.deepStrictEqual(yield* Machine.containers("late"), [])
        yield* Resources.deleteAll("sandbox", "late")
      }))

    it.effect("a program that fills its disk is ended, and its neighbours start and run on", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* pools
        const neighbour = {
          image: "busybox",
          pool: unparked,
          args: ["sh", "-c", "while :; do date > /now; sleep 0.05; done"]
        }
        const before = yield* sandboxes.create({ ...neighbour, name: "before" })
        yield* sandboxes.create({
          name: "filler",
          image: "busybox",
          pool: unparked,
          args: ["sh", "-c", "dd if=/dev/zero of=/full bs=1M count=64; sleep 600"],
          resources: { ephemeralStorage: "16Mi" }
        })
        yield* sandboxes.create({ ...neighbour, name: "after" })
        const ended = yield* sandboxes.wait("filler", { for: terminal })
        assert.deepInclude(ended, { phase: "Failed", reason: "DiskExceeded", signal: 9 })
        yield* eventually(Effect.map(events("filler"), (text) => assert.match(text, / Warning +DiskExceeded /)))
        assert.deepInclude(yield* sandboxes.get("before"), { phase: "Running", instanceId: before.instanceId })
        assert.strictEqual((yield* sandboxes.get("after")).phase, "Running")
        yield* Effect.forEach(["before", "filler", "after"], (name) => sandboxes.delete(name, { force: true }), {
          concurrency: "unbounded"
        })
        yield* eventually(Effect.map(sandboxes.list(), (all) => assert.deepStrictEqual(all, [])))
      }))
  })

  layer(TestStack.layerOnContainerd, TestStack.options)("on a machine whose containerd", (it) => {
    const common = { image: "busybox", pool: unparked, terminationGracePeriodSeconds: 0 }
    const ticks = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.1; done"
    const refused = Effect.fnUntraced(function*(name: string) {
      const { fsbCtl } = yield* LocalStack.LocalStack
      const { code, stderr } = yield* fsbCtl("run", "-d", name, "--image", "busybox", "--pool", unparked, "--", "true")
      assert.strictEqual(code, 125)
      assert.match(stderr, /^fsb-ctl: containerd is unavailable: [^\n]+\n$/)
    })

    it.effect("is stopped for a minute: starts are refused, sandboxes run on, and all settles when it is back", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const { directory, pid } = yield* TestStack.Daemon
        const sandboxes = yield* Sandboxes
        yield* pools
        const ticker = yield* sandboxes.create({ ...common, name: "ticker", args: ["sh", "-c", ticks] })
        yield* sandboxes.create({ ...common, name: "ender", args: ["sh", "-c", "sleep 2; exit 4"] })
        yield* sandboxes.create({ ...common, name: "leaver", args: ["sleep", "600"] })
        process.kill(pid, "SIGTERM")
        yield* eventually(
          Effect.map(ContainerdDaemon.find(directory), (found) => assert.isUndefined(found))
        )
        const stoppedAt = yield* Clock.currentTimeMillis
        yield* refused("meanwhile")
        yield* Resources.declareSandbox("patient", { image: "busybox", poolRef: unparked, args: ["sleep", "600"] })
        yield* Effect.forkChild(sandboxes.delete("leaver"))
        // The outage itself, whose length is what is asked for.
        yield* Effect.sleep(60_000 - ((yield* Clock.currentTimeMillis) - stoppedAt))
        yield* refused("later")
        assert.deepInclude(yield* sandboxes.get("ticker"), { phase: "Running", instanceId: ticker.instanceId })
        yield* ContainerdDaemon.start({ directory })
        // What ended meanwhile is told, what was refused is not there, what was to be deleted is gone.
        const ended = yield* sandboxes.wait("ender", { for: terminal })
        assert.deepInclude(ended, { phase: "Failed", exitCode: 4, restarts: 0 })
        yield* eventually(Effect.gen(function*() {
          assert.sameMembers((yield* sandboxes.list()).map(({ name }) => name), ["ticker", "ender", "patient"])
          assert.strictEqual((yield* sandboxes.get("patient")).phase, "Running")
          assert.strictEqual(yield* slotsUsed(unparked), 2)
        }))
        assert.deepInclude(yield* sandboxes.get("ticker"), { phase: "Running", instanceId: ticker.instanceId })
        const lines = (yield* Resources.stdoutOf(fsbCtl("logs", "ticker"))).trim().split("\n")
        assert.isAbove(lines.length, 300)
        assert.deepStrictEqual(lines, lines.map((_, n) => String(n + 1)))
        yield* sandboxes.create({ ...common, name: "again", args: ["true"] })
        assert.strictEqual((yield* sandboxes.wait("again", { for: terminal })).phase, "Succeeded")
        yield* Resources.deleteAll("sandbox", "ticker", "ender", "patient", "again")
      }))

    it.effect("hangs: a start is refused in time, and what it left is gone when containerd goes on", () =>
      Effect.gen(function*() {
        const { directory, socket } = yield* TestStack.Daemon
        const { pid } = yield* Effect.fromNullishOr(yield* ContainerdDaemon.find(directory))
        const sandboxes = yield* Sandboxes
        yield* pools
        const ticker = yield* sandboxes.create({ ...common, name: "ticker", args: ["sh", "-c", ticks] })
        // Slots that are taken or cleared away are replaced by others.
        const containers = Effect.map(
          Resources.stdoutOf(LocalStack.run("ctr", ["-a", socket, "-n", "k8s.io", "containers", "list", "--quiet"])),
          (ids) => ids.trim().split("\n").length
        )
        const before = yield* containers
        yield* Effect.acquireUseRelease(
          Effect.sync(() => process.kill(pid, "SIGSTOP")),
          () =>
            Effect.gen(function*() {
              yield* refused("hanging").pipe(Effect.timeout("45 seconds"))
              // What is known by now needs no time.
              yield* refused("other").pipe(Effect.timeout("8 seconds"))
              assert.deepInclude(yield* sandboxes.get("ticker"), { phase: "Running", instanceId: ticker.instanceId })
            }),
          () => Effect.sync(() => process.kill(pid, "SIGCONT"))
        )
        yield* eventually(Effect.gen(function*() {
          assert.deepStrictEqual((yield* sandboxes.list()).map(({ name }) => name), ["ticker"])
          assert.strictEqual(yield* slotsUsed(unparked), 1)
          assert.isAtMost(yield* containers, before + 1, "what ticker took may have been replaced since")
        }))
        assert.deepInclude(yield* sandboxes.get("ticker"), { phase: "Running", instanceId: ticker.instanceId })
        yield* sandboxes.create({ ...common, name: "hanging", args: ["true"] })
        assert.strictEqual((yield* sandboxes.wait("hanging", { for: terminal })).phase, "Succeeded")
        yield* Resources.deleteAll("sandbox", "ticker", "hanging")
      }))
  })
})
