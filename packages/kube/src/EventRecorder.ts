/**
 * Kubernetes Events: what `kubectl describe` tells a user about an object. Recording never fails and never waits for
 * the API: repeated events are counted instead of repeated, and what is too much is dropped and counted.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type { KubeClient } from "./KubeClient.ts"
import type { KubeKind, KubeObject } from "./KubeObject.ts"

/** What happened. `reason` is one CamelCase word, `message` a sentence. */
export interface EventInput {
  readonly type: "Normal" | "Warning"
  readonly reason: string
  readonly message: string
}

/** Records Kubernetes Events. */
export class EventRecorder extends Context.Service<EventRecorder, {
  /** Reports something about an object. */
  record<A extends KubeObject>(kind: KubeKind<A>, object: A, event: EventInput): Effect.Effect<void>
}>()("@fast-sandbox/kube/EventRecorder") {
  /** Events that name `component` (and `instance`, the Pod or host) as their source. Flushed when the scope closes. */
  declare static readonly layer: (options: {
    readonly component: string
    readonly instance?: string | undefined
  }) => Layer.Layer<EventRecorder, never, KubeClient>
  /** Forgets everything. */
  declare static readonly layerNoop: Layer.Layer<EventRecorder>
}
