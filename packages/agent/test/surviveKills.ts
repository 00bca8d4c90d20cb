import { assert } from "@effect/vitest"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { Effect, type Scope } from "effect"
import * as Fixture from "./AgentFixture.ts"

/**
 * Kills agents so many milliseconds after `count` sandboxes were asked for at once, starts the next one, and asks again:
 * what was answered for runs, nobody's program has run twice, and nothing is left. `ready` waits for an agent's slots.
 */
export const surviveKills = Effect.fnUntraced(function*({ after, count, environment, ready }: {
  readonly environment: Fixture.Environment
  readonly count: number
  readonly after: ReadonlyArray<number>
  readonly ready: (client: Fixture.AgentClient) => Effect.Effect<unknown, unknown, Scope.Scope>
}) {
  const before = yield* Fixture.world
  for (const millis of after) {
    const agent = yield* Fixture.startProcess(environment)
    yield* ready(agent.client)
    const requests = Array.from({ length: count }, () => Fixture.request(["sh", "-c", "echo began; sleep 1000"]))
    const promised = yield* Fixture.killAmidCreates(agent, requests, millis)
    const next = yield* Fixture.startProcess(environment)
    const { instances } = yield* next.client.list({})
    assert.isTrue(instances.every(({ state }) => state === InstanceState.RUNNING))
    assert.includeMembers(instances.map(({ instanceId }) => instanceId), promised)
    // Whoever heard nothing asks again.
    for (const again of requests) {
      yield* next.client.create(again)
      yield* Fixture.eventually(
        "it began",
        Effect.map(Fixture.logsOf(next.client, again.instanceId), (lines) => lines.length > 0)
      )
      assert.deepStrictEqual(yield* Fixture.logsOf(next.client, again.instanceId), ["began"])
    }
    assert.lengthOf((yield* next.client.list({})).instances, count)
    for (const { instanceId } of requests) {
      yield* next.client.delete({ instanceId, gracePeriodSeconds: 0 })
    }
    assert.strictEqual(yield* Fixture.kill(next, "SIGTERM"), 0)
    assert.deepStrictEqual(yield* Fixture.world, before)
  }
})
