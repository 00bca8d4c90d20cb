/**
 * What a request may make of an object: its fresh metadata, the parts that a door lets through, patches, versions and
 * preconditions, and the marks of a deletion. Pure.
 */
import * as Result from "effect/Result"
import { randomUUID } from "node:crypto"
import * as ApiStatus from "./ApiStatus.ts"
import * as Crds from "./Crds.ts"
import type { DeleteOptions, Intent, Outcome, PatchKind } from "./Intent.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Metadata from "./Metadata.ts"
import { jsonPatch } from "./Patch/JsonPatch.ts"
import { mergePatch } from "./Patch/MergePatch.ts"
import { strategicMergePatch } from "./Patch/StrategicMergePatch.ts"
import type { ResourceType } from "./ResourceType.ts"
import * as Scale from "./Scale.ts"
import { type Strategy, strategyOf } from "./Strategies.ts"

/** Finalizers that the collector serves. */
export const foregroundFinalizer = "foregroundDeletion"
export const orphanFinalizer = "orphan"

export const freshMetadata = (intent: Intent, strategy: Strategy, object: JsonObject): JsonObject =>
  Metadata.withMetadata(object, {
    uid: randomUUID(),
    creationTimestamp: Metadata.timestamp(intent.nowMillis),
    namespace: intent.type.namespaced ? intent.namespace : undefined,
    generation: strategy.generation ? 1 : undefined,
    resourceVersion: undefined,
    deletionTimestamp: undefined,
    deletionGracePeriodSeconds: undefined,
    selfLink: undefined
  })

export const specOf = (type: ResourceType, object: JsonObject): Json.Json => {
  const { apiVersion: _apiVersion, kind: _kind, metadata: _metadata, ...rest } = object
  return type.custom && !type.status ? rest : Json.omit(rest, "status")
}

/** What a request through this door may change of the object: the rest stays as it is stored. */
export const restricted = (intent: Intent, object: JsonObject, previous: JsonObject): JsonObject => {
  const kept: Record<string, Json.Json | undefined> = {
    name: Metadata.nameOf(previous),
    namespace: Json.at(previous, "metadata", "namespace"),
    generateName: Json.at(previous, "metadata", "generateName"),
    uid: Json.at(previous, "metadata", "uid"),
    creationTimestamp: Json.at(previous, "metadata", "creationTimestamp"),
    generation: Json.at(previous, "metadata", "generation"),
    deletionTimestamp: Json.at(previous, "metadata", "deletionTimestamp"),
    deletionGracePeriodSeconds: Json.at(previous, "metadata", "deletionGracePeriodSeconds"),
    resourceVersion: Json.at(previous, "metadata", "resourceVersion"),
    selfLink: undefined
  }
  if (intent.subresource === "status") {
    const status = Json.own(object, "status")
    const base = Json.omit(previous, "status")
    return Metadata.withMetadata(status === undefined ? base : { ...base, status }, {
      managedFields: Json.at(object, "metadata", "managedFields")
    })
  }
  if (intent.subresource === "finalize") {
    return Json.withAt(previous, ["spec", "finalizers"], Json.at(object, "spec", "finalizers"))
  }
  const changed = Metadata.withMetadata(object, kept)
  if (!intent.type.status) return changed
  const status = Json.own(previous, "status")
  return status === undefined ? Json.omit(changed, "status") : { ...changed, status }
}

export const checkVersions = (
  intent: Intent,
  name: string,
  object: JsonObject,
  previous: JsonObject
): Outcome<void> => {
  const uid = Metadata.uidOf(object)
  if (uid !== "" && uid !== Metadata.uidOf(previous)) {
    return Result.fail(ApiStatus.conflict(
      intent.type,
      name,
      `Precondition failed: UID in precondition: ${uid}, UID in object meta: ${Metadata.uidOf(previous)}`
    ))
  }
  const version = Json.stringAt(object, "metadata", "resourceVersion") ?? ""
  return version === "" || version === Json.stringAt(previous, "metadata", "resourceVersion")
    ? Result.succeed(undefined)
    : Result.fail(ApiStatus.staleObject(intent.type, name))
}

/** Nothing holds a deleted object any more. */
export const isReleased = (intent: Intent, object: JsonObject): boolean =>
  Metadata.isDeleting(object) && Metadata.finalizersOf(object).length === 0 &&
  (Json.numberAt(object, "metadata", "deletionGracePeriodSeconds") ?? 0) === 0 &&
  (intent.type.key !== "namespaces" || Json.arrayAt(object, "spec", "finalizers").length === 0)

