import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import * as ShimRuntime from "@fast-sandbox/containerd/ShimRuntime"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { InstanceState, type WatchResponse } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as NullDevice from "@fast-sandbox/testkit/NullDevice"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Clock, Effect, Fiber, Layer, Stream } from "effect"
import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import * as Fixture from "./AgentFixture.ts"

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer),
  Layer.provide(NullDevice.unchanged)
)

const { EXITED, RUNNING, STOPPING } = InstanceState

const inState = (instanceId: string, state: InstanceState) => (event: WatchResponse["event"]) =>
  event.case === "instanceChanged" && event.value.instanceId === instanceId && event.value.state === state
    ? event.value
    : undefined

const slotsUsed = (event: WatchResponse["event"]) =>
  event.case === "capacityChanged"
    ? event.value.slotsUsed
    : event.case === "state"
    ? event.value.capacity?.slotsUsed
    : undefined

const runtimes = ["crun", "runc"] as const

layer(node, { excludeTestServices: true })("Agent", (it) => {
  describe.each(runtimes)("with %s", (runtime) => {
    const start = Effect.fnUntraced(function*(changes: Fixture.Environment = {}) {
      const { daemon } = yield* PrivateContainerd
      return yield* Fixture.start({ FSB_RUNTIME_BINARY: `${daemon.runtimeDirectory}/${runtime}`, ...changes })
    })

    it.effect("creates, stops with last words, keeps the record and the log, deletes", () =>
      Effect.gen(function*() {
        const before = yield* Fixture.world
        const client = yield* start()
        const request = Fixture.request(
          ["sh", "-c", "trap 'echo bye; exit 7' TERM; echo hello; echo oops >&2; while :; do sleep 0.05; done"],
          { exposedPorts: [8080], envs: [{ name: "A", value: "b" }] }
        )
        const { instance } = yield* client.create(request)
        assert.strictEqual(instance?.state, RUNNING)
        assert.deepStrictEqual(instance?.endpoints, ["127.0.0.9:8080"])
        assert.strictEqual(instance?.startup?.tier, "prepared")
        assert.deepStrictEqual(instance?.startup?.steps.map(({ name }) => name), [
          "admit",
          "image",
          "network",
          "record",
          "snapshot",
          "task",
          "start"
        ])
        yield* Fixture.eventually(
          "hello",
          Effect.map(Fixture.logsOf(client, request.instanceId), (_) => _.includes("hello"))
        )
        const stopped = (yield* client.stop({ instanceId: request.instanceId })).instance
        assert.strictEqual(stopped?.state, EXITED)
        assert.strictEqual(stopped?.reason, "Stopped")
        assert.strictEqual(stopped?.exitCode, 7)
        assert.strictEqual(stopped?.signal, 0)
        assert.sameMembers([...(yield* Fixture.logsOf(client, request.instanceId, true))], ["hello", "oops", "bye"])
        const { containers, ...rest } = yield* Fixture.world
        assert.deepStrictEqual(containers, [...before.containers, request.instanceId].toSorted())
        assert.deepStrictEqual({ containers: before.containers, ...rest }, before)
        yield* client.delete({ instanceId: request.instanceId })
        assert.deepStrictEqual(yield* Fixture.world, before)
        assert.strictEqual((yield* Effect.flip(client.delete({ instanceId: request.instanceId })))._tag, "NotFound")
        assert.strictEqual((yield* Effect.flip(client.stop({ instanceId: request.instanceId })))._tag, "NotFound")
      }).pipe(Effect.scoped))

    it.effect("tells how a program ended, by the watch, within 100 ms, and frees its slot", () =>
      Effect.gen(function*() {
        const client = yield* start()
        const watcher = yield* Fixture.watch(client)
        const codes = [["exit 0", "Completed", 0, 0], ["exit 3", "Error", 3, 0], [
          "kill -9 $$",
          "Error",
          137,
          9
        ]] as const
        const lateMillis = Array<number>()
        for (const [script, reason, exitCode, signal] of codes) {
          // A parent that ends with its child's status, because the first process of a pid namespace can't be killed from inside.
          const line = signal === 0 ? script : `sh -c '${script}'; exit $?`
          const request = Fixture.request(["sh", "-c", line])
          yield* client.create(request)
          const ended = yield* watcher.until(inState(request.instanceId, EXITED))
          lateMillis.push(
            (yield* Clock.currentTimeMillis) -
              Number(ended.finishedAt?.seconds ?? 0n) * 1000 - (ended.finishedAt?.nanos ?? 0) / 1e6
          )
          assert.deepStrictEqual([ended.reason, ended.exitCode, ended.signal], [reason, exitCode, signal])
          yield* client.delete({ instanceId: request.instanceId })
        }
        // The best of them, because a busy machine makes any one late; an agent that polled would be late each time.
        assert.isBelow(Math.min(...lateMillis), 100)
      }).pipe(Effect.scoped))

    it.effect("kills what ignores SIGTERM after its grace period, with its descendants", () =>
      Effect.gen(function*() {
        const before = yield* Fixture.world
        const client = yield* start()
        const request = Fixture.request(
          ["sh", "-c", "trap '' TERM; (trap '' TERM; sleep 1000) & setsid sleep 1000 & while :; do sleep 1; done"],
          { terminationGracePeriodSeconds: 1 }
        )
        yield* client.create(request)
        const begun = performance.now()
        const { instance } = yield* client.stop({ instanceId: request.instanceId })
        assert.isAtLeast(performance.now() - begun, 1000)
        assert.isBelow(performance.now() - begun, 2500)
        assert.strictEqual(instance?.signal, 9)
        assert.strictEqual(instance?.reason, "Stopped")
        yield* client.delete({ instanceId: request.instanceId })
        assert.deepStrictEqual(yield* Fixture.world, before)
      }).pipe(Effect.scoped))

    it.effect("says what is wrong with a command that can't be started, and leaves nothing", () =>
      Effect.gen(function*() {
        const before = yield* Fixture.world
        const client = yield* start()
        for (
          const [program, reason] of [
            ["/nope", "CommandNotFound"],
            ["nope", "CommandNotFound"],
            ["/etc/passwd", "CommandNotExecutable"],
            ["/etc", "CommandNotExecutable"]
          ] as const
        ) {
          const error = yield* Effect.flip(client.create(Fixture.request([program])))
          assert.strictEqual(error._tag, "FailedPrecondition")
          assert.strictEqual(error._tag === "FailedPrecondition" ? error.reason : "", reason)
          assert.match(error.message, new RegExp(`^${program} could not be started: [^\n]+$`))
          assert.deepStrictEqual((yield* client.list({})).instances, [])
        }
        assert.deepStrictEqual(yield* Fixture.world, before)
      }).pipe(Effect.scoped))

    it.effect("tells when memory ran out", () =>
      Effect.gen(function*() {
        const client = yield* start()
        const watcher = yield* Fixture.watch(client)
        const request = Fixture.request(["sh", "-c", "tail /dev/zero"], { memoryBytes: 16n * 1024n * 1024n })
        yield* client.create(request)
        const ended = yield* watcher.until(inState(request.instanceId, EXITED))
        assert.strictEqual(ended.reason, "OOMKilled")
        yield* client.delete({ instanceId: request.instanceId })
      }).pipe(Effect.scoped))
  })

  it.effect("refuses what it can't run", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const refusal = (request: Parameters<typeof client.create>[0]) =>
        Effect.map(Effect.flip(client.create(request)), (error) => [
          error._tag,
          error._tag === "InvalidArgument" ? error.field : error._tag === "FailedPrecondition" ? error.reason : ""
        ])
      const request = Fixture.request(Fixture.sleeper)
      assert.deepStrictEqual(yield* refusal({ ...request, spec: { image: "nowhere" } }), [
        "FailedPrecondition",
        "ImageNotPresent"
      ])
      assert.deepStrictEqual(yield* refusal({ ...request, spec: { image: "" } }), ["InvalidArgument", "spec.image"])
      assert.deepStrictEqual(yield* refusal({ ...request, instanceId: "../x" }), ["InvalidArgument", "instance_id"])
      assert.deepStrictEqual(yield* refusal({ ...request, spec: { image: "busybox", exposedPorts: [80, 80] } }), [
        "InvalidArgument",
        "spec.exposed_ports[1]"
      ])
      assert.deepStrictEqual((yield* client.list({})).instances, [])
    }).pipe(Effect.scoped))

  it.effect("makes sandboxes give way to what starts them, and weighs each by its limit", () =>
    Effect.gen(function*() {
      const { cgroupsPath } = yield* PrivateContainerd
      const client = yield* Fixture.start()
      const request = Fixture.request(Fixture.sleeper, { cpuMillis: 500n })
      yield* client.create(request)
      const legacy = "/sys/fs/cgroup/cpu"
      const weight = (path: string) =>
        existsSync(legacy)
          ? readFileSync(`${legacy}${path}/cpu.shares`, "utf8")
          : readFileSync(`/sys/fs/cgroup${path}/cpu.weight`, "utf8")
      const isLegacy = existsSync(legacy)
      assert.strictEqual(weight(cgroupsPath), isLegacy ? "128\n" : "5\n")
      assert.strictEqual(weight(`${cgroupsPath}/${request.instanceId}`), isLegacy ? "512\n" : "20\n")
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))

  it.effect("answers a repeated create with the same instance", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const request = Fixture.request(Fixture.sleeper)
      const answers = yield* Effect.all(Array.from({ length: 5 }, () => client.create(request)), {
        concurrency: "unbounded"
      })
      answers.push(yield* client.create(request))
      for (const { instance } of answers) {
        assert.deepStrictEqual(instance, answers[0]?.instance)
      }
      assert.lengthOf((yield* client.list({})).instances, 1)
      const other = yield* Effect.flip(client.create({ ...request, spec: { image: "busybox", command: ["true"] } }))
      assert.strictEqual(other._tag, "AlreadyExists")
      yield* client.bind({ instanceId: request.instanceId, resourceUid: "r-1" })
      assert.strictEqual((yield* client.create(request)).instance?.claim?.resourceUid, "r-1")
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
      const late = yield* Effect.flip(client.create(request))
      assert.deepInclude(late, { _tag: "FailedPrecondition", reason: "InstanceDeleted" })
      const overtaken = Fixture.request(Fixture.sleeper)
      yield* Effect.flip(client.delete({ instanceId: overtaken.instanceId }))
      assert.deepInclude(yield* Effect.flip(client.create(overtaken)), { reason: "InstanceDeleted" })
      assert.lengthOf((yield* client.list({})).instances, 0)
    }).pipe(Effect.scoped))

  it.effect("never exceeds its slots, and gives no port twice", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const client = yield* Fixture.start()
      const watcher = yield* Fixture.watch(client)
      const requests = Array.from({ length: 100 }, () => Fixture.request(Fixture.sleeper))
      const results = yield* Effect.forEach(requests, (request) => Effect.result(client.create(request)), {
        concurrency: "unbounded"
      })
      const failures = results.flatMap((result) => result._tag === "Failure" ? [result.failure._tag] : [])
      assert.lengthOf(failures, 100 - Fixture.slots)
      assert.deepStrictEqual(new Set(failures), new Set(["ResourceExhausted"]))
      const { instances } = yield* client.list({})
      assert.lengthOf(instances, Fixture.slots)
      let most = 0
      while (most < Fixture.slots) {
        most = Math.max(most, yield* watcher.until(slotsUsed))
      }
      assert.strictEqual(most, Fixture.slots)
      yield* Effect.forEach(
        instances,
        ({ instanceId }) => client.delete({ instanceId, gracePeriodSeconds: 0 }),
        { concurrency: "unbounded" }
      )
      const ports = yield* Effect.forEach(
        Array.from({ length: 5 }, () => Fixture.request(Fixture.sleeper, { exposedPorts: [7000] })),
        (request) => Effect.result(client.create(request)),
        { concurrency: "unbounded" }
      )
      assert.lengthOf(ports.filter(({ _tag }) => _tag === "Success"), 1)
      for (const { instanceId } of (yield* client.list({})).instances) {
        yield* client.delete({ instanceId, gracePeriodSeconds: 0 })
      }
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  it.effect("leaves a whole sandbox or none when a caller goes away, and none when it is deleted meanwhile", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const client = yield* Fixture.start()
      for (const millis of [0, 1, 2, 4, 6, 8, 10, 13, 16, 20, 25]) {
        const abandoned = Fixture.request(Fixture.sleeper)
        yield* client.create(abandoned).pipe(Effect.timeoutOption(millis))
        yield* Fixture.eventually(
          "settled",
          Effect.map(
            Fixture.listed(client, abandoned.instanceId),
            (instance) => instance === undefined || instance.state === RUNNING
          )
        )
        yield* Effect.ignore(client.delete({ instanceId: abandoned.instanceId, gracePeriodSeconds: 0 }))
        const deleted = Fixture.request(Fixture.sleeper)
        const creation = yield* client.create(deleted).pipe(Effect.result, Effect.forkChild({ startImmediately: true }))
        yield* Effect.sleep(millis)
        const deletion = yield* Effect.result(client.delete({ instanceId: deleted.instanceId, gracePeriodSeconds: 0 }))
        const created = yield* Fiber.join(creation)
        if (created._tag === "Failure") {
          assert.strictEqual(
            created.failure._tag === "FailedPrecondition" ? created.failure.reason : created.failure._tag,
            "InstanceDeleted"
          )
        }
        // It came before the create did.
        if (deletion._tag === "Failure") {
          assert.strictEqual(deletion.failure._tag, "NotFound")
          yield* Effect.ignore(client.delete({ instanceId: deleted.instanceId, gracePeriodSeconds: 0 }))
        }
        assert.deepStrictEqual((yield* client.list({})).instances, [])
      }
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  it.effect("leaves nothing behind after 50 sandboxes", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const client = yield* Fixture.start()
      yield* Effect.forEach(Array.from({ length: 50 }, () => Fixture.request(Fixture.sleeper)), (request) =>
        client.create(request).pipe(
          Effect.andThen(client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 }))
        ), { concurrency: 4, discard: true })
      assert.deepStrictEqual((yield* client.list({})).instances, [])
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  it.effect("shows watchers everything, from the whole state on", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const request = Fixture.request(Fixture.sleeper)
      yield* client.create(request)
      const watcher = yield* Fixture.watch(client)
      const state = yield* watcher.until((event) => event.case === "state" ? event.value : undefined)
      assert.deepStrictEqual(state.instances.map(({ instanceId }) => instanceId), [request.instanceId])
      assert.deepStrictEqual(state.images.map(({ name }) => name), ["docker.io/library/busybox:latest"])
      assert.isAbove(Number(state.images[0]?.sizeBytes), 1000)
      assert.strictEqual(state.capacity?.slotsUsed, 1)
      yield* client.delete({ instanceId: request.instanceId }).pipe(Effect.forkChild)
      yield* watcher.until(inState(request.instanceId, STOPPING))
      yield* watcher.until((event) =>
        event.case === "instanceRemoved" && event.value.instanceId === request.instanceId ? true : undefined
      )
    }).pipe(Effect.scoped))

  it.effect("sees images that others load and remove, and loads them itself", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const watcher = yield* Fixture.watch(client)
      const name = "docker.io/library/other:1"
      const archive = yield* Fixture.archive(name)
      const added = (event: WatchResponse["event"]) =>
        event.case === "imageAdded" && event.value.name === name ? true : undefined
      const removed = (event: WatchResponse["event"]) =>
        event.case === "imageRemoved" && event.value.name === name ? true : undefined
      yield* Fixture.loadBehindItsBack(name)
      yield* watcher.until(added)
      yield* client.removeImage({ image: "other:1" })
      yield* watcher.until(removed)
      const progress = yield* client.loadImage(archive).pipe(Stream.runCollect)
      assert.strictEqual(progress.at(-1)?.status, "done")
      assert.strictEqual(progress.at(-1)?.image, name)
      yield* watcher.until(added)
      const request = Fixture.request(["true"], { image: "other:1" })
      yield* client.create(request)
      yield* watcher.until(inState(request.instanceId, EXITED))
      yield* client.delete({ instanceId: request.instanceId })
      yield* client.removeImage({ image: name })
    }).pipe(Effect.scoped))

  it.effect("labels its containers, and lets no image label them", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start()
      const request = Fixture.request(Fixture.sleeper, { image: "labelled" })
      const recipe = yield* TestImages.variant("docker.io/library/labelled:latest", {
        labels: { "fast-sandbox.io/claim-uid": "stolen", "io.cri-containerd.kind": "container", team: "x" }
      })
      yield* Images.use((images) => images.load(OciArchive.make([recipe])))
      yield* client.create(request)
      const { labels } = yield* Containers.use((containers) => containers.get(request.instanceId))
      assert.strictEqual(labels["fast-sandbox.io/managed"], "true")
      assert.strictEqual(labels["fast-sandbox.io/agent-name"], "agent-1")
      assert.strictEqual(labels["fast-sandbox.io/id"], request.instanceId)
      assert.strictEqual(labels["fast-sandbox.io/claim-uid"], "claim-1")
      assert.strictEqual(labels["fast-sandbox.io/sandbox-name"], "box")
      assert.deepStrictEqual(Object.keys(labels).filter((name) => !name.startsWith("fast-sandbox.io/")), [])
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))

  it.effect("unpacks an image that is here but not unpacked, and says that it was slow", () =>
    Effect.gen(function*() {
      const { chainId } = yield* Images.use((images) => images.resolve("busybox"))
      yield* Snapshots.use((snapshots) => snapshots.remove(chainId))
      const client = yield* Fixture.start()
      const tiers = yield* Effect.forEach(["cold", "prepared"], () => {
        const request = Fixture.request(Fixture.sleeper)
        return client.create(request).pipe(
          Effect.tap(() => client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })),
          Effect.map(({ instance }) => instance?.startup?.tier)
        )
      })
      assert.deepStrictEqual(tiers, ["cold", "prepared"])
    }).pipe(Effect.scoped))

  it.effect("does not touch a container that somebody else gave its id", () =>
    Effect.gen(function*() {
      const { daemon } = yield* PrivateContainerd
      const containers = yield* Containers
      const client = yield* Fixture.start()
      const request = Fixture.request(Fixture.sleeper)
      const image = yield* Images.use((images) => images.resolve("busybox"))
      const spec = yield* Effect.fromResult(
        OciSpec.make({ image: image.config, hostname: "x", cgroupsPath: "/x", command: ["true"] })
      )
      yield* containers.create({
        id: request.instanceId,
        runtime: ShimRuntime.make({ binary: `${daemon.runtimeDirectory}/crun` }),
        spec
      })
      assert.strictEqual((yield* Effect.flip(client.create(request)))._tag, "AlreadyExists")
      assert.deepStrictEqual((yield* client.list({})).instances, [])
      yield* containers.delete(request.instanceId)
    }).pipe(Effect.scoped))

  it.effect("leaves a record alone that it can't read", () =>
    Effect.gen(function*() {
      const containers = yield* Containers
      const identity = { POD_UID: "uid-unreadable", FSB_ON_TERM: "leave" }
      const request = Fixture.request(Fixture.sleeper)
      yield* Fixture.start(identity).pipe(Effect.flatMap((client) => client.create(request)), Effect.scoped)
      yield* containers.update(request.instanceId, {
        extensions: { "fast-sandbox.io/instance": { typeUrl: "agent.v9.Instance", value: new Uint8Array([1]) } }
      })
      const { instances } = yield* Fixture.start(identity).pipe(
        Effect.flatMap((client) => client.list({})),
        Effect.scoped
      )
      assert.deepStrictEqual(instances, [])
      const { status } = yield* Tasks.use((tasks) => tasks.get({ containerId: request.instanceId }))
      assert.strictEqual(status, "running")
    }).pipe(Effect.scoped))

  it.effect("runs without a logger, and says where the output is then", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start({ FSB_LOGGER_BINARY: "/nowhere/fsb-logger" })
      const request = Fixture.request(["sh", "-c", "echo hi; sleep 1000"])
      yield* client.create(request)
      const error = yield* Effect.flip(Fixture.logsOf(client, request.instanceId))
      assert.strictEqual(error._tag, "FailedPrecondition")
      const [, directory = ""] = / in (\/\S+) on the node/.exec(error.message) ?? []
      yield* Fixture.eventually("hi", Effect.sync(() => readFileSync(`${directory}/stdout`, "utf8") === "hi\n"))
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
      assert.isFalse(existsSync(directory))
    }).pipe(Effect.scoped))

  it.effect("runs on when the disk of the logs is full, and logs again when there is room", () =>
    Effect.gen(function*() {
      const { directory } = yield* PrivateContainerd
      const logs = `${directory}/full`
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          mkdirSync(logs)
          execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "none", logs])
        }),
        () => Effect.sync(() => execFileSync("umount", [logs]))
      )
      const client = yield* Fixture.start({ FSB_LOG_DIR: logs })
      const started = Effect.fnUntraced(function*(script: string) {
        const request = Fixture.request(["sh", "-c", script])
        yield* client.create(request)
        return request.instanceId
      })
      const ended = Effect.fnUntraced(function*(instanceId: string) {
        const instance = yield* Fixture.untilState(client, instanceId, EXITED)
        assert.deepInclude(instance, { exitCode: 0, reason: "Completed" })
        return yield* Fixture.logsOf(client, instanceId, true)
      })
      const begun = yield* started("echo begun; until [ -e /go ]; do sleep 0.02; done; seq 100000")
      yield* Fixture.eventually(
        "begun",
        Effect.map(Fixture.logsOf(client, begun), (lines) => lines.length === 1)
      )
      spawnSync("dd", ["if=/dev/zero", `of=${logs}/filler`, "bs=4096"])
      const { pid } = yield* Tasks.use((tasks) => tasks.get({ containerId: begun }))
      writeFileSync(`/proc/${pid}/root/go`, "")
      const [first] = yield* ended(begun)
      assert.strictEqual(first, "begun")
      assert.deepStrictEqual(yield* ended(yield* started("seq 10")), [])
      rmSync(`${logs}/filler`)
      assert.deepStrictEqual(yield* ended(yield* started("echo again")), ["again"])
    }).pipe(Effect.scoped))

  it.effect("serves its metrics", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start({ FSB_METRICS_LISTEN: "127.0.0.1:39091" })
      const request = Fixture.request(Fixture.sleeper)
      yield* client.create(request)
      const text = yield* Effect.promise(() => fetch("http://127.0.0.1:39091/metrics").then((answer) => answer.text()))
      assert.include(text, `fsb_agent_slots ${Fixture.slots}`)
      assert.include(text, "fsb_agent_slots_used 1")
      assert.match(text, /fsb_agent_instances{[^}]*state="running"[^}]*} 1/)
      assert.match(text, /fsb_agent_create_step_duration_seconds_count{[^}]*step="task"/)
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))
})
