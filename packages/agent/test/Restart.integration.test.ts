import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import * as ContainerdDaemon from "@fast-sandbox/containerd/ContainerdDaemon"
import { Containers } from "@fast-sandbox/containerd/Containers"
import * as OwnedContainer from "@fast-sandbox/containerd/OwnedContainer"
import * as Proc from "@fast-sandbox/containerd/Proc"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, Layer, Result } from "effect"
import { existsSync } from "node:fs"
import * as Fixture from "./AgentFixture.ts"

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

const { EXITED, RUNNING, STOPPING } = InstanceState

const pidOf = (containerId: string) =>
  Tasks.use((tasks) => tasks.get({ containerId })).pipe(Effect.map(({ pid }) => pid))

const hasExited = (containerId: string) =>
  Tasks.use((tasks) => tasks.get({ containerId })).pipe(Effect.map(({ status }) => status === "stopped"))

/** Whether the instance's record says so, which is what the next agent reads. */
const isNoted = (containerId: string, state: InstanceState) =>
  Containers.use((containers) => containers.get(containerId)).pipe(
    Effect.map((container) => Result.getOrUndefined(OwnedContainer.instanceOf(container))?.state === state)
  )

const isRunning = (containerId: string) =>
  Tasks.use((tasks) => tasks.list).pipe(
    Effect.map((tasks) => tasks.some((task) => task.containerId === containerId && task.status === "running"))
  )

