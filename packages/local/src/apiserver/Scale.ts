/**
 * The scale subresource: the `autoscaling/v1` Scale of an object, read from and written to the paths that its definition
 * names.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Metadata from "./Metadata.ts"
import type { ResourceType } from "./ResourceType.ts"

/** The Scale of an object. */
export const fromObject = (type: ResourceType, object: JsonObject): JsonObject => {
  const metadata = Json.objectAt(object, "metadata")
  const selector = type.scale?.selector === undefined ? undefined : Json.stringAt(object, ...type.scale.selector)
  const kept = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"].flatMap((key) => {
    const value = Json.own(metadata, key)
    return value === undefined ? [] : [[key, value] as const]
  })
  return {
    kind: "Scale",
    apiVersion: "autoscaling/v1",
    metadata: Object.fromEntries(kept),
    spec: { replicas: Json.numberAt(object, ...(type.scale?.spec ?? [])) ?? 0 },
    status: {
      replicas: Json.numberAt(object, ...(type.scale?.status ?? [])) ?? 0,
      ...(selector === undefined ? {} : { selector })
    }
  }
}

/** The object with the replicas of a Scale. */
export const intoObject = (
  type: ResourceType,
  object: JsonObject,
  scale: JsonObject
): Result.Result<JsonObject, ApiStatus.ApiStatus> => {
  const replicas = Json.at(scale, "spec", "replicas") ?? 0
  if (typeof replicas !== "number" || !Number.isInteger(replicas) || replicas < 0) {
    return Result.fail(
      ApiStatus.invalid({ group: "autoscaling", kind: "Scale", plural: "scales" }, Metadata.nameOf(object), [
        ApiStatus.invalidValue("spec.replicas", replicas, "must be greater than or equal to 0")
      ])
    )
  }
  return Result.succeed(Json.withAt(object, type.scale?.spec ?? [], replicas))
}
