/**
 * Live copies of the resources that the controllers look at, made once and shared: a copy of every Sandbox for each
 * reader would multiply the memory and the watches.
 */
import * as Assignment from "@fast-sandbox/core/Assignment"
import * as Conditions from "@fast-sandbox/core/Conditions"
import type { Sandbox } from "@fast-sandbox/core/Sandbox"
import type { SandboxPool } from "@fast-sandbox/core/SandboxPool"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import type { Store } from "@fast-sandbox/kube/Store"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

/** `namespace/name` of a sandbox or a pool. */
export const keyOf = ({ metadata }: Sandbox | SandboxPool): string =>
  `${metadata.namespace ?? ""}/${metadata.name ?? ""}`

/** `namespace/name` of the pool that a sandbox asks for. */
export const poolKeyOf = ({ metadata, spec }: Sandbox): string => `${metadata.namespace ?? ""}/${spec.poolRef}`

/** The uid of the agent that a sandbox is assigned to. */
export const agentOf = (sandbox: Sandbox): ReadonlyArray<string> =>
  Option.match(Assignment.of(sandbox), { onNone: () => [], onSome: ({ podUid }) => [podUid] })

/** The pool that a sandbox waits for, when it waits for a slot of it. */
const wantedPool = (sandbox: Sandbox): ReadonlyArray<string> => {
  const { conditions, phase } = sandbox.status ?? {}
  const scheduled = conditions?.find(({ type }) => type === "Scheduled")
  return phase === "Pending" && scheduled?.reason === Conditions.reasons.noCapacity &&
      sandbox.metadata.deletionTimestamp === undefined
    ? [poolKeyOf(sandbox)]
    : []
}

/** See the module. Wait for `synced` of each before deciding anything from absence. */
export class Caches extends Context.Service<Caches, {
  /** By `agent`: the uid of the assigned agent; by `waiting`: the key of the pool that has no slot for it. */
  readonly sandboxes: Store<Sandbox, "agent" | "waiting">
  readonly pools: Store<SandboxPool>
}>()("@fast-sandbox/controller/Caches") {
  static readonly layer: Layer.Layer<Caches, never, KubeClient> = Layer.effect(
    Caches,
    Effect.gen(function*() {
      return Caches.of({
        sandboxes: yield* Reflector.make(Kinds.Sandbox, { indices: { agent: agentOf, waiting: wantedPool } }),
        pools: yield* Reflector.make(Kinds.SandboxPool)
      })
    })
  )
}
