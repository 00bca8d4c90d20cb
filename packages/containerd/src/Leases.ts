/**
 * Leases keep what nothing refers to yet (a blob, a half unpacked layer) from containerd's garbage collector.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ContainerdError } from "./ContainerdError.ts"

/** A lease and its labels. */
export interface Lease {
  readonly id: string
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMillis: number
}

/**
 * The leases of one containerd namespace. `scoped` holds one for the life of a scope; it expires by itself after
 * `expiresAfter`, so that a crash leaves nothing for ever. `delete` waits for the collection that follows it when
 * called as `deleteAndCollect`, which is how a test forces one.
 */
export class Leases extends Context.Service<Leases, {
  readonly create: (
    id: string,
    options: { readonly expiresAfter: Duration.Input; readonly labels?: Readonly<Record<string, string>> | undefined }
  ) => Effect.Effect<Lease, ContainerdError>
  readonly scoped: (
    idPrefix: string,
    expiresAfter: Duration.Input
  ) => Effect.Effect<Lease, ContainerdError, Scope.Scope>
  readonly delete: (id: string) => Effect.Effect<void, ContainerdError>
  readonly deleteAndCollect: (id: string) => Effect.Effect<void, ContainerdError>
  readonly list: Effect.Effect<ReadonlyArray<Lease>, ContainerdError>
}>()("@fast-sandbox/containerd/Leases") {}
