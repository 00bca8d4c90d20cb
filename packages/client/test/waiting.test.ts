import { assert, describe, it } from "@effect/vitest"
import type { SandboxInfo } from "@fast-sandbox/client/SandboxInfo"
import { DateTime, Option, Result } from "effect"
import * as Waiting from "../src/internal/waiting.ts"

const lost = (spec: object, status: object): SandboxInfo => ({
  name: "web",
  namespace: "default",
  instanceId: "i-1",
  phase: "Lost",
  image: "alpine",
  pool: "default-pool",
  agentPod: "agent-1",
  nodeName: "node-1",
  endpoints: [],
  labels: {},
  createdAt: DateTime.makeUnsafe("2026-01-01T00:00:00Z"),
  reason: "AgentLost",
  message: "the Pod is gone",
  restarts: 0,
  resource: JSON.stringify({ spec, status })
})

const one = "2026-01-01T00:00:01Z"
const two = "2026-01-01T00:00:02Z"

describe("a wait for Running that sees a sandbox Lost", () => {
  it.each<{ what: string; spec: object; status: object; goesOn: boolean }>([
    { what: "nothing planned", spec: {}, status: {}, goesOn: false },
    { what: "a reset to be carried out", spec: { resetRevision: one }, status: {}, goesOn: true },
    {
      what: "a second reset to be carried out",
      spec: { resetRevision: two },
      status: { acceptedResetRevision: one },
      goesOn: true
    },
    {
      what: "only a reset that was carried out",
      spec: { resetRevision: one },
      status: { acceptedResetRevision: one },
      goesOn: false
    },
    {
      what: "a recovery planned",
      spec: {},
      status: { recovery: { attempt: 1, since: one, nextAt: two } },
      goesOn: true
    },
    { what: "a recovery behind it", spec: {}, status: { recovery: { attempt: 1, since: one } }, goesOn: false }
  ])("with $what", ({ goesOn, spec, status }) => {
    const decision = Waiting.forPhase("web", new Set(["Running"]))(undefined, {
      _tag: "Modified",
      sandbox: lost(spec, status)
    })
    assert.strictEqual(Option.isNone(decision), goesOn)
    assert.isTrue(Option.isNone(decision) || Result.isFailure(decision.value))
  })
})
