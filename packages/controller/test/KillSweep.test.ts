/**
 * The controllers are killed after every single write and every single call to an agent, and started again. Whatever
 * the point, the end is the same: at most one instance for each sandbox, nothing lost, nothing left over.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Names from "@fast-sandbox/core/Names"
import type { SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import { Deferred, Effect, Fiber, Layer, Option, type Scope } from "effect"
import { type Agents } from "../src/agents/Agents.ts"
import { Caches } from "../src/Caches.ts"
import { Demand } from "../src/pool/Demand.ts"
import * as SandboxPoolController from "../src/pool/SandboxPoolController.ts"
import { Registry } from "../src/registry/Registry.ts"
import * as SandboxController from "../src/sandbox/SandboxController.ts"
import { feedRegistry } from "./feedRegistry.ts"
import { pass } from "./pass.ts"
import { SimulatedAgents } from "./SimulatedAgents.ts"

/** What survives a controller: the API and the agents. */
const outside = Layer.mergeAll(MemoryKube.layer, SimulatedAgents.layer)

type Outside = Layer.Success<typeof outside>

/** Everything that dies with the controller's process. */
const controllers = Effect.gen(function*() {
  yield* feedRegistry
  yield* Effect.all([SandboxController.run, SandboxPoolController.run({ agentImage: "agent:1" })], {
    concurrency: "unbounded",
    discard: true
  })
}).pipe(
  Effect.provide(Layer.fresh(Layer.mergeAll(Caches.layer, Registry.layer, Demand.layer, EventRecorder.layerNoop))),
  Effect.scoped
)

/** Runs the controllers until they have made so many changes, or have nothing left to do; true when they were killed. */
const runUntil = Effect.fnUntraced(function*(changes: number) {
  const memory = yield* MemoryKube
  const agents = yield* SimulatedAgents
  const killed = yield* Deferred.make<void>()
  let left = changes
  const after = () =>
    Effect.suspend(() => {
      left -= 1
      return left === 0 ? Deferred.succeed(killed, undefined).pipe(Effect.andThen(Effect.never)) : Effect.void
    })
  // What is dead makes no further calls.
  const before = () => Effect.suspend(() => left <= 0 ? Effect.never : Effect.void)
  yield* memory.setGate({ before, after })
  yield* agents.setGate({ before, after })
  const fiber = yield* Effect.forkScoped(controllers)
  yield* pass("30 seconds")
  yield* Fiber.interrupt(fiber)
  yield* memory.setGate({})
  yield* agents.setGate({})
  return Option.isSome(yield* Deferred.poll(killed))
})

interface Scenario {
  readonly pool: SandboxPoolSpec
  /** Agents that are there from the beginning. */
  readonly agents: number
  readonly prepare: Effect.Effect<void, unknown, Outside | KubeClient>
  readonly trigger: Effect.Effect<void, unknown, Outside | KubeClient>
  readonly check: Effect.Effect<void, unknown, Outside | KubeClient>
}

const ref = { name: "s", namespace: "default" }
const sandbox = Effect.flatMap(KubeClient, (kube) => kube.get(Kinds.Sandbox, ref))

const createSandbox = Effect.flatMap(KubeClient, (kube) =>
  kube.create(Kinds.Sandbox, {
    apiVersion: Names.apiVersion,
    kind: "Sandbox",
    metadata: ref,
    spec: { image: "alpine", poolRef: "pool" }
  })).pipe(Effect.asVoid)

const runsOnce = Effect.gen(function*() {
  const agents = yield* SimulatedAgents
  const { status } = yield* sandbox
  assert.strictEqual(status?.phase, "Running")
  assert.deepStrictEqual((yield* agents.instances).map(({ instanceId }) => instanceId), [status?.sandboxID])
  return status
})

const scenarios: { readonly [name: string]: Scenario } = {
  create: { pool: {}, agents: 2, prepare: Effect.void, trigger: createSandbox, check: Effect.asVoid(runsOnce) },
  delete: {
    pool: {},
    agents: 2,
    prepare: createSandbox,
    trigger: Effect.flatMap(KubeClient, (kube) => kube.delete(Kinds.Sandbox, ref)),
    check: Effect.gen(function*() {
      const agents = yield* SimulatedAgents
      assert.strictEqual((yield* Effect.flip(sandbox)).reason._tag, "NotFound")
      assert.strictEqual((yield* agents.instances).length, 0)
    }).pipe(Effect.orDie)
  },
  reset: {
    pool: {},
    agents: 2,
    prepare: createSandbox,
    trigger: Effect.flatMap(
      KubeClient,
      (kube) =>
        kube.patch(Kinds.Sandbox, ref, { type: "merge", body: { spec: { resetRevision: "2026-01-01T00:00:00Z" } } })
    ).pipe(
      Effect.asVoid
    ),
    check: Effect.gen(function*() {
      const status = yield* runsOnce
      assert.strictEqual(status?.restarts, 1)
      assert.strictEqual(status?.acceptedResetRevision, "2026-01-01T00:00:00Z")
    })
  },
  "scale up": {
    pool: { capacity: { poolMin: 3 } },
    agents: 0,
    prepare: Effect.void,
    trigger: Effect.void,
    check: Effect.gen(function*() {
      assert.strictEqual((yield* (yield* MemoryKube).all(Pod)).length, 3)
    })
  }
}

/** More changes than any scenario needs: a sweep that gets here does not end. */
const mostChanges = 40

const sweep = (
  scenario: Scenario,
  changes: number
): Effect.Effect<boolean, unknown, Outside | KubeClient | Agents | Scope.Scope> =>
  Effect.gen(function*() {
    const kube = yield* KubeClient
    const agents = yield* SimulatedAgents
    yield* kube.create(Kinds.SandboxPool, {
      apiVersion: Names.apiVersion,
      kind: "SandboxPool",
      metadata: { name: "pool", namespace: "default" },
      spec: scenario.pool
    })
    for (let made = 0; made < scenario.agents; made++) {
      const name = `agent-${made}`
      const pod = yield* kube.create(Pod, { metadata: { name, namespace: "default" }, spec: { containers: [] } })
      yield* agents.add({ uid: pod.metadata.uid, pod: name, pool: "pool", slots: 1 })
    }
    yield* scenario.prepare
    if (scenario.prepare !== Effect.void) {
      yield* runUntil(Infinity)
    }
    yield* scenario.trigger
    const wasKilled = yield* runUntil(changes)
    yield* runUntil(Infinity)
    yield* scenario.check
    return wasKilled
  })

/** Each change takes some turns of a controller: a second or two in all, and many times that on a busy machine. */
const timeLimitMillis = 60_000

describe("killed after every change and started again", () => {
  for (const [name, scenario] of Object.entries(scenarios)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        let points = 0
        for (let changes = 1; changes <= mostChanges; changes++) {
          const wasKilled = yield* sweep(scenario, changes).pipe(
            Effect.provide(Layer.fresh(outside)),
            Effect.scoped,
            Effect.catchDefect((defect) => Effect.die(new Error(`killed after change ${changes}`, { cause: defect })))
          )
          if (!wasKilled) {
            break
          }
          points += 1
        }
        assert.isTrue(points >= 2 && points < mostChanges, `${points} points`)
      }), timeLimitMillis)
  }
})
