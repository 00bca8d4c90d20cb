/**
 * The cache of a reflector: a consistent snapshot of the objects of one kind, and its changes.
 */
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { KubeError } from "./KubeError.ts"
import type { KubeObject, ObjectRef } from "./KubeObject.ts"

/**
 * A difference between two snapshots. An object that was deleted and made again under its name is reported as `Deleted`
 * and `Added`. `Synced` says that everything the server had at the time has been delivered.
 */
export type Change<A> =
  | { readonly _tag: "Added"; readonly object: A }
  | { readonly _tag: "Modified"; readonly object: A; readonly previous: A }
  | { readonly _tag: "Deleted"; readonly object: A }
  | { readonly _tag: "Synced" }

/** How a reflector is doing. */
export interface Health {
  /** The first list has been taken in. */
  readonly synced: boolean
  /** Why the copy is not being kept up to date right now, if it is not. */
  readonly problem: Option.Option<KubeError>
}

/** A live, consistent copy of the objects of one kind. `I` are the names of its indices. */
export interface Store<A extends KubeObject, I extends string = never> {
  /** One object, if it exists. */
  get(ref: ObjectRef): Effect.Effect<Option.Option<A>>
  /** All objects, in the order of their keys. */
  readonly list: Effect.Effect<ReadonlyArray<A>>
  /** The objects for which the index function gave this value. */
  byIndex(index: I, value: string): Effect.Effect<ReadonlyArray<A>>
  /** Waits until the first list has been taken in; absence means nothing before. */
  readonly synced: Effect.Effect<void>
  /**
   * First the current objects as `Added`, then `Synced`, then every difference. Each subscriber sees differences to
   * what it saw last: one that is slow sees fewer and bigger steps, and costs at most one entry for each object.
   */
  readonly changes: Stream.Stream<Change<A>>
  /** How the copying is going. */
  readonly health: Effect.Effect<Health>
  /** Keys (`namespace/name`) of objects that exist but do not fit the schema of their kind, and why. */
  readonly malformed: Effect.Effect<ReadonlyMap<string, KubeError>>
}