layer(node, { excludeTestServices: true })("Agent, restarted", (it) => {
  it.effect("takes up its sandboxes after kill -9, slots, ports, exits and half-done ends included", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const identity = { POD_UID: "uid-kill" }
      const first = yield* Fixture.startProcess(identity)
      const running = Fixture.request(["sh", "-c", "while :; do echo tick; sleep 0.1; done"], { exposedPorts: [9000] })
      const exiting = Fixture.request(["sh", "-c", "sleep 0.5; exit 5"])
      const stopping = Fixture.request(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], {
        terminationGracePeriodSeconds: 1
      })
      yield* first.client.create(running)
      yield* first.client.create(stopping)
      yield* first.client.bind({ instanceId: running.instanceId, resourceUid: "r-1" })
      yield* first.client.create(exiting)
      yield* Effect.forkChild(Effect.ignore(first.client.stop({ instanceId: stopping.instanceId })))
      // The agent notes that it was asked when a program does not end promptly.
      yield* Fixture.eventually("the end is noted", isNoted(stopping.instanceId, STOPPING))
      const pid = yield* pidOf(running.instanceId)
      yield* Fixture.kill(first, "SIGKILL")
      yield* Fixture.eventually("the program has ended", hasExited(exiting.instanceId))

      const second = yield* Fixture.startProcess(identity)
      const found = yield* Fixture.listed(second.client, running.instanceId)
      assert.strictEqual(found?.state, RUNNING)
      assert.strictEqual(found?.claim?.resourceUid, "r-1")
      assert.deepStrictEqual(found?.endpoints, ["127.0.0.9:9000"])
      assert.strictEqual(yield* pidOf(running.instanceId), pid)
      const ended = yield* Fixture.untilState(second.client, exiting.instanceId, EXITED)
      assert.strictEqual(ended?.exitCode, 5)
      assert.strictEqual(ended?.reason, "Error")
      const stopped = yield* Fixture.untilState(second.client, stopping.instanceId, EXITED)
      assert.strictEqual(stopped?.reason, "Stopped")
      assert.strictEqual(stopped?.signal, 9)
      const port = yield* Effect.flip(second.client.create(Fixture.request(["true"], { exposedPorts: [9000] })))
      assert.strictEqual(port._tag, "ResourceExhausted")
      assert.strictEqual(
        (yield* second.client.create(running)).instance?.instanceId,
        running.instanceId,
        "a repeat is a replay over restarts"
      )
      const ticks = (yield* Fixture.logsOf(second.client, running.instanceId)).length
      yield* Fixture.eventually(
        "it goes on logging",
        Effect.map(Fixture.logsOf(second.client, running.instanceId), ({ length }) => length > ticks)
      )
      yield* Fixture.kill(second, "SIGKILL")

      const third = yield* Fixture.startProcess(identity)
      assert.strictEqual((yield* Fixture.listed(third.client, exiting.instanceId))?.exitCode, 5)
      for (const { instanceId } of (yield* third.client.list({})).instances) {
        yield* third.client.delete({ instanceId, gracePeriodSeconds: 0 })
      }
      assert.strictEqual(yield* Fixture.kill(third, "SIGTERM"), 0)
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  it.effect("finishes what a kill -9 left half-made", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const identity = { POD_UID: "uid-half" }
      for (const millis of [4, 14, 24, 40]) {
        const agent = yield* Fixture.startProcess(identity)
        const requests = Array.from({ length: 4 }, () => Fixture.request(Fixture.sleeper))
        const promised = yield* Fixture.killAmidCreates(agent, requests, millis)
        const next = yield* Fixture.startProcess(identity)
        const { instances } = yield* next.client.list({})
        assert.isTrue(instances.every(({ state }) => state === RUNNING))
        assert.includeMembers(instances.map(({ instanceId }) => instanceId), promised)
        for (const { instanceId } of instances) {
          yield* next.client.delete({ instanceId, gracePeriodSeconds: 0 })
        }
        yield* Fixture.kill(next, "SIGTERM")
        assert.deepStrictEqual(yield* Fixture.world, before)
      }
    }).pipe(Effect.scoped))

  it.effect("goes on when containerd was restarted under it", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const { daemon } = yield* PrivateContainerd
      const metrics = "127.0.0.9:5799"
      const client = yield* Fixture.start({ FSB_METRICS_LISTEN: metrics })
      const probe = (path: string) =>
        Effect.map(Effect.promise(() => fetch(`http://${metrics}${path}`)), ({ status }) => status)
      assert.strictEqual(yield* probe("/readyz"), 200)
      const running = Fixture.request(Fixture.sleeper)
      const exiting = Fixture.request(["sh", "-c", "sleep 0.3; exit 4"])
      yield* client.create(running)
      yield* client.create(exiting)
      const pid = yield* pidOf(running.instanceId)
      const exitingPid = yield* pidOf(exiting.instanceId)
      // Its record is written a moment after the answer.
      const last = Fixture.request(Fixture.sleeper)
      yield* client.create(last)
      process.kill(daemon.pid, "SIGKILL")
      const during = yield* Effect.flip(client.create(Fixture.request(Fixture.sleeper)))
      assert.strictEqual(during._tag, "Unavailable")
      assert.deepStrictEqual([yield* probe("/readyz"), yield* probe("/livez")], [503, 200])
      yield* Fixture.eventually("a program ends meanwhile", Effect.sync(() => !existsSync(`/proc/${exitingPid}`)))
      yield* ContainerdDaemon.start({ directory: daemon.directory })
      yield* Fixture.eventually("it is ready again", Effect.map(probe("/readyz"), (status) => status === 200))
      const ended = yield* Fixture.untilState(client, exiting.instanceId, EXITED)
      assert.strictEqual(ended?.exitCode, 4)
      assert.strictEqual((yield* Fixture.listed(client, running.instanceId))?.state, RUNNING)
      assert.strictEqual(yield* pidOf(running.instanceId), pid)
      yield* Fixture.eventually("what could not be written is", isNoted(last.instanceId, RUNNING))
      const after = Fixture.request(Fixture.sleeper)
      yield* client.create(after)
      yield* Fixture.eventually(
        "the failed create is forgotten",
        Effect.map(client.list({}), ({ instances }) => instances.length === 4)
      )
      for (const { instanceId } of (yield* client.list({})).instances) {
        yield* client.delete({ instanceId, gracePeriodSeconds: 0 })
      }
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  it.effect("loses the sandboxes of a shim that dies, tells so, and goes on with another", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const { daemon } = yield* PrivateContainerd
      const client = yield* Fixture.start()
      const anchors = Tasks.use((tasks) => tasks.list).pipe(
        Effect.map((tasks) => tasks.some(({ containerId }) => containerId.includes("anchor")))
      )
      yield* Fixture.eventually("the shim is anchored", anchors)
      const lost = Fixture.request(Fixture.sleeper)
      yield* client.create(lost)
      for (const { pid } of yield* Proc.shims(daemon.socket)) {
        process.kill(pid, "SIGKILL")
      }
      const ended = yield* Fixture.untilState(client, lost.instanceId, EXITED)
      assert.strictEqual(ended?.reason, "Error")
      const next = Fixture.request(Fixture.sleeper)
      yield* client.create(next)
      for (const { instanceId } of (yield* client.list({})).instances) {
        yield* client.delete({ instanceId, gracePeriodSeconds: 0 })
      }
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  it.effect("loses a quarter of its sandboxes, and no more, with one of four shims", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const { daemon } = yield* PrivateContainerd
      const client = yield* Fixture.start({ FSB_SHIM_GROUPS: "4" })
      yield* Fixture.eventually(
        "all shims are anchored",
        Effect.map(
          Tasks.use((tasks) => tasks.list),
          (tasks) => tasks.filter(({ containerId }) => containerId.includes("anchor")).length === 4
        )
      )
      const requests = Array.from({ length: Fixture.slots }, () => Fixture.request(Fixture.sleeper))
      yield* Effect.forEach(requests, (request) => client.create(request), { discard: true })
      const [victim] = yield* Proc.shims(daemon.socket)
      assert.isDefined(victim)
      process.kill(victim.pid, "SIGKILL")
      const states = Effect.map(client.list({}), ({ instances }) => instances.map(({ state }) => state))
      const countOf = (state: number) => Effect.map(states, (all) => all.filter((one) => one === state).length)
      yield* Fixture.eventually(
        "its sandboxes are told to have ended",
        Effect.map(countOf(EXITED), (ended) => ended === Fixture.slots / 4)
      )
      assert.strictEqual(yield* countOf(RUNNING), Fixture.slots * 3 / 4)
      for (const { instanceId } of requests) {
        yield* client.delete({ instanceId, gracePeriodSeconds: 0 })
      }
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  describe("going away", () => {
    it.effect("SIGTERM stops the sandboxes in order and exits with 0", () =>
      Effect.gen(function*() {
        const identity = { POD_UID: "uid-term" }
        const agent = yield* Fixture.startProcess(identity)
        const request = Fixture.request(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"])
        yield* agent.client.create(request)
        assert.strictEqual(yield* Fixture.kill(agent, "SIGTERM"), 0)
        assert.isFalse(yield* isRunning(request.instanceId))
        const next = yield* Fixture.startProcess(identity)
        assert.strictEqual((yield* Fixture.listed(next.client, request.instanceId))?.reason, "Stopped")
        yield* next.client.delete({ instanceId: request.instanceId })
        yield* Fixture.kill(next, "SIGTERM")
      }).pipe(Effect.scoped))

    it.effect("leaves them when told so, or when its parent is gone", () =>
      Effect.gen(function*() {
        const identity = { POD_UID: "uid-leave" }
        const request = Fixture.request(Fixture.sleeper)
        const first = yield* Fixture.startProcess({ ...identity, FSB_ON_TERM: "leave" })
        yield* first.client.create(request)
        assert.strictEqual(yield* Fixture.kill(first, "SIGTERM"), 0)
        assert.isTrue(yield* isRunning(request.instanceId))
        const second = yield* Fixture.startProcess({ ...identity, FSB_EXIT_WITH_PARENT: "1" })
        second.child.stdin?.end()
        assert.strictEqual(yield* second.exited, 0)
        assert.isTrue(yield* isRunning(request.instanceId))
        const third = yield* Fixture.startProcess(identity)
        yield* third.client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
        yield* Fixture.kill(third, "SIGTERM")
      }).pipe(Effect.scoped))
  })
})
