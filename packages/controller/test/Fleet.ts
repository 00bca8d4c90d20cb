/**
 * Simulated agents with their Pods in an in-memory Kubernetes API, and the controller's parts that talk to them: the
 * stage on which the controller's tests play.
 */
import { agentAppLabel, poolLabel } from "@fast-sandbox/core/Names"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import * as SimulatedAgent from "@fast-sandbox/testkit/SimulatedAgent"
import { Context, Duration, Effect, Layer, Option, References, Schedule, type Scope } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { AgentAddress } from "../src/agents/AgentAddress.ts"
import type { Agents } from "../src/agents/Agents.ts"
import * as WatchedAgents from "../src/agents/WatchedAgents.ts"
import { Registry } from "../src/registry/Registry.ts"

export interface AgentOptions {
  readonly slots?: number | undefined
  readonly pool?: string | undefined
  readonly namespace?: string | undefined
  readonly images?: ReadonlyArray<string> | undefined
}

const socketIn = (folder: string, uid: string): string => join(folder, `${uid}.sock`)

/** Agents that tests add, and the temporary folder of their sockets. */
export class Fleet extends Context.Service<Fleet, {
  /** Starts an agent and makes its Pod. */
  add(pod: string, options?: AgentOptions): Effect.Effect<SimulatedAgent.SimulatedAgent, never, Scope.Scope>
  /** Deletes the Pod; its agent is gone as well. */
  remove(agent: SimulatedAgent.SimulatedAgent): Effect.Effect<void>
  /** The folder of the agents' sockets. */
  readonly folder: string
}>()("@fast-sandbox/controller/test/Fleet") {
  static readonly layer: Layer.Layer<Fleet, never, KubeClient> = Layer.effect(
    Fleet,
    Effect.gen(function*() {
      const kube = yield* KubeClient
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "fleet-"))),
        (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
      )
      const namespaces = new Map<string, string>()
      return Fleet.of({
        folder,
        add: Effect.fnUntraced(function*(pod, { images, namespace = "default", pool = "pool", slots = 2 } = {}) {
          const { metadata: { uid } } = yield* kube.create(Kinds.Pod, {
            metadata: {
              name: pod,
              namespace,
              labels: { [agentAppLabel.key]: agentAppLabel.value, [poolLabel]: pool }
            },
            spec: { containers: [{ name: "agent", image: "agent" }], nodeName: `node-${pod}` }
          }).pipe(Effect.orDie)
          namespaces.set(uid, namespace)
          return yield* SimulatedAgent.make({
            uid,
            pod,
            node: `node-${pod}`,
            slots,
            socket: socketIn(folder, uid),
            images
          })
        }),
        remove: Effect.fnUntraced(function*({ disconnect, options: { pod, uid } }) {
          yield* disconnect
          yield* kube.delete(Kinds.Pod, { name: pod, namespace: namespaces.get(uid) }).pipe(Effect.orDie)
        })
      })
    })
  )
}

/** Agents at the sockets of a folder. */
export const addressesIn = (folder: string): Layer.Layer<AgentAddress> =>
  Layer.succeed(
    AgentAddress,
    AgentAddress.of({
      resolve: ({ metadata }) => Effect.succeed(Option.some({ address: `unix:${socketIn(folder, metadata.uid)}` }))
    })
  )

/** Agents at the sockets of the fleet. */
export const addresses: Layer.Layer<AgentAddress, never, Fleet> = Layer.unwrap(
  Effect.map(Fleet, ({ folder }) => addressesIn(folder))
)

/** The controller's view of the fleet. */
export const controller: Layer.Layer<Agents | Registry, never, KubeClient | Fleet> = WatchedAgents.layer.pipe(
  Layer.provide(addresses),
  Layer.provideMerge(Registry.layer)
)

/** The API and the fleet, without a controller. What is logged about the ends of agents is of no interest. */
export const world: Layer.Layer<MemoryKube | KubeClient | Fleet> = Fleet.layer.pipe(
  Layer.provideMerge(MemoryKube.layer),
  Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, "Fatal"))
)

/** Makes a pool. */
export const addPool = (name = "pool", namespace = "default") =>
  KubeClient.use((kube) =>
    Effect.orDie(kube.create(FastSandbox.SandboxPool, { metadata: { name, namespace }, spec: {} }))
  )

/** What a real-time test waits for at most. */
const patience = Duration.seconds(5)

/** Tries again until it holds. */
export const eventually = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  self.pipe(
    Effect.catchDefect((defect) => Effect.fail({ defect })),
    Effect.retry(Schedule.spaced("10 millis").pipe(Schedule.upTo({ duration: patience }))),
    Effect.catchIf(
      (error): error is { readonly defect: unknown } =>
        typeof error === "object" && error !== null && "defect" in error,
      ({ defect }) => Effect.die(defect)
    )
  )
