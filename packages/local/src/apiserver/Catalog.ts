/**
 * What is served: the built-in resources and those of the stored CustomResourceDefinitions, kept in step with the store.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { builtInTypes } from "./BuiltIns.ts"
import * as Crds from "./Crds.ts"
import * as Json from "./Json.ts"
import type { ResourceType } from "./ResourceType.ts"
import { Store, unlimited } from "./Store.ts"

/** The catalog's operations. */
export interface CatalogShape {
  readonly all: () => ReadonlyArray<ResourceType>
  readonly find: (group: string, version: string, plural: string) => ResourceType | undefined
  /** A type that can decode what is stored under a key. */
  readonly stored: (key: string) => ResourceType | undefined
  /** Grows with every change of what is served: the tag under which documents about it are cached. */
  readonly generation: () => number
}

/** The catalog of one server. */
export class Catalog extends Context.Service<Catalog, CatalogShape>()("@fast-sandbox/local/apiserver/Catalog") {
  static readonly layer: Layer.Layer<Catalog, never, Store> = Layer.effect(
    Catalog,
    Effect.gen(function*() {
      const store = yield* Store
      const builtIn = builtInTypes()
      let types: ReadonlyArray<ResourceType> = builtIn
      let byPath = new Map<string, ResourceType>()
      let byKey = new Map<string, ResourceType>()
      let generation = 0
      const load = () => {
        const defined = store.list({ resource: Crds.crdKey, limit: unlimited })
          .flatMap(({ body }) => Crds.definedTypes(Json.parseTrusted(body)))
        types = [...builtIn, ...defined]
        byPath = new Map(types.map((type) => [`${type.group}/${type.version}/${type.plural}`, type]))
        byKey = new Map()
        for (const type of types) {
          if (!byKey.has(type.key) || type.version === type.storageVersion) byKey.set(type.key, type)
        }
        const events = byPath.get("/v1/events")
        if (events !== undefined) byKey.set("events", events)
        generation += 1
      }
      load()
      yield* Effect.acquireRelease(
        Effect.sync(() =>
          store.subscribe(({ resources }) => {
            if (resources.has(Crds.crdKey)) load()
          })
        ),
        (stop) => Effect.sync(stop)
      )
      return {
        all: () => types,
        find: (group, version, plural) => byPath.get(`${group}/${version}/${plural}`),
        stored: (key) => byKey.get(key),
        generation: () => generation
      }
    })
  )
}