export const patched = (
  intent: Intent,
  previous: JsonObject,
  kind: PatchKind,
  patch: Json.Json
): Outcome<Json.Json> => {
  const base = intent.subresource === "scale" ? Scale.fromObject(intent.type, previous) : previous
  switch (kind) {
    case "Merge":
      return Json.isObject(patch)
        ? Result.succeed(mergePatch(base, patch))
        : Result.fail(ApiStatus.badRequest("the merge patch is not an object"))
    case "StrategicMerge":
      return Json.isObject(patch)
        ? Result.succeed(strategicMergePatch(intent.type.schema, base, patch))
        : Result.fail(ApiStatus.badRequest("the strategic merge patch is not an object"))
    default:
      if (!Json.isArray(patch)) return Result.fail(ApiStatus.badRequest("the JSON patch is not a list of operations"))
      return jsonPatch(base, patch).pipe(
        Result.mapError((problem) =>
          new ApiStatus.ApiStatus({
            code: 422,
            reason: "Invalid",
            text: `the server rejected our request due to an error in our request: ${problem}`
          })
        )
      )
  }
}

export const checkPreconditions = (
  intent: Intent,
  name: string,
  object: JsonObject,
  options: DeleteOptions
): Outcome<void> => {
  const uid = Metadata.uidOf(object)
  if (options.uid !== undefined && options.uid !== uid) {
    return Result.fail(ApiStatus.conflict(
      intent.type,
      name,
      `Precondition failed: UID in precondition: ${options.uid}, UID in object meta: ${uid}`
    ))
  }
  const version = Json.stringAt(object, "metadata", "resourceVersion")
  return options.resourceVersion === undefined || options.resourceVersion === version
    ? Result.succeed(undefined)
    : Result.fail(ApiStatus.conflict(
      intent.type,
      name,
      `Precondition failed: ResourceVersion in precondition: ${options.resourceVersion}, ResourceVersion in object ` +
        `meta: ${version}`
    ))
}

/** The object as a request to delete leaves it, if something holds it: finalizers, a grace period, a namespace's content. */
export const marked = (intent: Intent, object: JsonObject, options: DeleteOptions): JsonObject => {
  const { type } = intent
  const grace = strategyOf(type.key, type.custom).gracePeriodSeconds(object, options.gracePeriodSeconds)
  const finalizers = Metadata.finalizersOf(object)
    .filter((finalizer) =>
      options.propagation === undefined || (finalizer !== foregroundFinalizer && finalizer !== orphanFinalizer)
    )
  const added = options.propagation === "Foreground"
    ? [foregroundFinalizer]
    : options.propagation === "Orphan"
    ? [orphanFinalizer]
    : []
  const next = [...finalizers, ...added]
  const seconds = grace ?? 0
  const deadline = Metadata.timestamp(intent.nowMillis + seconds * 1000)
  const before = Json.stringAt(object, "metadata", "deletionTimestamp")
  const generation = Json.numberAt(object, "metadata", "generation")
  const stamped = Metadata.withMetadata(object, {
    finalizers: next.length === 0 ? undefined : next,
    ...(before === undefined
      ? {
        deletionTimestamp: deadline,
        deletionGracePeriodSeconds: seconds,
        ...(generation === undefined ? {} : { generation: generation + 1 })
      }
      : seconds < (Json.numberAt(object, "metadata", "deletionGracePeriodSeconds") ?? 0)
      ? { deletionTimestamp: deadline < before ? deadline : before, deletionGracePeriodSeconds: seconds }
      : {})
  })
  if (type.key === "namespaces") return Json.withAt(stamped, ["status", "phase"], "Terminating")
  if (type.key !== Crds.crdKey) return stamped
  const conditions = Json.arrayAt(stamped, "status", "conditions")
  if (conditions.some((condition) => Json.stringAt(condition, "type") === "Terminating")) return stamped
  return Json.withAt(stamped, ["status", "conditions"], [...conditions, {
    type: "Terminating",
    status: "True",
    lastTransitionTime: Metadata.timestamp(intent.nowMillis),
    reason: "InstanceDeletionInProgress",
    message: "CustomResource deletion is in progress"
  }])
}
