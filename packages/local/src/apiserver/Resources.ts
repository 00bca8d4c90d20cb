/**
 * The verbs: get, create, update, patch, apply, delete and deletecollection on stored objects, with everything that the
 * real server does around a write. Each verb is one transaction.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import { randomInt } from "node:crypto"
import * as Admission from "./Admission.ts"
import * as ApiStatus from "./ApiStatus.ts"
import * as Apply from "./Apply.ts"
import * as Conversion from "./Conversion.ts"
import * as Crds from "./Crds.ts"
import type { DeleteOptions, Intent, Outcome, PatchKind } from "./Intent.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Metadata from "./Metadata.ts"
import { apiVersionOf, type ResourceType } from "./ResourceType.ts"
import * as Scale from "./Scale.ts"
import type { Predicate } from "./Selectors.ts"
import { type Key, Store, type Stored, type StoreShape, unlimited } from "./Store.ts"
import { strategyOf } from "./Strategies.ts"
import * as Transitions from "./Transitions.ts"

/** The answer to a write: the HTTP status and the encoded body. */
export interface Answer {
  readonly code: number
  readonly body: string
}

/** Generated names end in five of these; vowels and look-alikes are left out, as upstream. */
const suffixAlphabet = "bcdfghjklmnpqrstvwxz2456789"
const suffixLength = 5
/** What a generated name's base may have, so that base and suffix fit a label. */
const generatedBaseLimit = 63 - suffixLength
/** How often a generated name is drawn again when it is taken. */
const generateAttempts = 8

const generated = (base: string): string =>
  base.slice(0, generatedBaseLimit) +
  Array.from({ length: suffixLength }, () => suffixAlphabet[randomInt(suffixAlphabet.length)]).join("")

/** Namespaces that exist from the start and can't be deleted. */
export const protectedNamespaces: ReadonlyArray<string> = ["default", "kube-system", "kube-public"]

/** The verbs on stored objects. */
export interface ResourcesShape {
  readonly get: (intent: Intent, name: string) => Outcome<Answer>
  readonly create: (intent: Intent, body: Json.Json, name?: string) => Outcome<Answer>
  readonly update: (intent: Intent, name: string, body: Json.Json) => Outcome<Answer>
  readonly patch: (intent: Intent, name: string, kind: PatchKind, patch: Json.Json, force: boolean) => Outcome<Answer>
  readonly remove: (intent: Intent, name: string, options: DeleteOptions) => Outcome<Answer>
  readonly removeAll: (intent: Intent, selected: Predicate, options: DeleteOptions) => Outcome<ReadonlyArray<string>>
}

/** The verbs of one server. */
export class Resources extends Context.Service<Resources, ResourcesShape>()("@fast-sandbox/local/apiserver/Resources") {
  static readonly layer: Layer.Layer<Resources, never, Store> = Layer.effect(
    Resources,
    Effect.gen(function*() {
      return make(yield* Store)
    })
  )
}

const keyOf = (intent: Intent, name: string): Key => ({
  resource: intent.type.key,
  namespace: intent.namespace,
  name
})

const decoded = (type: ResourceType, stored: Stored): JsonObject =>
  Conversion.fromStored(type, Json.parseTrusted(stored.body))

const writer = (intent: Intent, operation: "Apply" | "Update"): Apply.Writer => ({
  manager: intent.fieldManager,
  operation,
  apiVersion: apiVersionOf(intent.type),
  subresource: intent.subresource,
  time: Metadata.timestamp(intent.nowMillis)
})

const answer = (intent: Intent, code: number, body: string): Answer => {
  if (intent.subresource !== "scale") return { code, body: Conversion.serve(intent.type, body) }
  return {
    code,
    body: JSON.stringify(Scale.fromObject(intent.type, Conversion.fromStored(intent.type, Json.parseTrusted(body))))
  }
}

