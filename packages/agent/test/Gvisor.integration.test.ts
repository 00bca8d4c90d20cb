/** Sandboxes with a kernel of gVisor's, and nodes that lack a runtime. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { ExecRequestSchema } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as NullDevice from "@fast-sandbox/testkit/NullDevice"
import { layer as privateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, Layer, Stream } from "effect"
import * as Fixture from "./AgentFixture.ts"

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer),
  Layer.provide(NullDevice.unchanged)
)

const { EXITED, RUNNING } = InstanceState

const stateOf = Effect.fnUntraced(function*(client: Fixture.AgentClient) {
  const watcher = yield* Fixture.watch(client)
  return yield* watcher.until((event) => event.case === "state" ? event.value : undefined)
})

layer(node, { excludeTestServices: true })("Agent", (it) => {
  it.effect("runs sandboxes under gVisor: exit codes, logs, stop, kill, limits, and nothing left", () =>
    Effect.gen(function*() {
      const before = yield* Fixture.world
      const client = yield* Fixture.start({ FSB_RUNTIME_TYPE: "gvisor", FSB_RUNTIME_BINARY: "/usr/bin/runsc" })
      const { capacity, runtimeNotes, runtimeProblem } = yield* stateOf(client)
      assert.strictEqual(runtimeProblem, "")
      assert.strictEqual(capacity?.slots, Fixture.slots)
      assert.match(runtimeNotes.join("\n"), /^runsc \S+ at \/\S+\/runsc$/m)

      const talker = Fixture.request(
        ["sh", "-c", "dmesg | grep -c 'Starting gVisor'; echo oops >&2; echo $A; hostname; exit 7"],
        { envs: [{ name: "A", value: "b" }] }
      )
      yield* client.create(talker)
      assert.sameMembers([...(yield* Fixture.logsOf(client, talker.instanceId, true))], ["1", "oops", "b", "box"])
      const ended = yield* Fixture.untilState(client, talker.instanceId, EXITED)
      assert.deepInclude(ended, { exitCode: 7, reason: "Error" })
      yield* client.delete({ instanceId: talker.instanceId })

      const polite = Fixture.request(["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"])
      const { instance } = yield* client.create(polite)
      assert.strictEqual(instance?.state, RUNNING)
      yield* Fixture.eventually(
        "up",
        Effect.map(Fixture.logsOf(client, polite.instanceId), (lines) => lines.includes("up"))
      )
      const header: MessageInitShape<typeof ExecRequestSchema> = {
        part: {
          case: "header",
          value: { sandbox: { sandboxId: polite.instanceId }, command: ["cat", "/etc/hostname"] }
        }
      }
      const said = yield* Stream.runCollect((yield* Fixture.sessions()).exec(Stream.make(header)))
      assert.deepInclude(said.at(-1)?.part, { case: "ended" })
      const stopped = (yield* client.stop({ instanceId: polite.instanceId, gracePeriodSeconds: 10 })).instance
      assert.deepInclude(stopped, { exitCode: 3, reason: "Stopped" })
      assert.include(yield* Fixture.logsOf(client, polite.instanceId, true), "bye")
      yield* client.delete({ instanceId: polite.instanceId })

      const stubborn = Fixture.request(["sh", "-c", "trap '' TERM; sleep 1000 & wait; while :; do sleep 1; done"])
      yield* client.create(stubborn)
      const killed = (yield* client.stop({ instanceId: stubborn.instanceId, gracePeriodSeconds: 1 })).instance
      assert.deepInclude(killed, { signal: 9, reason: "Stopped" })
      yield* client.delete({ instanceId: stubborn.instanceId })

      const error = yield* Effect.flip(client.create(Fixture.request(["/nope"])))
      assert.strictEqual(error._tag, "FailedPrecondition")
      assert.deepStrictEqual((yield* client.list({})).instances, [])
      assert.deepStrictEqual(yield* Fixture.world, before)
    }).pipe(Effect.scoped))

  it.effect.each(["gvisor", "kata"])(
    "says that %s is missing, has no slots and creates nothing",
    (type) =>
      Effect.gen(function*() {
        const before = yield* Fixture.world
        const missing = type === "gvisor" ? { FSB_RUNTIME_BINARY: "/nowhere/runsc" } : {
          FSB_RUNTIME_BINARY: "/nowhere/containerd-shim-kata-v2"
        }
        const client = yield* Fixture.start({ FSB_RUNTIME_TYPE: type, ...missing })
        const { capacity, runtimeProblem } = yield* stateOf(client)
        assert.match(runtimeProblem, /^(runsc|containerd-shim-kata-v2) is not installed$/)
        assert.strictEqual(capacity?.slots, 0)
        const error = yield* Effect.flip(client.create(Fixture.request(["true"])))
        assert.deepInclude(error, { _tag: "FailedPrecondition", reason: "RuntimeMissing" })
        assert.deepStrictEqual(yield* Fixture.world, before)
      }).pipe(Effect.scoped)
  )
})
