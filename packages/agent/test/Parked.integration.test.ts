/**
 * Parked slots against a real containerd: that a sandbox from one is like any other, and that nothing that goes wrong with
 * one loses a slot or runs a program twice.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { containerLabels } from "@fast-sandbox/core/Names"
import { type CreateResponse, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Effect, Layer } from "effect"
import * as Fixture from "./AgentFixture.ts"
import { surviveKills } from "./surviveKills.ts"

const node = Layer.effectDiscard(
  Effect.gen(function*() {
    yield* Fixture.prepareNode
    const recipe = yield* TestImages.variant("docker.io/library/as-app:latest", {
      user: "app",
      workingDir: "/made/here"
    })
    const haunted = yield* TestImages.variant("docker.io/library/as-ghost:latest", { user: "ghost" })
    yield* Images.use((images) =>
      Effect.forEach([recipe, haunted], (one) => images.load(OciArchive.make([one])), { discard: true })
    )
  })
).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

const withInit = (parked: Readonly<Record<string, number>>) =>
  Effect.map(PrivateContainerd, ({ directory }) => ({
    FSB_INIT_BINARY: `${directory}/bin/fsb-init`,
    FSB_WARM_IMAGES: JSON.stringify(Object.entries(parked).map(([image, count]) => ({ image, parked: count })))
  }))

const startParked = Effect.fnUntraced(function*(parked: number, changes: Fixture.Environment = {}) {
  const client = yield* Fixture.start({ ...(yield* withInit({ busybox: parked })), ...changes })
  yield* Fixture.untilParked(client, parked)
  return client
})

const tierOf = ({ instance }: CreateResponse) => instance?.startup?.tier

const createParked = Effect.fnUntraced(function*(
  client: Fixture.AgentClient,
  request: ReturnType<typeof Fixture.request>
) {
  const answer = yield* client.create(request)
  assert.strictEqual(tierOf(answer), "parked")
  return answer
})

/** Everything that a program can see of how it is held, without what differs between any two containers. */
const describeMyself = `
  grep -E '^(Uid|Gid|Groups|Umask|Cap|NoNewPrivs|Seccomp:|SigPnd|SigBlk|SigIgn|SigCgt|Shd|NSpid|PPid)' /proc/self/status
  echo pid $$; pwd; id; env | sort; hostname; ulimit -a; ls /proc/self/fd 2>/dev/null | wc -l; cat /proc/self/oom_score_adj
  cut -d' ' -f5- /proc/self/mountinfo | sed 's/lowerdir=.*//' | sort
  ls -lan / /dev | grep -vE 'total|proc|null'
  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us
  cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/devices/devices.list
  hostname changed 2>&1; mount -t tmpfs none /tmp 2>&1; umount /dev/shm 2>&1; unshare -m true 2>&1`

const withoutTimes = (line: string) => line.replace(/ [A-Z][a-z]{2} [ \d]\d \d\d:\d\d /, " ").replace(/box-\w+/g, "box")

const said = Effect.fnUntraced(function*(
  client: Fixture.AgentClient,
  tier: "parked" | "prepared",
  step: string,
  spec: Parameters<typeof Fixture.request>[1]
) {
  const request = Fixture.request(["sh", "-c", describeMyself], spec)
  const answer = yield* client.create(request)
  assert.strictEqual(tierOf(answer), tier)
  assert.include(answer.instance?.startup?.steps.map(({ name }) => name) ?? [], step)
  const lines = yield* Fixture.logsOf(client, request.instanceId, true)
  yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
  return lines.map(withoutTimes)
})

