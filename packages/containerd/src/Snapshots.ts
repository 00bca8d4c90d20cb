/**
 * Layered file systems: committed snapshots are the unpacked layers of images, an active one is a sandbox's own root
 * file system above them.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { ContainerdError } from "./ContainerdError.ts"

/** The snapshotter that every call uses unless told otherwise. */
export const defaultSnapshotter = "overlayfs"

/** A mount that makes a snapshot visible; to be given to `Tasks.create`, or to mount(8). */
export interface Mount {
  readonly type: string
  readonly source: string
  readonly target?: string | undefined
  readonly options: ReadonlyArray<string>
}

/** What a snapshot is. */
export interface Snapshot {
  readonly name: string
  readonly parent: string
  readonly kind: "unknown" | "view" | "active" | "committed"
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMillis: number
}

/** Disk use of a snapshot's own layer. */
export interface SnapshotUsage {
  readonly sizeBytes: number
  readonly inodes: number
}

/** `snapshotter` defaults to {@link defaultSnapshotter}. */
export interface SnapshotOptions {
  readonly snapshotter?: string | undefined
}

/** `leaseId` protects the new snapshot, which otherwise needs a container record that names it. */
export interface NewSnapshotOptions extends SnapshotOptions {
  readonly labels?: Readonly<Record<string, string>> | undefined
  readonly leaseId?: string | undefined
}

/**
 * Tells the kernel not to flush the upper layer when it is unmounted: a sandbox's file system never outlives it, and the
 * flush waits for every other writer of the disk. A snapshot that was mounted so can't be mounted again after a crash.
 */
export const volatile = (mounts: ReadonlyArray<Mount>): ReadonlyArray<Mount> =>
  mounts.map((mount) => mount.type === "overlay" ? { ...mount, options: [...mount.options, "volatile"] } : mount)

/**
 * The snapshots of one containerd namespace. `prepare` makes a writable one, `view` a read-only one; `parent` is a chain
 * id (`Images.resolve`), empty for none.
 */
export class Snapshots extends Context.Service<Snapshots, {
  readonly prepare: (
    key: string,
    parent: string,
    options?: NewSnapshotOptions
  ) => Effect.Effect<ReadonlyArray<Mount>, ContainerdError>
  readonly view: (
    key: string,
    parent: string,
    options?: NewSnapshotOptions
  ) => Effect.Effect<ReadonlyArray<Mount>, ContainerdError>
  readonly mounts: (key: string, options?: SnapshotOptions) => Effect.Effect<ReadonlyArray<Mount>, ContainerdError>
  readonly commit: (name: string, key: string, options?: NewSnapshotOptions) => Effect.Effect<void, ContainerdError>
  readonly stat: (key: string, options?: SnapshotOptions) => Effect.Effect<Snapshot, ContainerdError>
  readonly usage: (key: string, options?: SnapshotOptions) => Effect.Effect<SnapshotUsage, ContainerdError>
  readonly list: (options?: SnapshotOptions) => Effect.Effect<ReadonlyArray<Snapshot>, ContainerdError>
  readonly remove: (key: string, options?: NewSnapshotOptions) => Effect.Effect<void, ContainerdError>
}>()("@fast-sandbox/containerd/Snapshots") {}
