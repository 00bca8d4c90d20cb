/**
 * The records of containers. A record owns the snapshot that it names (it is the garbage collector's root), which is
 * why it is written before the snapshot and removed after it, and carries the labels by which an agent finds its
 * sandboxes again.
 */
import type { Container as RawContainer } from "@fast-sandbox/grpc/gen/containerd/containers_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { type Any, fromJson, specTypeUrl } from "./Any.ts"
import { ContainerdClient, named } from "./ContainerdClient.ts"
import type { ContainerdError } from "./ContainerdError.ts"
import { toMillis } from "./internal/time.ts"
import type * as OciSpec from "./OciSpec.ts"
import type { ShimRuntime } from "./ShimRuntime.ts"
import { defaultSnapshotter } from "./Snapshots.ts"

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
 * `update` sets what is given of labels, extensions and spec, and leaves the others; a label with an empty value is removed. `delete` is
 * accepted by containerd while a task lives (which then can't be killed any more): delete the task first.
 */
export class Containers extends Context.Service<Containers, {
  readonly create: (container: NewContainer) => Effect.Effect<Container, ContainerdError>
  readonly get: (id: string) => Effect.Effect<Container, ContainerdError>
  readonly list: (...filters: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<Container>, ContainerdError>
  readonly update: (
    id: string,
    changes: Partial<Pick<NewContainer, "labels" | "extensions" | "spec">>
  ) => Effect.Effect<Container, ContainerdError>
  readonly delete: (id: string) => Effect.Effect<void, ContainerdError>
}>()("@fast-sandbox/containerd/Containers") {
  static readonly layer: Layer.Layer<Containers, never, ContainerdClient> = Layer.effect(
    Containers,
    Effect.gen(function*() {
      const { options, raw: { containers } } = yield* ContainerdClient

      return Containers.of({
        create: Effect.fn("Containers.create")((container) =>
          containers.create({
            container: {
              id: container.id,
              labels: { ...container.labels },
              image: container.image ?? "",
              runtime: {
                name: container.runtime.name,
                ...(container.runtime.options === undefined ? {} : { options: container.runtime.options })
              },
              spec: fromJson(container.spec, specTypeUrl),
              snapshotter: container.snapshotter ?? defaultSnapshotter,
              snapshotKey: container.snapshotKey ?? container.id,
              extensions: { ...container.extensions }
            }
          }, options.call).pipe(Effect.map(({ container }) => fromRaw(container)), named("Containers.create"))
        ),
        get: Effect.fn("Containers.get")((id) =>
          containers.get({ id }, options.call).pipe(
            Effect.map(({ container }) => fromRaw(container)),
            named("Containers.get")
          )
        ),
        list: Effect.fn("Containers.list")((...filters) =>
          containers.listStream({ filters: [...filters] }, options.call).pipe(
            Stream.runCollect,
            Effect.map((messages) => messages.map(({ container }) => fromRaw(container))),
            named("Containers.list")
          )
        ),
        update: Effect.fn("Containers.update")((id, { extensions = {}, labels = {}, spec }) =>
          containers.update({
            container: {
              id,
              labels: { ...labels },
              extensions: { ...extensions },
              ...(spec === undefined ? {} : { spec: fromJson(spec, specTypeUrl) })
            },
            updateMask: {
              paths: [
                ...Object.keys(labels).map((key) => `labels.${key}`),
                ...Object.keys(extensions).map((key) => `extensions.${key}`),
                ...(spec === undefined ? [] : ["spec"])
              ]
            }
          }, options.call).pipe(Effect.map(({ container }) => fromRaw(container)), named("Containers.update"))
        ),
        delete: Effect.fn("Containers.delete")((id) =>
          containers.delete({ id }, options.call).pipe(Effect.asVoid, named("Containers.delete"))
        )
      })
    })
  )
}

const fromRaw = (raw: RawContainer | undefined): Container => ({
  id: raw?.id ?? "",
  labels: raw?.labels ?? {},
  image: raw?.image ?? "",
  runtime: raw?.runtime?.name ?? "",
  runtimeOptions: raw?.runtime?.options,
  spec: raw?.spec,
  snapshotter: raw?.snapshotter ?? "",
  snapshotKey: raw?.snapshotKey ?? "",
  extensions: raw?.extensions ?? {},
  createdAtMillis: toMillis(raw?.createdAt),
  updatedAtMillis: toMillis(raw?.updatedAt)
})
