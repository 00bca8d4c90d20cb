/**
 * What the containerd at the socket is and can do.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { ContainerdError } from "./ContainerdError.ts"

/** A release such as 1.6.20; suffixes of distributors are cut off `major` and `minor`. */
export interface Version {
  readonly version: string
  readonly revision: string
  readonly major: number
  readonly minor: number
}

/** A loaded plugin; `problem` says why it could not be loaded. */
export interface Plugin {
  readonly type: string
  readonly id: string
  readonly problem: string | undefined
}

/** `snapshotters` are those that work; `hasCriImages` says whether images can be pulled over this socket. */
export class Introspection extends Context.Service<Introspection, {
  readonly version: Effect.Effect<Version, ContainerdError>
  readonly plugins: Effect.Effect<ReadonlyArray<Plugin>, ContainerdError>
  readonly snapshotters: Effect.Effect<ReadonlyArray<string>, ContainerdError>
  readonly hasCriImages: Effect.Effect<boolean, ContainerdError>
}>()("@fast-sandbox/containerd/Introspection") {}
