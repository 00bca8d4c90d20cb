/**
 * The records of containers. A record owns the snapshot that it names (it is the garbage collector's root), which is
 * why it is written before the snapshot and removed after it, and carries the labels by which an agent finds its
 * sandboxes again.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Any } from "./Any.ts"
import type { ContainerdError } from "./ContainerdError.ts"
import type * as OciSpec from "./OciSpec.ts"
import type { ShimRuntime } from "./ShimRuntime.ts"

/** A container's record. Times are milliseconds since 1970; `spec` and `extensions` are as stored. */
export interface Container {
  readonly id: string
  readonly labels: Readonly<Record<string, string>>
  readonly image: string
  readonly runtime: string
  readonly runtimeOptions: Any | undefined
  readonly spec: Any | undefined
  readonly snapshotter: string
  readonly snapshotKey: string
  readonly extensions: Readonly<Record<string, Any>>
  readonly createdAtMillis: number
  readonly updatedAtMillis: number
}

/** What a new record says. `snapshotKey` defaults to the id, `snapshotter` to overlayfs. */
export interface NewContainer {
  readonly id: string
  readonly labels?: Readonly<Record<string, string>> | undefined
  readonly image?: string | undefined
  readonly runtime: ShimRuntime
  readonly spec: OciSpec.Spec
  readonly snapshotter?: string | undefined
  readonly snapshotKey?: string | undefined
  readonly extensions?: Readonly<Record<string, Any>> | undefined
}

/**
 * The records of one containerd namespace.
 *
 * `list` takes containerd's filter language, each filter an alternative (`labels."fast-sandbox.io/managed"==true`).
 * `updateLabels` sets the given labels and leaves the others; a label with an empty value is removed. `delete` is
 * accepted by containerd while a task lives (which then can't be killed any more): delete the task first.
 */
export class Containers extends Context.Service<Containers, {
  readonly create: (container: NewContainer) => Effect.Effect<Container, ContainerdError>
  readonly get: (id: string) => Effect.Effect<Container, ContainerdError>
  readonly list: (...filters: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Container>, ContainerdError>
  readonly updateLabels: (
    id: string,
    labels: Readonly<Record<string, string>>
  ) => Effect.Effect<Container, ContainerdError>
  readonly updateExtensions: (
    id: string,
    extensions: Readonly<Record<string, Any>>
  ) => Effect.Effect<Container, ContainerdError>
  readonly delete: (id: string) => Effect.Effect<void, ContainerdError>
}>()("@fast-sandbox/containerd/Containers") {}
