/** An agent's answers and what its stream tells travel side by side: neither may undo what the other has told. */
import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import {
  AgentStateSchema,
  CapacitySchema,
  InstanceSchema,
  InstanceState,
  type WatchResponse,
  WatchResponseSchema
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as AgentViews from "../../src/agents/internal/AgentViews.ts"
import { view } from "../registry/views.ts"

const capacity = (revision: bigint, slotsUsed: number) => create(CapacitySchema, { slots: 2, slotsUsed, revision })

const told = (event: WatchResponse["event"]): WatchResponse => ({ ...create(WatchResponseSchema), event })

const running = create(InstanceSchema, { instanceId: "one", state: InstanceState.RUNNING })

const nothing = new Set<string>()

describe("a view of an agent", () => {
  it("keeps the room that an answer told, when an earlier description comes after it", () => {
    const answered = AgentViews.withoutInstance(view("a"), "one", capacity(7n, 0))
    const stream = [6n, 7n, 8n].map((revision) =>
      AgentViews.follow(answered, [told({ case: "capacityChanged", value: capacity(revision, 1) })], 0, nothing)
    )
    assert.deepStrictEqual(stream.map(({ view }) => view.slotsUsed), [0, 1, 1])
    assert.deepStrictEqual(stream.map(({ changes }) => changes.length), [0, 1, 1])
    assert.strictEqual(AgentViews.withoutInstance(answered, "one", capacity(3n, 2)).slotsUsed, 0)
  })

  it("believes an agent that begins anew", () => {
    const answered = AgentViews.withoutInstance(view("a"), "one", capacity(7n, 2))
    const state = told({ case: "state", value: create(AgentStateSchema, { capacity: capacity(1n, 1) }) })
    assert.strictEqual(AgentViews.follow(answered, [state], 0, nothing).view.slotsUsed, 1)
  })

  it("shows no instance again that was removed", () => {
    const change = told({ case: "instanceChanged", value: running })
    assert.strictEqual(AgentViews.follow(view("a"), [change], 0, new Set(["one"])).view.instances.size, 0)
    assert.strictEqual(AgentViews.follow(view("a"), [change], 0, nothing).view.instances.size, 1)
  })
})