layer(node, { excludeTestServices: true, timeout: "1 minute" })("parked slots", (it) => {
  it.effect("hold a program exactly as a container of its own does", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      // The range of its users depends on the agent.
      const identity = { POD_UID: "uid-same" }
      const wishes = [
        {},
        { image: "as-app", envs: [{ name: "A", value: "two words\nand a line" }] },
        { image: "as-app", workingDir: "/tmp", memoryBytes: 67_108_864n, cpuMillis: 250n, pids: 33n }
      ]
      const expected = yield* Fixture.start(identity).pipe(
        Effect.flatMap((client) => Effect.forEach(wishes, (wish) => said(client, "prepared", "task", wish))),
        Effect.scoped
      )
      const found = yield* withInit({ busybox: 1, "as-app": 2 }).pipe(
        Effect.flatMap((environment) => Fixture.start({ ...environment, ...identity })),
        Effect.tap((client) => Fixture.untilParked(client, 2, "as-app")),
        Effect.flatMap((client) => Effect.forEach(wishes, (wish) => said(client, "parked", "exec", wish))),
        Effect.scoped
      )
      // The list, of nothing to be parked, keeps what is asked for here from being parked next.
      const blank = yield* withInit({ busybox: 0 }).pipe(
        Effect.flatMap((environment) => Fixture.start({ ...environment, ...identity, FSB_BLANK_SLOTS: "1" })),
        Effect.flatMap((client) =>
          Effect.forEach(wishes, (wish) =>
            Effect.andThen(Fixture.untilBlank(client, 1), said(client, "prepared", "rootfs", wish)))
        ),
        Effect.scoped
      )
      for (const [index, lines] of found.entries()) {
        assert.deepStrictEqual(lines, expected[index])
        assert.deepStrictEqual(blank[index], expected[index])
      }
      assert.include(expected[1] ?? [], "pwd: /made/here".slice(5))
      assert.deepStrictEqual(yield* Fixture.world, before)
    }))

  it.effect("say what is wrong with a command, and lose nothing by it", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      yield* Effect.gen(function*() {
        const client = yield* startParked(1)
        for (
          const [program, reason] of [
            ["/nope", "CommandNotFound"],
            ["nope", "CommandNotFound"],
            ["", "CommandNotFound"],
            ["/etc/passwd", "CommandNotExecutable"],
            ["/etc", "CommandNotExecutable"]
          ] as const
        ) {
          yield* Fixture.untilParked(client, 1)
          const error = yield* Effect.flip(client.create(Fixture.request([program])))
          assert.strictEqual(error._tag, "FailedPrecondition")
          assert.strictEqual(error._tag === "FailedPrecondition" ? error.reason : "", reason, program)
          assert.match(error.message, new RegExp(`^${program} could not be started: [^\n]+$`))
          assert.deepStrictEqual((yield* client.list({})).instances, [])
        }
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(yield* Fixture.world, before)
    }))

  it.effect("take large orders, and say so when they are too large", () =>
    Effect.gen(function*() {
      const client = yield* startParked(1)
      const variables = Array.from({ length: 16 }, (_, index) => ({ name: `V${index}`, value: "x".repeat(65_536) }))
      const large = Fixture.request(["sh", "-c", "echo $#; env | wc -c", ...Array.from({ length: 9_990 }, String)], {
        envs: variables
      })
      yield* createParked(client, large)
      const [count, bytes] = yield* Fixture.logsOf(client, large.instanceId, true)
      assert.strictEqual(count, "9989")
      assert.isAbove(Number(bytes), 1024 * 1024)
      yield* client.delete({ instanceId: large.instanceId, gracePeriodSeconds: 0 })
      yield* Fixture.untilParked(client, 1)
      const tooLarge = yield* Effect.flip(
        client.create(Fixture.request(["true"], { envs: [{ name: "V", value: "x".repeat(1024 * 1024) }] }))
      )
      assert.strictEqual(tooLarge._tag, "FailedPrecondition")
      assert.include(tooLarge.message, "argument list too long")
      assert.deepStrictEqual((yield* client.list({})).instances, [])
    }).pipe(Effect.scoped))

  it.effect("log from the first byte, end, and are told of by their instance's name", () =>
    Effect.gen(function*() {
      const client = yield* startParked(2)
      const watched = yield* Fixture.watch(client)
      const request = Fixture.request(["sh", "-c", "echo one; echo two >&2; exit 7"])
      yield* createParked(client, request)
      const ended = yield* watched.until((event) =>
        event.case === "instanceChanged" && event.value.instanceId === request.instanceId &&
          event.value.state === InstanceState.EXITED
          ? event.value
          : undefined
      )
      assert.strictEqual(ended.exitCode, 7)
      assert.deepStrictEqual(yield* Fixture.logsOf(client, request.instanceId), ["one", "two"])
      assert.strictEqual((yield* client.create(request)).instance?.exitCode, 7, "a repeat is a replay")
      yield* client.delete({ instanceId: request.instanceId })
      const hungry = Fixture.request(["sh", "-c", "tail /dev/zero"], { memoryBytes: 16n * 1024n * 1024n })
      yield* Fixture.untilParked(client, 2)
      yield* createParked(client, hungry)
      assert.strictEqual(
        (yield* Fixture.untilState(client, hungry.instanceId, InstanceState.EXITED))?.reason,
        "OOMKilled"
      )
      yield* client.delete({ instanceId: hungry.instanceId })
    }).pipe(Effect.scoped))

  it.effect("that die are replaced, and a create that meets one is served all the same", () =>
    Effect.gen(function*() {
      const client = yield* startParked(2)
      const tasks = yield* Tasks
      const parkedPids = Effect.map(tasks.list, (all) =>
        all.filter(({ status }) => status === "running").map(({ pid }) => pid))
      const first = yield* parkedPids
      assert.lengthOf(first, 2)
      for (const pid of first) {
        process.kill(pid, "SIGKILL")
      }
      const request = Fixture.request(Fixture.sleeper)
      yield* client.create(request)
      assert.strictEqual((yield* Fixture.listed(client, request.instanceId))?.state, InstanceState.RUNNING)
      yield* Fixture.untilParked(client, 2)
      yield* Fixture.eventually(
        "the dead are gone and replaced",
        Effect.map(parkedPids, (now) =>
          now.length === 3 && !now.some((pid) => first.includes(pid)))
      )
      yield* client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))

  it.effect("of an image that is not there are missed without harm, and come with it", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start(yield* withInit({ "not/here": 1, "No Name!": 1, busybox: 1 }))
      const parked = yield* Fixture.untilCapacity(client, (all) =>
        all.filter(({ problem }) => problem !== "").length === 2 && all.some(({ ready }) => ready === 1))
      assert.include(
        parked.find(({ image }) =>
          image.includes("not/here")
        )?.problem,
        "not on this node"
      )
      yield* Fixture.loadBehindItsBack("docker.io/not/here:latest")
      yield* Fixture.untilCapacity(client, (all) =>
        all.some(({ image, ready }) => image.includes("not/here") && ready === 1))
    }).pipe(Effect.scoped))

  it.effect("of an image without its own user can't be parked, and whoever asks for one is told so", () =>
    Effect.gen(function*() {
      const client = yield* Fixture.start(yield* withInit({ "as-ghost": 1, busybox: 1 }))
      const parked = yield* Fixture.untilCapacity(
        client,
        (all) => all.some(({ problem }) => problem !== "") && all.some(({ ready }) => ready === 1)
      )
      assert.match(parked.find(({ image }) => image.includes("ghost"))?.problem ?? "", /"ghost"|user ghost/)
      const error = yield* Effect.flip(client.create(Fixture.request(Fixture.sleeper, { image: "as-ghost" })))
      assert.strictEqual(error._tag === "FailedPrecondition" ? error.reason : error._tag, "UnknownUser")
      assert.deepStrictEqual((yield* client.list({})).instances, [])
      // A number needs nobody's entry.
      const nameless = Fixture.request(["id", "-u"], { runAsUser: 4711 })
      yield* createParked(client, nameless)
      assert.deepStrictEqual(yield* Fixture.logsOf(client, nameless.instanceId, true), ["4711"])
      yield* client.delete({ instanceId: nameless.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))

  it.effect("follow what the agent is told to keep warm, and leave it to those who run", () =>
    Effect.gen(function*() {
      const client = yield* startParked(2)
      const running = Fixture.request(Fixture.sleeper)
      yield* createParked(client, running)
      const image = "docker.io/library/as-app:latest"
      yield* client.warm({ warm: { images: [{ image, parked: 1 }] } })
      yield* Fixture.untilCapacity(client, (all) =>
        all.length === 1 && all.every((one) => one.image === image && one.ready === 1))
      assert.strictEqual((yield* Fixture.listed(client, running.instanceId))?.state, InstanceState.RUNNING)
      const watched = yield* Fixture.watch(client)
      assert.deepStrictEqual(
        yield* watched.until((event) =>
          event.case === "state"
            ? event.value.warm?.images.map((one) =>
              one.image
            )
            : undefined
        ),
        [image]
      )
      yield* client.warm({})
      yield* Fixture.untilParked(client, 1)
      const error = yield* Effect.flip(
        client.warm({ warm: { images: Array.from({ length: 101 }, (_, at) => ({ image: `many:${at}`, parked: 1 })) } })
      )
      assert.strictEqual(error._tag === "InvalidArgument" ? error.field : error._tag, "warm.images")
      yield* client.delete({ instanceId: running.instanceId, gracePeriodSeconds: 0 })
    }).pipe(Effect.scoped))

  it.effect("without a list are of what was asked for lately, and give way to sandboxes", () =>
    Effect.gen(function*() {
      const { FSB_INIT_BINARY } = yield* withInit({})
      const client = yield* Fixture.start({ FSB_INIT_BINARY, FSB_SLOTS: "3" })
      const first = Fixture.request(Fixture.sleeper)
      assert.strictEqual(tierOf(yield* client.create(first)), "prepared")
      yield* Fixture.untilParked(client, 2)
      const others = [Fixture.request(Fixture.sleeper), Fixture.request(Fixture.sleeper, { image: "as-app" })]
      assert.strictEqual(tierOf(yield* client.create(others[0] ?? first)), "parked")
      assert.strictEqual(tierOf(yield* client.create(others[1] ?? first)), "prepared")
      yield* Fixture.untilCapacity(client, (all) => all.length === 0)
      for (const { instanceId } of [first, ...others]) {
        yield* client.delete({ instanceId, gracePeriodSeconds: 0 })
      }
      yield* Fixture.untilParked(client, 1, "as-app")
    }).pipe(Effect.scoped))
})

layer(node, { excludeTestServices: true, timeout: "1 minute" })("parked slots of an agent that is killed", (it) => {
  it.effect("end with it; what was claimed goes on, once", () =>
    Effect.gen(function*() {
      yield* surviveKills({
        environment: { ...(yield* withInit({ busybox: 4 })), POD_UID: "uid-parked" },
        count: 4,
        after: [1, 2, 3, 5, 8],
        ready: (client) => Fixture.untilParked(client, 4)
      })
    }).pipe(Effect.scoped), 90_000)

  it.effect("keep what was claimed when it is killed again, and after it left", () =>
    Effect.gen(function*() {
      const environment = { ...(yield* withInit({ busybox: 2 })), POD_UID: "uid-parked-2" }
      const request = Fixture.request(Fixture.sleeper)
      const first = yield* Fixture.startProcess({ ...environment, FSB_ON_TERM: "leave" })
      yield* Fixture.untilParked(first.client, 2)
      yield* createParked(first.client, request)
      assert.strictEqual(yield* Fixture.kill(first, "SIGTERM"), 0)
      for (let life = 0; life < 2; life++) {
        const next = yield* Fixture.startProcess(environment)
        const found = yield* Fixture.listed(next.client, request.instanceId)
        assert.strictEqual(found?.state, InstanceState.RUNNING)
        assert.strictEqual(found?.claim?.sandboxName, "box")
        if (life === 1) {
          const [container] = yield* Containers.use(({ list }) =>
            list(`labels."${containerLabels.id}"==${request.instanceId}`)
          )
          assert.include((yield* Fixture.world).networks, container?.id)
        }
        yield* next.client.bind({ instanceId: request.instanceId, resourceUid: "r-1" })
        yield* Fixture.kill(next, "SIGKILL")
      }
      const last = yield* Fixture.startProcess(environment)
      assert.strictEqual((yield* Fixture.listed(last.client, request.instanceId))?.claim?.resourceUid, "r-1")
      yield* last.client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
      assert.strictEqual(yield* Fixture.kill(last, "SIGTERM"), 0)
    }).pipe(Effect.scoped))
})
