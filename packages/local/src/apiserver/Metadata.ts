/**
 * What every object has: `metadata`, read from JSON, checked as upstream checks it, and written by the server's own hand.
 */
import * as ApiStatus from "./ApiStatus.ts"
import type { FieldError } from "./ApiStatus.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Names from "./Names.ts"

/** Annotations of one object, keys and values together, in bytes. */
const annotationsLimit = 256 * 1024

export const nameOf = (object: JsonObject): string => Json.stringAt(object, "metadata", "name") ?? ""
export const namespaceOf = (object: JsonObject): string => Json.stringAt(object, "metadata", "namespace") ?? ""
export const uidOf = (object: JsonObject): string => Json.stringAt(object, "metadata", "uid") ?? ""
export const finalizersOf = (object: JsonObject): ReadonlyArray<string> =>
  Json.arrayAt(object, "metadata", "finalizers").filter((value) => typeof value === "string")
export const isDeleting = (object: JsonObject): boolean =>
  Json.stringAt(object, "metadata", "deletionTimestamp") !== undefined

/** The uids of an object's owners. */
export const ownersOf = (object: JsonObject): ReadonlyArray<string> =>
  Json.arrayAt(object, "metadata", "ownerReferences").flatMap((owner) => Json.stringAt(owner, "uid") ?? [])

/** The object with some fields of its metadata replaced; `undefined` removes. */
export const withMetadata = (
  object: JsonObject,
  changes: { readonly [key: string]: Json.Json | undefined }
): JsonObject => {
  const metadata: Record<string, Json.Json> = { ...Json.objectAt(object, "metadata") }
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) delete metadata[key]
    else metadata[key] = value
  }
  return { ...object, metadata }
}

/** The encoded object: identity first, as people expect to read it, with its resourceVersion. */
export const encode = (object: JsonObject, apiVersion: string, kind: string, revision: number): string => {
  const { apiVersion: _apiVersion, kind: _kind, metadata, ...rest } = object
  return JSON.stringify({
    apiVersion,
    kind,
    metadata: { ...(Json.isObject(metadata) ? metadata : {}), resourceVersion: String(revision) },
    ...rest
  })
}

/** A timestamp as metadata carries it: RFC 3339, whole seconds. */
export const timestamp = (millis: number): string => `${new Date(millis).toISOString().slice(0, 19)}Z`

/** Checks names, labels, annotations, finalizers and owners. `nameProblems` is the kind's own grammar of names. */
export const validateMetadata = (
  object: JsonObject,
  nameProblems: (name: string) => ReadonlyArray<string>
): ReadonlyArray<FieldError> => {
  const errors: Array<FieldError> = []
  const name = nameOf(object)
  const generateName = Json.stringAt(object, "metadata", "generateName") ?? ""
  if (name === "") errors.push(ApiStatus.required("metadata.name", "name or generateName is required"))
  else for (const problem of nameProblems(name)) errors.push(ApiStatus.invalidValue("metadata.name", name, problem))
  if (generateName !== "") {
    for (const problem of nameProblems(`${generateName.replace(/-+$/, "")}a`)) {
      errors.push(ApiStatus.invalidValue("metadata.generateName", generateName, problem))
    }
  }
  for (const [key, value] of Object.entries(Json.objectAt(object, "metadata", "labels"))) {
    for (const problem of Names.qualifiedNameProblems(key)) {
      errors.push(ApiStatus.invalidValue("metadata.labels", key, problem))
    }
    if (typeof value === "string") {
      for (const problem of Names.labelValueProblems(value)) {
        errors.push(ApiStatus.invalidValue("metadata.labels", value, problem))
      }
    }
  }
  let annotationBytes = 0
  for (const [key, value] of Object.entries(Json.objectAt(object, "metadata", "annotations"))) {
    for (const problem of Names.qualifiedNameProblems(key.toLowerCase())) {
      errors.push(ApiStatus.invalidValue("metadata.annotations", key, problem))
    }
    annotationBytes += key.length + (typeof value === "string" ? Buffer.byteLength(value) : 0)
  }
  if (annotationBytes > annotationsLimit) errors.push(ApiStatus.tooLong("metadata.annotations", annotationsLimit))
  finalizersOf(object).forEach((finalizer, index) => {
    for (const problem of Names.qualifiedNameProblems(finalizer)) {
      errors.push(ApiStatus.invalidValue(Json.item("metadata.finalizers", index), finalizer, problem))
    }
  })
  let controllers = 0
  Json.arrayAt(object, "metadata", "ownerReferences").forEach((owner, index) => {
    const path = Json.item("metadata.ownerReferences", index)
    for (const field of ["apiVersion", "kind", "name", "uid"]) {
      const value = Json.stringAt(owner, field) ?? ""
      if (value === "") {
        errors.push(ApiStatus.invalidValue(Json.child(path, field), value, `${field} must not be empty`))
      }
    }
    if (Json.at(owner, "controller") === true) controllers += 1
  })
  if (controllers > 1) {
    errors.push(ApiStatus.invalidValue(
      "metadata.ownerReferences",
      "array",
      "Only one reference can have Controller set to true. Found more than one."
    ))
  }
  return errors
}

/** Fields of metadata that an update may name only as they are. */
export const validateImmutable = (object: JsonObject, previous: JsonObject): ReadonlyArray<FieldError> =>
  ["name", "namespace", "uid", "creationTimestamp"].flatMap((field) => {
    const value = Json.at(object, "metadata", field)
    return value === undefined || value === null || value === "" ||
        Json.equal(value, Json.at(previous, "metadata", field))
      ? []
      : [ApiStatus.invalidValue(`metadata.${field}`, value, "field is immutable")]
  })
