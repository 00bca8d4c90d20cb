/**
 * Leases keep what nothing refers to yet (a blob, a half unpacked layer) from containerd's garbage collector.
 */
import type { Lease as RawLease } from "@fast-sandbox/grpc/gen/containerd/leases_pb"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { randomUUID } from "node:crypto"
import { ContainerdClient, named } from "./ContainerdClient.ts"
import { type ContainerdError, ignoreNotFound } from "./ContainerdError.ts"
import { toMillis } from "./internal/time.ts"

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
}>()("@fast-sandbox/containerd/Leases") {
  static readonly layer: Layer.Layer<Leases, never, ContainerdClient> = Layer.effect(
    Leases,
    Effect.gen(function*() {
      const { options: raw, raw: { leases } } = yield* ContainerdClient

      const create: Leases["Service"]["create"] = Effect.fn("Leases.create")(function*(id, options) {
        const expiresAt = (yield* Clock.currentTimeMillis) + Duration.toMillis(options.expiresAfter)
        const { lease } = yield* leases.create({
          id,
          labels: { ...options.labels, [expireLabel]: DateTime.formatIso(DateTime.makeUnsafe(expiresAt)) }
        }, raw.call).pipe(named("Leases.create"))
        return fromRaw(lease)
      })

      const remove = Effect.fn("Leases.delete")((id: string) =>
        leases.delete({ id }, raw.call).pipe(Effect.asVoid, named("Leases.delete"))
      )

      const scoped: Leases["Service"]["scoped"] = Effect.fn("Leases.scoped")(function*(idPrefix, expiresAfter) {
        const id = `${idPrefix}-${yield* Effect.sync(() => randomUUID())}`
        return yield* Effect.acquireRelease(
          create(id, { expiresAfter }),
          // What can't be deleted now expires.
          () => remove(id).pipe(ignoreNotFound, Effect.ignore({ log: "Warn" }))
        )
      })

      return Leases.of({
        create,
        scoped,
        delete: remove,
        deleteAndCollect: Effect.fn("Leases.deleteAndCollect")((id) =>
          leases.delete({ id, sync: true }, raw.call).pipe(Effect.asVoid, named("Leases.deleteAndCollect"))
        ),
        list: leases.list({}, raw.call).pipe(
          Effect.map((answer) => answer.leases.map(fromRaw)),
          named("Leases.list"),
          Effect.withSpan("Leases.list")
        )
      })
    })
  )
}

/** containerd's own label for the instant after which a lease no longer counts. */
const expireLabel = "containerd.io/gc.expire"

const fromRaw = (raw: RawLease | undefined): Lease => ({
  id: raw?.id ?? "",
  labels: raw?.labels ?? {},
  createdAtMillis: toMillis(raw?.createdAt)
})
