/**
 * Layered file systems: committed snapshots are the unpacked layers of images, an active one is a sandbox's own root
 * file system above them.
 */
import { type Info, Kind } from "@fast-sandbox/grpc/gen/containerd/snapshots_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { ContainerdClient, named } from "./ContainerdClient.ts"
import type { ContainerdError } from "./ContainerdError.ts"
import { toMillis } from "./internal/time.ts"

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
  mounts.map((mount) =>
    mount.type === "overlay" ? Object.assign({}, mount, { options: [...mount.options, "volatile"] }) : mount
  )

/** A mount as containerd's own messages have it. */
export const toRawMount = (mount: Mount) => ({
  type: mount.type,
  source: mount.source,
  target: mount.target ?? "",
  options: [...mount.options]
})

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
}>()("@fast-sandbox/containerd/Snapshots") {
  static readonly layer: Layer.Layer<Snapshots, never, ContainerdClient> = Layer.effect(
    Snapshots,
    Effect.gen(function*() {
      const { options: raw, raw: { snapshots } } = yield* ContainerdClient
      return Snapshots.of({
        prepare: Effect.fn("Snapshots.prepare")((key, parent, options) =>
          snapshots.prepare(
            { ...at(key, options), parent, labels: { ...options?.labels } },
            raw.leased(options?.leaseId)
          ).pipe(Effect.map(({ mounts }) => mounts), named("Snapshots.prepare"))
        ),
        view: Effect.fn("Snapshots.view")((key, parent, options) =>
          snapshots.view({ ...at(key, options), parent, labels: { ...options?.labels } }, raw.leased(options?.leaseId))
            .pipe(Effect.map(({ mounts }) => mounts), named("Snapshots.view"))
        ),
        mounts: Effect.fn("Snapshots.mounts")((key, options) =>
          snapshots.mounts(at(key, options), raw.call).pipe(
            Effect.map(({ mounts }) => mounts),
            named("Snapshots.mounts")
          )
        ),
        commit: Effect.fn("Snapshots.commit")((name, key, options) =>
          snapshots.commit({ ...at(key, options), name, labels: { ...options?.labels } }, raw.leased(options?.leaseId))
            .pipe(Effect.asVoid, named("Snapshots.commit"))
        ),
        stat: Effect.fn("Snapshots.stat")((key, options) =>
          snapshots.stat(at(key, options), raw.call).pipe(
            Effect.map(({ info }) => fromRaw(info)),
            named("Snapshots.stat")
          )
        ),
        usage: Effect.fn("Snapshots.usage")((key, options) =>
          snapshots.usage(at(key, options), raw.call).pipe(
            Effect.map(({ inodes, size }) => ({ sizeBytes: Number(size), inodes: Number(inodes) })),
            named("Snapshots.usage")
          )
        ),
        list: Effect.fn("Snapshots.list")((options) =>
          snapshots.list({ snapshotter: options?.snapshotter ?? defaultSnapshotter }, raw.call).pipe(
            Stream.runCollect,
            Effect.map((pages) => pages.flatMap(({ info }) => info.map(fromRaw))),
            named("Snapshots.list")
          )
        ),
        remove: Effect.fn("Snapshots.remove")((key, options) =>
          snapshots.remove(at(key, options), raw.leased(options?.leaseId)).pipe(
            Effect.asVoid,
            named("Snapshots.remove")
          )
        )
      })
    })
  )
}

const at = (key: string, options: SnapshotOptions | undefined) => ({
  key,
  snapshotter: options?.snapshotter ?? defaultSnapshotter
})

const kinds: ReadonlyMap<number, Snapshot["kind"]> = new Map([
  [Kind.VIEW, "view"],
  [Kind.ACTIVE, "active"],
  [Kind.COMMITTED, "committed"]
])

const fromRaw = (raw: Info | undefined): Snapshot => ({
  name: raw?.name ?? "",
  parent: raw?.parent ?? "",
  kind: kinds.get(raw?.kind ?? Kind.UNKNOWN) ?? "unknown",
  labels: raw?.labels ?? {},
  createdAtMillis: toMillis(raw?.createdAt)
})
