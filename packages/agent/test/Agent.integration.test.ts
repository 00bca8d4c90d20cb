import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { layer as privateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, Layer } from "effect"
import * as Fixture from "./AgentFixture.ts"

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

layer(node, { excludeTestServices: true })("Agent", (it) => {
  describe("life", () => {
    it.effect("creates, lists, stops and deletes", () =>
      Effect.gen(function*() {
        const client = yield* Fixture.start()
        const request = Fixture.request(Fixture.sleeper)
        const { instance } = yield* client.create(request)
        assert.strictEqual(instance?.state, InstanceState.RUNNING)
        const stopped = yield* client.stop({ instanceId: request.instanceId })
        yield* client.delete({ instanceId: request.instanceId })
        assert.deepStrictEqual((yield* client.list({})).instances, [])
      }).pipe(Effect.scoped))
  })
})
