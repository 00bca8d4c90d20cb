import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import type { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import { ParkedImageSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { AgentView } from "../../src/agents/Agents.ts"
import * as PoolStatus from "../../src/pool/PoolStatus.ts"
import { images, view } from "../registry/views.ts"

const alpine = "docker.io/library/alpine:latest"

const pool: SandboxPool = {
  apiVersion: "sandbox.fast.io/v1alpha1",
  kind: "SandboxPool",
  metadata: { name: "pool", namespace: "default" },
  spec: { warmImages: [{ image: "alpine", parked: 4 }, { image: "No Name!" }] }
}

const plan = {
  create: 0,
  remove: [],
  drain: [],
  resume: [],
  desired: 1,
  limited: false,
  surplusSince: undefined,
  wakeAt: undefined
}

const status = (views: ReadonlyArray<AgentView>, changes: Partial<PoolStatus.PoolStatusInput> = {}) =>
  PoolStatus.make({ pool, agents: [], views, plan, problem: undefined, failures: 0, now: 0, ...changes })

const parked = (...all: ReadonlyArray<{ readonly image: string; readonly ready: number; readonly problem?: string }>) =>
  new Map(all.map((one) => [one.image, create(ParkedImageSchema, one)]))

describe("the status of a pool", () => {
  it("counts what is parked on all agents, and says on how many nodes an image is", () => {
    const { images: told, slots } = status([
      view("a", { node: "n1", images: images(alpine), parked: parked({ image: alpine, ready: 3 }) }),
      view("b", { node: "n1", images: images(alpine), parked: parked({ image: alpine, ready: 4 }) }),
      view("c", { node: "n2" })
    ])
    assert.strictEqual(slots?.parked, 7)
    assert.deepStrictEqual(told, [{ image: "alpine", nodes: 2, ready: 1 }, { image: "No Name!", nodes: 2, ready: 0 }])
  })

  it("says why slots of an image can't be parked, and on which node", () => {
    const { images: told } = status([
      view("a", { node: "n1", images: images(alpine), parked: parked({ image: alpine, ready: 4 }) }),
      view("b", {
        node: "n2",
        parked: parked({ image: alpine, ready: 0, problem: `${alpine} is not on this node` })
      }),
      view("c", {
        node: "n3",
        parked: parked({ image: "No Name!", ready: 0, problem: "image name \"No Name!\": ..." })
      })
    ])
    assert.deepStrictEqual(told?.map(({ message }) => message), [
      `n2: ${alpine} is not on this node`,
      "n3: image name \"No Name!\": ..."
    ])
  })

  it("names the nodes that can't run sandboxes, each once", () => {
    const lacking = { runtimeProblem: "runsc is not installed" }
    const { conditions } = status([
      view("a", { node: "n2", ...lacking }),
      view("b", { node: "n1", ...lacking }),
      view("c", { node: "n1", ...lacking }),
      view("d", { node: "n3" })
    ])
    const ready = conditions?.find(({ type }) => type === "RuntimeReady")
    assert.strictEqual(ready?.status, "False")
    assert.include(ready?.message, "on n1, n2 runsc is not installed: install it")
    assert.strictEqual(conditions?.find(({ type }) => type === "Ready")?.reason, "RuntimeMissing")
  })

  it("says why there are fewer agents than are wanted", () => {
    const reason = (changes: Partial<PoolStatus.PoolStatusInput>, type: string) =>
      status([], changes).conditions?.find((condition) => condition.type === type)
    assert.strictEqual(reason({}, "Ready")?.reason, "AgentsStarting")
    assert.include(reason({ failures: 3 }, "Ready")?.message, "3 agents in a row did not come up")
    assert.deepInclude(
      { ...reason({ problem: { reason: "QuotaExceeded", message: "exceeded quota: few" } }, "PodsCreated") },
      { status: "False", reason: "QuotaExceeded", message: "exceeded quota: few" }
    )
    assert.strictEqual(reason({ plan: { ...plan, limited: true } }, "ScalingLimited")?.reason, "PoolMax")
  })
})
