/**
 * From a request's body to an object that may be stored: unknown fields dropped (and told), defaults filled in, schema,
 * rules and metadata checked. Pure.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import type { FieldError } from "./ApiStatus.ts"
import * as Cel from "./Cel.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Metadata from "./Metadata.ts"
import { apiVersionOf, type ResourceType } from "./ResourceType.ts"
import * as Structural from "./Schema/Structural.ts"
import type { Strategy } from "./Strategies.ts"

/** How unknown fields are met: refused, told in a warning, or silently dropped. */
export type FieldValidation = "Strict" | "Warn" | "Ignore"

/** Warnings that one answer carries at most. */
const warningLimit = 20

/** Null means absent in kinds that are decoded into structs, and in metadata. Quantities become strings. */
const normal = (schema: Structural.StructuralSchema, value: Json.Json): Json.Json => {
  if (schema.quantity && typeof value === "number") return String(value)
  if (Json.isArray(value)) {
    const items = schema.items
    return items === undefined ? value : value.map((entry) => normal(items, entry))
  }
  if (!Json.isObject(value) || schema.preserveUnknown) return value
  const next: Record<string, Json.Json> = {}
  for (const [key, entry] of Object.entries(value)) {
    if (entry === null) continue
    const schemaOfKey = Structural.propertyOf(schema, key)
    next[key] = schemaOfKey === undefined ? entry : normal(schemaOfKey, entry)
  }
  return next
}

/** Null fields that may not be null, with no default to take their place, are dropped. */
const withoutNulls = (schema: Structural.StructuralSchema, value: Json.Json): Json.Json => {
  if (Json.isArray(value)) {
    const items = schema.items
    return items === undefined ? value : value.map((entry) => withoutNulls(items, entry))
  }
  if (!Json.isObject(value)) return value
  const next: Record<string, Json.Json> = {}
  for (const [key, entry] of Object.entries(value)) {
    const schemaOfKey = Structural.propertyOf(schema, key)
    if (
      entry === null && schemaOfKey !== undefined && !schemaOfKey.nullable && schemaOfKey.defaultValue !== undefined
    ) continue
    next[key] = schemaOfKey === undefined ? entry : withoutNulls(schemaOfKey, entry)
  }
  return next
}

/** Checks what the body calls itself, and drops unknown fields as the validation mode says. */
export const decode = (
  type: ResourceType,
  body: Json.Json,
  validation: FieldValidation,
  warn: (text: string) => void
): Result.Result<JsonObject, ApiStatus.ApiStatus> => {
  if (!Json.isObject(body)) {
    return Result.fail(ApiStatus.badRequest("couldn't get version/kind; json parse error: the body is not an object"))
  }
  const apiVersion = Json.stringAt(body, "apiVersion") ?? ""
  const kind = Json.stringAt(body, "kind") ?? ""
  const expected = apiVersionOf(type)
  if ((apiVersion === "" || kind === "") && type.custom) {
    return Result.fail(ApiStatus.badRequest(
      `Object '${kind === "" ? "Kind" : "apiVersion"}' is missing in '${JSON.stringify(body).slice(0, 200)}'`
    ))
  }
  if (apiVersion !== "" && apiVersion !== expected) {
    return Result.fail(ApiStatus.badRequest(
      `the API version in the data (${apiVersion}) does not match the expected API version (${expected})`
    ))
  }
  if (kind !== "" && kind !== type.kind) {
    return Result.fail(ApiStatus.badRequest(
      `${kind} in version ${
        JSON.stringify(type.version)
      } cannot be handled as a ${type.kind}: converting (${kind}) to ` +
        `(${type.kind}): unknown conversion`
    ))
  }
  const metadata = Structural.propertyOf(type.schema, "metadata") ?? Structural.anything
  const clean = type.custom
    ? { ...body, metadata: normal(metadata, Json.objectAt(body, "metadata")) }
    : normal(type.schema, body)
  const unknown: Array<string> = []
  const pruned = Structural.prune(type.schema, clean, "", (path) => unknown.push(path))
  if (unknown.length > 0 && validation !== "Ignore") {
    const problems = unknown.map((path) => `unknown field ${JSON.stringify(path)}`)
    if (validation === "Strict") {
      return Result.fail(ApiStatus.badRequest(
        `${type.kind} in version ${
          JSON.stringify(type.version)
        } cannot be handled as a ${type.kind}: strict decoding ` +
          `error: ${problems.join(", ")}`
      ))
    }
    for (const problem of problems.slice(0, warningLimit)) warn(problem)
  }
  const object = Json.isObject(pruned) ? pruned : {}
  return Result.succeed({ ...object, apiVersion: expected, kind: type.kind })
}

/** Fills in the defaults of the schema. */
export const withDefaults = (type: ResourceType, object: JsonObject): JsonObject => {
  const filled = Structural.applyDefaults(type.schema, type.custom ? withoutNulls(type.schema, object) : object)
  return Json.isObject(filled) ? filled : object
}

/** Values of the wrong type fail to decode in kinds that are structs; the answer is then 400, not 422. */
const decodingError = (type: ResourceType, errors: ReadonlyArray<FieldError>): ApiStatus.ApiStatus | undefined => {
  const wrong = errors.find((error) => error.reason === "FieldValueTypeInvalid")
  if (type.custom || wrong === undefined) return undefined
  const [, actual = "value", wanted = "value"] =
    /Invalid value: "(\w+)": .* must be of type ([\w,]+)/.exec(wrong.message) ?? []
  return ApiStatus.badRequest(
    `${type.kind} in version ${
      JSON.stringify(type.version)
    } cannot be handled as a ${type.kind}: json: cannot unmarshal ` +
      `${actual === "integer" ? "number" : actual} into Go struct field ${type.kind}.${wrong.field} of type ${wanted}`
  )
}

/** Everything that stands against storing the object. */
export const check = (
  type: ResourceType,
  strategy: Strategy,
  object: JsonObject,
  previous: JsonObject | undefined
): Result.Result<void, ApiStatus.ApiStatus> => {
  const structural = Structural.validate(type.schema, object, "", previous)
  const decoding = decodingError(type, structural)
  if (decoding !== undefined) return Result.fail(decoding)
  const errors = [
    ...Metadata.validateMetadata(object, strategy.nameProblems),
    ...(previous === undefined ? [] : Metadata.validateImmutable(object, previous)),
    ...structural,
    ...strategy.validate(object, previous)
  ]
  // Rules assume values of the right shape; on a broken object they would only repeat the complaint.
  const ruleErrors = structural.length > 0 ? [] : Cel.validateRules(type.schema, object, previous, "")
  const unique = new Map([...errors, ...ruleErrors].map((error) => [`${error.field}: ${error.message}`, error]))
  return unique.size === 0
    ? Result.succeed(undefined)
    : Result.fail(ApiStatus.invalid(type, Metadata.nameOf(object), [...unique.values()]))
}
