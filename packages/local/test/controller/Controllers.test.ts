/**
 * The controllers against the embedded API server, with simulated agents: that what they write is what the server
 * accepts, stores and shows again, and that its collector clears what a pool leaves.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Agents } from "@fast-sandbox/controller/agents/Agents"
import { Caches } from "@fast-sandbox/controller/Caches"
import { controllers } from "@fast-sandbox/controller/Controller"
import { Demand } from "@fast-sandbox/controller/pool/Demand"
import { Registry } from "@fast-sandbox/controller/registry/Registry"
import * as Names from "@fast-sandbox/core/Names"
import { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Event, Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import * as FirstResources from "@fast-sandbox/local/FirstResources"
import { Effect, FileSystem, Layer, Schedule, Stream } from "effect"
import { SimulatedAgents } from "../../../controller/test/SimulatedAgents.ts"
import { node } from "../../../controller/test/simulatedNode.ts"

const api = Layer.unwrap(Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  return ApiServer.layer({ dataDirectory: yield* files.makeTempDirectoryScoped() })
}))

const kube = KubeClient.layer.pipe(
  Layer.provide(Layer.unwrap(
    Effect.map(
      ApiServer,
      ({ caCertificate, token, url }) => KubeConfig.layer({ server: url, token, ca: caCertificate })
    )
  ))
)

/** What the real view of the agents does by itself: it keeps the Registry, and the Fast-Path API its pools. */
const feed = Layer.effectDiscard(Effect.gen(function*() {
  yield* FirstResources.ensure
  const agents = yield* Agents
  const registry = yield* Registry
  yield* registry.addPool("default", Names.defaultPool)
  yield* agents.changes.pipe(
    Stream.runForEach(({ uid }) =>
      Effect.flatMap(
        agents.get(uid),
        (view) => view._tag === "Some" ? registry.upsertAgent(view.value) : registry.removeAgent(uid)
      )
    ),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* node
}))

const shared = Layer.mergeAll(
  SimulatedAgents.layer,
  Registry.layer,
  Demand.layer,
  Caches.layer,
  EventRecorder.layer({ component: "test" })
)

const world = controllers({ agentImage: "agent" }).pipe(
  Layer.provideMerge(feed),
  Layer.provideMerge(shared),
  Layer.provideMerge(kube),
  Layer.provideMerge(api),
  Layer.provide(NodeServices.layer)
)

/** Until what is looked for is there; at most 10 s. */
const eventually = <A, E, R>(read: Effect.Effect<A, E, R>, isRight: (value: A) => boolean) =>
  read.pipe(
    Effect.repeat({ schedule: Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 500 })), until: isRight }),
    Effect.tap((value) => Effect.sync(() => assert.isTrue(isRight(value), JSON.stringify(value))))
  )

const ref = { name: "s", namespace: "default" }

describe("the controllers on the embedded API server", () => {
  it.live("start, keep, reset and remove a sandbox, and a pool with its Pods", () =>
    Effect.gen(function*() {
      const client = yield* KubeClient
      const agents = yield* SimulatedAgents
      const sandbox = client.get(Kinds.Sandbox, ref)
      const pool = client.get(Kinds.SandboxPool, { name: Names.defaultPool, namespace: "default" })
      yield* eventually(pool, ({ status }) => status?.ready === 1)
      yield* client.create(Kinds.Sandbox, {
        apiVersion: Names.apiVersion,
        kind: "Sandbox",
        metadata: ref,
        spec: { image: "alpine", poolRef: Names.defaultPool }
      })
      const first = yield* eventually(sandbox, ({ status }) => status?.phase === "Running")
      assert.deepStrictEqual(first.metadata.finalizers, [Names.finalizer])
      yield* eventually(pool, ({ status }) => status?.slotsUsage === "1/50")
      yield* client.patch(Kinds.Sandbox, ref, {
        type: "merge",
        body: { spec: { resetRevision: "2026-01-01T00:00:00.000001Z" } }
      })
      const second = yield* eventually(
        sandbox,
        ({ status }) => status?.phase === "Running" && status.sandboxID !== first.status?.sandboxID
      )
      assert.strictEqual(second.status?.acceptedResetRevision, "2026-01-01T00:00:00.000001Z")
      yield* client.patchStatus(Kinds.Sandbox, ref, { type: "merge", body: { status: { phase: "Succeeded" } } })
      yield* eventually(sandbox, ({ status }) => status?.phase === "Running")
      const events = yield* eventually(
        client.list(Event, { namespace: "default" }),
        ({ items }) => items.some(({ involvedObject, reason }) => involvedObject.name === "s" && reason === "Running")
      )
      assert.isTrue(events.items.some(({ reason }) => reason === "Scheduled"))
      yield* client.delete(Kinds.Sandbox, ref)
      yield* eventually(client.list(Kinds.Sandbox), ({ items }) => items.length === 0)
      assert.strictEqual((yield* agents.instances).length, 0)
      yield* client.delete(Kinds.SandboxPool, { name: Names.defaultPool, namespace: "default" })
      yield* eventually(client.list(Pod), ({ items }) => items.length === 0)
    }).pipe(Effect.provide(world)), 30_000)
})