const make = (store: StoreShape): ResourcesShape => {
  const find = (intent: Intent, name: string): Outcome<{ readonly stored: Stored; readonly object: JsonObject }> => {
    const stored = store.get(keyOf(intent, name))
    return stored === undefined
      ? Result.fail(ApiStatus.notFound(intent.type, name))
      : Result.succeed({ stored, object: decoded(intent.type, stored) })
  }

  const atomically = <A>(intent: Intent, body: () => Outcome<A>): Outcome<A> =>
    intent.dryRun ? store.rehearse(body) : store.transaction(body)

  const save = (type: ResourceType, object: JsonObject): Stored => {
    const stored = Conversion.toStored(type, object)
    return store.write({
      resource: type.key,
      namespace: type.namespaced ? Metadata.namespaceOf(object) : "",
      name: Metadata.nameOf(object),
      uid: Metadata.uidOf(object),
      owners: Metadata.ownersOf(object),
      deleting: Metadata.isDeleting(object),
      body: (revision) => Metadata.encode(stored, Conversion.storedApiVersion(type), type.kind, revision)
    })
  }

  const erase = (type: ResourceType, object: JsonObject): Stored | undefined => {
    const stored = Conversion.toStored(type, object)
    return store.remove(
      {
        resource: type.key,
        namespace: type.namespaced ? Metadata.namespaceOf(object) : "",
        name: Metadata.nameOf(object)
      },
      (revision) => Metadata.encode(stored, Conversion.storedApiVersion(type), type.kind, revision)
    )
  }

  /** A write into a namespace needs the namespace, and a namespace that stays. */
  const admitNamespace = (intent: Intent, name: string): Outcome<void> => {
    if (!intent.type.namespaced) return Result.succeed(undefined)
    const namespace = store.get({ resource: "namespaces", namespace: "", name: intent.namespace })
    if (namespace === undefined) {
      return Result.fail(ApiStatus.notFound({ group: "", plural: "namespaces", kind: "Namespace" }, intent.namespace))
    }
    if (!namespace.deleting) return Result.succeed(undefined)
    return Result.fail(ApiStatus.forbidden(
      intent.type,
      name,
      `unable to create new content in namespace ${intent.namespace} because it is being terminated`,
      {
        reason: "NamespaceTerminating",
        message: `namespace ${intent.namespace} is being terminated`,
        field: "metadata.namespace"
      }
    ))
  }

  /** A definition that is going away takes no new objects. */
  const admitDefinition = (intent: Intent): Outcome<void> => {
    if (!intent.type.custom) return Result.succeed(undefined)
    const definition = store.get({ resource: Crds.crdKey, namespace: "", name: intent.type.key })
    return definition !== undefined && !definition.deleting
      ? Result.succeed(undefined)
      : Result.fail(
        new ApiStatus.ApiStatus({
          code: 405,
          reason: "MethodNotAllowed",
          text: "create not allowed while custom resource definition is terminating"
        })
      )
  }

  /** Defaults, checks and stores a new object. `own` gives it its ownership entries. */
  const insert = (
    intent: Intent,
    object: JsonObject,
    own: (object: JsonObject) => Outcome<JsonObject>
  ): Outcome<Answer> =>
    Result.gen(function*() {
      const { type } = intent
      const strategy = strategyOf(type.key, type.custom)
      const name = Metadata.nameOf(object)
      yield* admitNamespace(intent, name)
      yield* admitDefinition(intent)
      if (store.get(keyOf(intent, name)) !== undefined) return yield* Result.fail(ApiStatus.alreadyExists(type, name))
      const withoutStatus = type.status && type.key !== "nodes" ? Json.omit(object, "status") : object
      const fresh = Transitions.freshMetadata(intent, strategy, withoutStatus)
      const time = Metadata.timestamp(intent.nowMillis)
      const complete = strategy.normalize(Admission.withDefaults(type, fresh), undefined, time)
      yield* Admission.check(type, strategy, complete, undefined)
      const owned = yield* own(complete)
      return answer(intent, 201, save(type, owned).body)
    })

  const create: ResourcesShape["create"] = (intent, body, requestedName) =>
    atomically(intent, () =>
      Result.gen(function*() {
        const { type } = intent
        const object = yield* Admission.decode(type, body, intent.fieldValidation, intent.warn)
        const namespace = Metadata.namespaceOf(object)
        if (type.namespaced && namespace !== "" && namespace !== intent.namespace) {
          return yield* Result.fail(ApiStatus.badRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
          ))
        }
        const version = Json.stringAt(object, "metadata", "resourceVersion") ?? ""
        if (version !== "" && version !== "0") {
          return yield* Result.fail(ApiStatus.badRequest("resourceVersion should not be set on objects to be created"))
        }
        const base = Json.stringAt(object, "metadata", "generateName") ?? ""
        const given = requestedName ?? Metadata.nameOf(object)
        let name = given
        if (given === "" && base !== "") {
          name = generated(base)
          for (let attempt = 1; attempt < generateAttempts && store.get(keyOf(intent, name)) !== undefined; attempt++) {
            name = generated(base)
          }
        }
        const named = Metadata.withMetadata(object, { name: name === "" ? undefined : name, managedFields: undefined })
        return yield* insert(
          intent,
          named,
          (complete) => Result.succeed(Apply.trackUpdate(type.schema, undefined, complete, writer(intent, "Update")))
        )
      }))

  /** Checks and stores the next state of an object, if it differs from the stored one. */
  const replace = (
    intent: Intent,
    previous: JsonObject,
    stored: Stored,
    wanted: JsonObject,
    own: (object: JsonObject) => JsonObject
  ): Outcome<Answer> =>
    Result.gen(function*() {
      const { type } = intent
      const strategy = strategyOf(type.key, type.custom)
      const allowed = Transitions.restricted(intent, wanted, previous)
      const time = Metadata.timestamp(intent.nowMillis)
      const complete = strategy.normalize(Admission.withDefaults(type, allowed), previous, time)
      yield* Admission.check(type, strategy, complete, previous)
      if (Metadata.isDeleting(previous)) {
        const before = Metadata.finalizersOf(previous)
        const added = Metadata.finalizersOf(complete).filter((finalizer) => !before.includes(finalizer))
        if (added.length > 0) {
          return yield* Result.fail(ApiStatus.invalid(type, Metadata.nameOf(previous), [
            ApiStatus.forbiddenField(
              "metadata.finalizers",
              `no new finalizers can be added if the object is being deleted, found new finalizers ${
                JSON.stringify(added)
              }`
            )
          ]))
        }
      }
      const grown =
        strategy.generation && !Json.equal(Transitions.specOf(type, complete), Transitions.specOf(type, previous))
          ? Metadata.withMetadata(complete, {
            generation: (Json.numberAt(previous, "metadata", "generation") ?? 0) + 1
          })
          : complete
      const owned = own(grown)
      if (Json.equal(Apply.withoutTimes(owned), Apply.withoutTimes(previous))) return answer(intent, 200, stored.body)
      if (Transitions.isReleased(intent, owned)) return answer(intent, 200, erase(type, owned)?.body ?? stored.body)
      return answer(intent, 200, save(type, owned).body)
    })

  const update: ResourcesShape["update"] = (intent, name, body) =>
    atomically(intent, () =>
      Result.gen(function*() {
        const { type } = intent
        if (intent.subresource === "scale") {
          const { object: previous, stored } = yield* find(intent, name)
          if (!Json.isObject(body)) return yield* Result.fail(ApiStatus.badRequest("the body is not a Scale"))
          yield* Transitions.checkVersions(intent, name, body, previous)
          const wanted = yield* Scale.intoObject(type, previous, body)
          return yield* replace(
            { ...intent, subresource: "" },
            previous,
            stored,
            wanted,
            (next) => Apply.trackUpdate(type.schema, previous, next, writer(intent, "Update"))
          ).pipe(Result.map(() => answer(intent, 200, store.get(keyOf(intent, name))?.body ?? stored.body)))
        }
        const object = yield* Admission.decode(type, body, intent.fieldValidation, intent.warn)
        const given = Metadata.nameOf(object)
        if (given !== "" && given !== name) {
          return yield* Result.fail(ApiStatus.badRequest(
            `the name of the object (${given}) does not match the name on the URL (${name})`
          ))
        }
        const namespace = Metadata.namespaceOf(object)
        if (type.namespaced && namespace !== "" && namespace !== intent.namespace) {
          return yield* Result.fail(ApiStatus.badRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
          ))
        }
        const { object: previous, stored } = yield* find(intent, name)
        yield* Transitions.checkVersions(intent, name, object, previous)
        if (
          type.custom && intent.subresource === "" &&
          (Json.stringAt(object, "metadata", "resourceVersion") ?? "") === ""
        ) {
          return yield* Result.fail(ApiStatus.invalid(type, name, [
            ApiStatus.invalidValue("metadata.resourceVersion", 0, "must be specified for an update")
          ]))
        }
        const fields = Json.at(object, "metadata", "managedFields")
        // Sent empty, they are given up; not sent, they stay as they are.
        const emptied = Json.isArray(fields) && fields.every((entry) => Json.equal(entry, {}))
        const wanted = fields !== undefined && !emptied ? object : Metadata.withMetadata(object, {
          managedFields: emptied ? undefined : Json.at(previous, "metadata", "managedFields")
        })
        return yield* replace(
          intent,
          previous,
          stored,
          wanted,
          (next) => Apply.trackUpdate(type.schema, previous, next, writer(intent, "Update"))
        )
      }))

  const applied = (intent: Intent, name: string, body: Json.Json, force: boolean): Outcome<Answer> =>
    Result.gen(function*() {
      const { type } = intent
      if (Json.stringAt(body, "apiVersion") === undefined || Json.stringAt(body, "kind") === undefined) {
        return yield* Result.fail(ApiStatus.badRequest("apiVersion and kind must be set in an apply request"))
      }
      const object = yield* Admission.decode(type, body, intent.fieldValidation, intent.warn)
      const given = Metadata.nameOf(object)
      if (given !== "" && given !== name) {
        return yield* Result.fail(ApiStatus.badRequest(
          `the name of the object (${given}) does not match the name on the URL (${name})`
        ))
      }
      if (Json.arrayAt(object, "metadata", "managedFields").length > 0) {
        return yield* Result.fail(ApiStatus.badRequest("metadata.managedFields must be nil"))
      }
      const named = Metadata.withMetadata(object, {
        name,
        namespace: type.namespaced ? intent.namespace : undefined,
        managedFields: undefined
      })
      const by = writer(intent, "Apply")
      const stored = store.get(keyOf(intent, name))
      const spoken = intent.subresource === "status"
        ? Json.omit(named, "spec")
        : type.status
        ? Json.omit(named, "status")
        : named
      if (stored === undefined) {
        if (intent.subresource !== "") return yield* Result.fail(ApiStatus.notFound(type, name))
        if (Metadata.uidOf(named) !== "") {
          return yield* Result.fail(ApiStatus.conflict(type, name, "uid mismatch: the object does not exist"))
        }
        return yield* insert(
          intent,
          named,
          (complete) =>
            Apply.apply(type.schema, undefined, spoken, by, force).pipe(
              Result.map((owned) =>
                Metadata.withMetadata(complete, { managedFields: Json.at(owned, "metadata", "managedFields") })
              )
            )
        )
      }
      const previous = decoded(type, stored)
      yield* Transitions.checkVersions(intent, name, named, previous)
      const config = Metadata.withMetadata(spoken, { resourceVersion: undefined, uid: undefined })
      const merged = yield* Apply.apply(type.schema, previous, config, by, force)
      const fields = Json.at(merged, "metadata", "managedFields")
      return yield* replace(
        intent,
        previous,
        stored,
        merged,
        (next) => Metadata.withMetadata(next, { managedFields: fields })
      )
    })

  const patch: ResourcesShape["patch"] = (intent, name, kind, body, force) =>
    atomically(intent, () =>
      Result.gen(function*() {
        const { type } = intent
        if (kind === "Apply") return yield* applied(intent, name, body, force)
        const { object: previous, stored } = yield* find(intent, name)
        const outcome = yield* Transitions.patched(intent, previous, kind, body)
        if (intent.subresource === "scale") {
          if (!Json.isObject(outcome)) return yield* Result.fail(ApiStatus.badRequest("the patch leaves no Scale"))
          const wanted = yield* Scale.intoObject(type, previous, outcome)
          return yield* replace(
            { ...intent, subresource: "" },
            previous,
            stored,
            wanted,
            (next) => Apply.trackUpdate(type.schema, previous, next, writer(intent, "Update"))
          ).pipe(Result.map(() => answer(intent, 200, store.get(keyOf(intent, name))?.body ?? stored.body)))
        }
        const object = yield* Admission.decode(type, outcome, intent.fieldValidation, intent.warn)
        const immutable = Metadata.validateImmutable(object, previous)
        if (immutable.length > 0) return yield* Result.fail(ApiStatus.invalid(type, name, immutable))
        yield* Transitions.checkVersions(intent, name, object, previous)
        return yield* replace(
          intent,
          previous,
          stored,
          object,
          (next) => Apply.trackUpdate(type.schema, previous, next, writer(intent, "Update"))
        )
      }))

  const removeOne = (intent: Intent, name: string, options: DeleteOptions): Outcome<Answer> =>
    Result.gen(function*() {
      const { type } = intent
      const { object, stored } = yield* find(intent, name)
      yield* Transitions.checkPreconditions(intent, name, object, options)
      if (type.key === "namespaces" && protectedNamespaces.includes(name)) {
        return yield* Result.fail(ApiStatus.forbidden(type, name, "this namespace may not be deleted"))
      }
      const next = Transitions.marked(intent, object, options)
      if (Transitions.isReleased(intent, next)) {
        const last = erase(type, object)
        const gone = strategyOf(type.key, type.custom).returnsDeleted
          ? Conversion.serve(type, last?.body ?? stored.body)
          : JSON.stringify(ApiStatus.success(type, name, Metadata.uidOf(object)))
        return { code: 200, body: gone }
      }
      if (Json.equal(next, object)) return answer(intent, 200, stored.body)
      return answer(intent, 200, save(type, next).body)
    })

  const get: ResourcesShape["get"] = (intent, name) =>
    find(intent, name).pipe(Result.map(({ stored }) => answer(intent, 200, stored.body)))

  const removeAll: ResourcesShape["removeAll"] = (intent, selected, options) => {
    const namespace = intent.namespace === "" ? undefined : intent.namespace
    const targets = store.list({ resource: intent.type.key, namespace, limit: unlimited })
      .filter((stored) => selected(decoded(intent.type, stored)))
    return atomically(intent, () =>
      Result.gen(function*() {
        for (const { name, namespace: home } of targets) yield* removeOne({ ...intent, namespace: home }, name, options)
        return targets.map(({ body }) => Conversion.serve(intent.type, body))
      }))
  }

  return {
    get,
    create,
    update,
    patch,
    remove: (intent, name, options) => atomically(intent, () => removeOne(intent, name, options)),
    removeAll
  }
}
