/**
 * A live copy of the objects of one kind: lists them, watches from there, and stays right through everything that can
 * happen to a watch: expired versions, throttling, broken and half-open connections, restarts of the server.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { KubeClient, Selection } from "./KubeClient.ts"
import type { KubeKind, KubeObject } from "./KubeObject.ts"
import type { Store } from "./Store.ts"

/** Options of {@link make}. `I` are the names of the indices. */
export interface ReflectorOptions<A extends KubeObject, I extends string> extends Selection {
  /** Index functions: the values under which an object is found with `store.byIndex(name, value)`. */
  readonly indices?: { readonly [name in I]: (object: A) => ReadonlyArray<string> } | undefined
  /** Trims objects before they are kept; by default `metadata.managedFields` goes. */
  readonly transform?: ((object: A) => A) | undefined
  /** Objects per page of the list. Default 500, as kubectl's. */
  readonly pageSize?: number | undefined
  /** How long one watch lives before the server ends it and the next begins. Default 5 minutes, jittered to 10. */
  readonly watchTimeout?: Duration.Input | undefined
}

/**
 * Starts a reflector in the background of the scope and returns its store, which fills up at once; wait for
 * `store.synced` before deciding anything from absence. It never fails: what goes wrong is logged, shown in
 * `store.health`, and tried again with growing pauses.
 */
export declare const make: <A extends KubeObject, const I extends string = never>(
  kind: KubeKind<A>,
  options?: ReflectorOptions<A, I>
) => Effect.Effect<Store<A, I>, never, KubeClient | Scope.Scope>
