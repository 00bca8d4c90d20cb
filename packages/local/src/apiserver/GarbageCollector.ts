/**
 * What deletions leave to do, done in the background: dependents of owners that are gone, the content of namespaces, the
 * objects of removed definitions, and the finalizers of foreground and orphaning deletes. Level-triggered: each pass
 * reads the store and moves what it finds one step, so a pass that was lost to a crash is made up by the next.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import { Catalog } from "./Catalog.ts"
import * as Conversion from "./Conversion.ts"
import * as Crds from "./Crds.ts"
import type { Intent } from "./Intent.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Metadata from "./Metadata.ts"
import { Resources } from "./Resources.ts"
import type { ResourceType } from "./ResourceType.ts"
import { Store, type Stored } from "./Store.ts"
import { foregroundFinalizer, orphanFinalizer } from "./Transitions.ts"

/** Objects that one step of a pass touches, so that requests get their turn in between. */
const stepSize = 100

/** A pass is repeated after this long although nothing woke it: grace periods and clocks don't. */
const idleMillis = 30_000

const manager = "garbage-collector"

const decoded = (type: ResourceType, stored: Stored): JsonObject =>
  Conversion.fromStored(type, Json.parseTrusted(stored.body))

/** Runs as long as the layer lives. */
export const layer: Layer.Layer<never, never, Store | Catalog | Resources> = Layer.effectDiscard(
  Effect.gen(function*() {
    const store = yield* Store
    const catalog = yield* Catalog
    const resources = yield* Resources
    const clock = yield* Clock.Clock
    const wakeups = yield* Queue.sliding<void>(1)
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        store.subscribe(({ collectable }) => {
          if (collectable) Queue.offerUnsafe(wakeups, undefined)
        })
      ),
      (stop) => Effect.sync(stop)
    )

    const intent = (type: ResourceType, namespace: string, subresource: Intent["subresource"] = ""): Intent => ({
      type,
      namespace,
      subresource,
      dryRun: false,
      fieldManager: manager,
      fieldValidation: "Ignore",
      nowMillis: clock.currentTimeMillisUnsafe(),
      warn: () => undefined
    })

    /** Deletes an object as a user would; one that is already being deleted is left to that. */
    const remove = (key: { readonly resource: string; readonly namespace: string; readonly name: string }): number => {
      const type = catalog.stored(key.resource)
      const stored = type === undefined ? undefined : store.get(key)
      if (type === undefined || stored === undefined) return 0
      const object = decoded(type, stored)
      if (Metadata.isDeleting(object)) return 0
      return Result.isSuccess(resources.remove(intent(type, key.namespace), key.name, { uid: Metadata.uidOf(object) }))
        ? 1
        : 0
    }

    const rewrite = (type: ResourceType, stored: Stored, object: JsonObject): number =>
      Result.isSuccess(resources.update(intent(type, stored.namespace), stored.name, object)) ? 1 : 0

    const withoutFinalizer = (type: ResourceType, stored: Stored, object: JsonObject, finalizer: string): number => {
      const kept = Metadata.finalizersOf(object).filter((name) => name !== finalizer)
      return rewrite(type, stored, Metadata.withMetadata(object, { finalizers: kept.length === 0 ? undefined : kept }))
    }

    const namespaceContent = (type: ResourceType, stored: Stored, object: JsonObject): number => {
      const content = [...new Set(catalog.all().filter((entry) => entry.namespaced).map((entry) => entry.key))]
        .flatMap((resource) => store.list({ resource, namespace: stored.name, limit: stepSize }))
      if (content.length > 0) return content.reduce((sum, key) => sum + remove(key), 0)
      const emptied = Json.withAt(object, ["spec", "finalizers"], [])
      return Json.arrayAt(object, "spec", "finalizers").length === 0
        ? 0
        : Result.isSuccess(resources.update(intent(type, "", "finalize"), stored.name, emptied))
        ? 1
        : 0
    }

    const definitionContent = (type: ResourceType, stored: Stored, object: JsonObject): number => {
      if (!Metadata.finalizersOf(object).includes(Crds.crdFinalizer)) return 0
      const instances = store.list({ resource: stored.name, limit: stepSize })
      return instances.length > 0
        ? instances.reduce((sum, key) => sum + remove(key), 0)
        : withoutFinalizer(type, stored, object, Crds.crdFinalizer)
    }

    const dependentsOf = (uid: string): ReadonlyArray<readonly [ResourceType, Stored, JsonObject]> =>
      store.dependents(uid).flatMap((key) => {
        const type = catalog.stored(key.resource)
        const stored = store.get(key)
        return type === undefined || stored === undefined ? [] : [[type, stored, decoded(type, stored)] as const]
      })

    const foreground = (type: ResourceType, stored: Stored, object: JsonObject): number => {
      const uid = Metadata.uidOf(object)
      const dependents = dependentsOf(uid)
      const blocking = dependents.some(([, , dependent]) =>
        Json.arrayAt(dependent, "metadata", "ownerReferences").some((owner) =>
          Json.stringAt(owner, "uid") === uid && Json.at(owner, "blockOwnerDeletion") === true
        )
      )
      const removed = dependents.reduce((sum, [, key]) => sum + remove(key), 0)
      return blocking ? removed : removed + withoutFinalizer(type, stored, object, foregroundFinalizer)
    }

    const disown = (type: ResourceType, stored: Stored, object: JsonObject, gone: (uid: string) => boolean): number => {
      const kept = Json.arrayAt(object, "metadata", "ownerReferences").filter((owner) =>
        !gone(Json.stringAt(owner, "uid") ?? "")
      )
      return rewrite(
        type,
        stored,
        Metadata.withMetadata(object, { ownerReferences: kept.length === 0 ? undefined : kept })
      )
    }

    const orphan = (type: ResourceType, stored: Stored, object: JsonObject): number => {
      const uid = Metadata.uidOf(object)
      const moved = dependentsOf(uid).reduce(
        (sum, [dependentType, key, dependent]) => sum + disown(dependentType, key, dependent, (owner) => owner === uid),
        0
      )
      return moved + withoutFinalizer(type, stored, object, orphanFinalizer)
    }

    const deleting = (stored: Stored): number => {
      const type = catalog.stored(stored.resource)
      if (type === undefined) return 0
      const object = decoded(type, stored)
      const finalizers = Metadata.finalizersOf(object)
      if (finalizers.includes(orphanFinalizer)) return orphan(type, stored, object)
      if (finalizers.includes(foregroundFinalizer)) return foreground(type, stored, object)
      if (type.key === "namespaces") return namespaceContent(type, stored, object)
      if (type.key === Crds.crdKey) return definitionContent(type, stored, object)
      return 0
    }

    const isGone = (uid: string): boolean => store.byUid(uid) === undefined

    /** An object all of whose owners are gone goes too; one with an owner left only forgets the others. */
    const ownerless = (stored: Stored): number => {
      const type = catalog.stored(stored.resource)
      if (type === undefined) return 0
      const object = decoded(type, stored)
      return Metadata.ownersOf(object).every(isGone) ? remove(stored) : disown(type, stored, object, isGone)
    }

    /** One step; the number of objects that it moved. */
    const step = Effect.sync(() => {
      let moved = 0
      for (const stored of store.deleting()) moved += deleting(stored)
      for (const stored of store.ownerless(stepSize)) moved += ownerless(stored)
      return moved
    })

    yield* Effect.gen(function*() {
      while (true) {
        const moved = yield* step
        if (moved > 0) yield* Effect.yieldNow
        else yield* Effect.timeoutOption(Queue.take(wakeups), idleMillis)
      }
    }).pipe(Effect.forkScoped)
  })
)
