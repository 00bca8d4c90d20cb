/**
 * The cluster around the controllers: an API server that keeps a record of who wrote what, and the kubelets, which
 * bring Pods up, take them down, and run an agent in each.
 */
import { agentAppLabel } from "@fast-sandbox/core/Names"
import type { Sandbox } from "@fast-sandbox/core/Sandbox"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { Draft, KubeKind, KubeObject, ObjectRef } from "@fast-sandbox/kube/KubeObject"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { FaultyAgents } from "./FaultyAgents.ts"
import type { History } from "./History.ts"
import type { Seed } from "./Seed.ts"
import * as SimAgent from "./SimAgent.ts"

/** Keeps a Pod in the API until its node has taken it down, as its grace period does. */
export const kubeletFinalizer = "simulation/kubelet"

/** A Pod is up after this mean time, in milliseconds. */
const podStartMillis = 1_500

/** A Pod is down after this mean time, in milliseconds. */
const podStopMillis = 800

const nodes = 3

/** The API as one caller has it: what the caller changes is recorded in the history under its name. */
export const recording = (
  api: KubeClient["Service"],
  history: History,
  stored: Map<string, Sandbox>,
  by: string
): KubeClient["Service"] => {
  /** Records what became of a sandbox. */
  const look = (ref: ObjectRef) =>
    api.get(FastSandbox.Sandbox, ref).pipe(
      Effect.map((after) => {
        const key = `${ref.namespace ?? "default"}/${ref.name}`
        const before = stored.get(key)
        if (before !== undefined && before.metadata.uid !== after.metadata.uid) {
          history.add({ _tag: "Removed", by, sandbox: before })
        }
        if (before?.metadata.resourceVersion !== after.metadata.resourceVersion) {
          const known = before?.metadata.uid === after.metadata.uid ? before : undefined
          stored.set(key, after)
          history.add({ _tag: "Stored", by, before: known, after })
        }
      }),
      Effect.catch(() =>
        Effect.sync(() => {
          const key = `${ref.namespace ?? "default"}/${ref.name}`
          const before = stored.get(key)
          if (before !== undefined) {
            stored.delete(key)
            history.add({ _tag: "Removed", by, sandbox: before })
          }
        })
      )
    )

  const record = <A extends KubeObject, B, E>(kind: KubeKind<A>, ref: ObjectRef, write: Effect.Effect<B, E>) =>
    kind.plural === FastSandbox.Sandbox.plural ? Effect.tap(write, () => look(ref)) : write

  const refOf = ({ metadata: { name = "", namespace } }: KubeObject): ObjectRef => ({ name, namespace })

  return KubeClient.of({
    ...api,
    create: (kind, object, options) => {
      const draft: Draft<typeof kind extends KubeKind<infer A extends KubeObject> ? A : never> =
        kind.plural === Pod.plural
          ? { ...object, metadata: { ...object.metadata, finalizers: [kubeletFinalizer] } }
          : object
      return record(kind, refOf(object), api.create(kind, draft, options))
    },
    update: (kind, object, options) => record(kind, refOf(object), api.update(kind, object, options)),
    updateStatus: (kind, object, options) => record(kind, refOf(object), api.updateStatus(kind, object, options)),
    patch: (kind, ref, patch, options) => record(kind, ref, api.patch(kind, ref, patch, options)),
    patchStatus: (kind, ref, patch, options) => record(kind, ref, api.patchStatus(kind, ref, patch, options)),
    delete: (kind, ref, options) => record(kind, ref, api.delete(kind, ref, options))
  })
}

/** Options of {@link runKubelets}. */
export interface KubeletOptions {
  readonly api: KubeClient["Service"]
  readonly agents: FaultyAgents
  readonly world: SimAgent.SimAgentWorld
  readonly seed: Seed
}

const slotsOf = ({ spec }: Pod): number =>
  Number(spec.containers.flatMap(({ env }) => env ?? []).find(({ name }) => name === "FSB_SLOTS")?.value ?? 5)

/** Looks after the Pods until the scope closes. */
export const runKubelets = Effect.fnUntraced(function*(
  { agents, api, seed, world }: KubeletOptions
): Effect.fn.Return<void, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const known = new Set<string>()
  const ending = new Set<string>()
  let count = 0

  const bringUp = Effect.fnUntraced(function*(pod: Pod) {
    const { name, namespace, uid } = pod.metadata
    const node = `node-${count++ % nodes}`
    yield* Effect.sleep(seed.exponential(podStartMillis))
    if (ending.has(uid)) {
      return
    }
    const agent = yield* SimAgent.SimAgent.make({ uid, pod: name, node, slots: slotsOf(pod) }, world, scope)
    agents.add(agent)
    world.history.add({ _tag: "AgentStarted", agent: uid, slots: slotsOf(pod) })
    yield* agent.start
    const ref = { name, namespace }
    yield* api.patch(Pod, ref, { type: "merge", body: { spec: { nodeName: node } } })
    yield* api.patchStatus(Pod, ref, {
      type: "merge",
      body: {
        status: {
          phase: "Running",
          podIP: uid,
          conditions: [{ type: "Ready", status: "True" }]
        }
      }
    })
  })

  const takeDown = Effect.fnUntraced(function*({ metadata: { name, namespace, uid } }: Pod) {
    ending.add(uid)
    agents.get(uid)?.drain()
    yield* Effect.sleep(seed.exponential(podStopMillis))
    const agent = agents.get(uid)
    if (agent !== undefined) {
      yield* agent.remove
      agents.forget(uid)
    }
    yield* api.patch(Pod, { name, namespace }, { type: "merge", body: { metadata: { finalizers: null } } })
  })

  yield* api.watch(Pod, { labelSelector: `${agentAppLabel.key}=${agentAppLabel.value}`, resourceVersion: "0" }).pipe(
    Stream.runForEach((event) => {
      if (event._tag === "Bookmark" || event._tag === "Deleted") {
        return Effect.void
      }
      const { deletionTimestamp, uid } = event.object.metadata
      if (deletionTimestamp !== undefined && !ending.has(uid)) {
        return Effect.forkIn(Effect.ignore(takeDown(event.object)), scope)
      }
      if (known.has(uid)) {
        return Effect.void
      }
      known.add(uid)
      return Effect.forkIn(Effect.ignore(bringUp(event.object)), scope)
    }),
    Effect.ignore,
    Effect.forkScoped
  )
})
