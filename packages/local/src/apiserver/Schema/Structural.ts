/**
 * Structural schemas: what a CustomResourceDefinition or a built-in kind says about its objects, compiled once, and the
 * three passes that use it: pruning of unknown fields, defaulting, validation. All are pure.
 */
import * as ApiStatus from "../ApiStatus.ts"
import type { FieldError } from "../ApiStatus.ts"
import * as Json from "../Json.ts"
import type { JsonObject } from "../Json.ts"
import { formatProblem } from "./Formats.ts"

/** A rule of `x-kubernetes-validations`. */
export interface Rule {
  readonly rule: string
  readonly message: string | undefined
  readonly messageExpression: string | undefined
  readonly reason: string | undefined
  readonly fieldPath: string | undefined
  readonly optionalOldSelf: boolean
}

/** How a list merges: as one value, as a set of scalars, or as a map by the values of its keys. */
export type ListType = "atomic" | "set" | "map"

/** A compiled schema. */
export interface StructuralSchema {
  readonly type: string
  readonly description: string
  readonly nullable: boolean
  readonly intOrString: boolean
  readonly quantity: boolean
  readonly embedded: boolean
  readonly preserveUnknown: boolean
  readonly defaultValue: Json.Json | undefined
  readonly format: string | undefined
  readonly enumeration: ReadonlyArray<Json.Json> | undefined
  readonly minimum: number | undefined
  readonly maximum: number | undefined
  readonly exclusiveMinimum: boolean
  readonly exclusiveMaximum: boolean
  readonly multipleOf: number | undefined
  readonly minLength: number | undefined
  readonly maxLength: number | undefined
  readonly pattern: { readonly source: string; readonly expression: RegExp } | undefined
  readonly minItems: number | undefined
  readonly maxItems: number | undefined
  readonly minProperties: number | undefined
  readonly maxProperties: number | undefined
  readonly required: ReadonlyArray<string>
  readonly properties: ReadonlyMap<string, StructuralSchema>
  readonly additional: StructuralSchema | undefined
  readonly items: StructuralSchema | undefined
  readonly listType: ListType
  readonly listMapKeys: ReadonlyArray<string>
  readonly mapAtomic: boolean
  /** How strategic merge patch treats a list, which for built-in kinds is not always how apply does. */
  readonly patchMergeKey: string | undefined
  readonly patchMerges: boolean
  readonly rules: ReadonlyArray<Rule>
  readonly allOf: ReadonlyArray<StructuralSchema>
  readonly anyOf: ReadonlyArray<StructuralSchema>
  readonly oneOf: ReadonlyArray<StructuralSchema>
  readonly not: StructuralSchema | undefined
  /** Something below has a default, so the defaulting pass must descend. */
  readonly hasDefaults: boolean
  /** Something below has rules, so the rule pass must descend. */
  readonly hasRules: boolean
  /** The source, for OpenAPI documents. */
  readonly source: JsonObject
}

/** Turns a schema's JSON into its compiled form. `resolve` gives the targets of `$ref`, which only built-in kinds use. */
export const compile = (
  source: JsonObject,
  resolve: (reference: string) => StructuralSchema | undefined = () => undefined
): StructuralSchema => {
  const reference = Json.stringAt(source, "$ref")
  if (reference !== undefined) {
    const target = resolve(reference)
    if (target !== undefined) {
      const description = Json.stringAt(source, "description")
      return description === undefined ? target : { ...target, description }
    }
  }
  const nested = (value: Json.Json | undefined): StructuralSchema | undefined =>
    Json.isObject(value) ? compile(value, resolve) : undefined
  const list = (key: string): ReadonlyArray<StructuralSchema> =>
    Json.arrayAt(source, key).flatMap((value) => nested(value) ?? [])
  const properties = new Map(
    Object.entries(Json.objectAt(source, "properties")).flatMap(([key, value]) => {
      const schema = nested(value)
      return schema === undefined ? [] : [[key, schema] as const]
    })
  )
  const additional = nested(Json.own(source, "additionalProperties"))
  const items = nested(Json.own(source, "items"))
  const pattern = Json.stringAt(source, "pattern")
  const rules = Json.arrayAt(source, "x-kubernetes-validations").map((rule): Rule => ({
    rule: Json.stringAt(rule, "rule") ?? "",
    message: Json.stringAt(rule, "message"),
    messageExpression: Json.stringAt(rule, "messageExpression"),
    reason: Json.stringAt(rule, "reason"),
    fieldPath: Json.stringAt(rule, "fieldPath"),
    optionalOldSelf: Json.at(rule, "optionalOldSelf") === true
  }))
  const children = [
    ...properties.values(),
    ...(additional === undefined ? [] : [additional]),
    ...(items === undefined ? [] : [items])
  ]
  const defaultValue = Json.own(source, "default")
  const listType = Json.stringAt(source, "x-kubernetes-list-type")
  const strategy = Json.stringAt(source, "x-kubernetes-patch-strategy") ?? ""
  return {
    type: Json.stringAt(source, "type") ?? "",
    description: Json.stringAt(source, "description") ?? "",
    nullable: Json.own(source, "nullable") === true,
    intOrString: Json.own(source, "x-kubernetes-int-or-string") === true,
    quantity: Json.own(source, "x-fast-sandbox-quantity") === true,
    embedded: Json.own(source, "x-kubernetes-embedded-resource") === true,
    preserveUnknown: Json.own(source, "x-kubernetes-preserve-unknown-fields") === true ||
      Json.own(source, "additionalProperties") === true,
    defaultValue,
    format: Json.stringAt(source, "format"),
    enumeration: Json.isArray(Json.own(source, "enum")) ? Json.arrayAt(source, "enum") : undefined,
    minimum: Json.numberAt(source, "minimum"),
    maximum: Json.numberAt(source, "maximum"),
    exclusiveMinimum: Json.own(source, "exclusiveMinimum") === true,
    exclusiveMaximum: Json.own(source, "exclusiveMaximum") === true,
    multipleOf: Json.numberAt(source, "multipleOf"),
    minLength: Json.numberAt(source, "minLength"),
    maxLength: Json.numberAt(source, "maxLength"),
    pattern: pattern === undefined ? undefined : { source: pattern, expression: new RegExp(pattern) },
    minItems: Json.numberAt(source, "minItems"),
    maxItems: Json.numberAt(source, "maxItems"),
    minProperties: Json.numberAt(source, "minProperties"),
    maxProperties: Json.numberAt(source, "maxProperties"),
    required: Json.arrayAt(source, "required").filter((name) => typeof name === "string"),
    properties,
    additional,
    items,
    listType: listType === "set" || listType === "map" ? listType : "atomic",
    listMapKeys: Json.arrayAt(source, "x-kubernetes-list-map-keys").filter((name) => typeof name === "string"),
    mapAtomic: Json.stringAt(source, "x-kubernetes-map-type") === "atomic",
    patchMergeKey: Json.stringAt(source, "x-kubernetes-patch-merge-key"),
    patchMerges: strategy.split(",").includes("merge"),
    rules,
    allOf: list("allOf"),
    anyOf: list("anyOf"),
    oneOf: list("oneOf"),
    not: nested(Json.own(source, "not")),
    hasDefaults: defaultValue !== undefined || children.some((schema) => schema.hasDefaults),
    hasRules: rules.length > 0 || children.some((schema) => schema.hasRules),
    source
  }
}

/** A schema that accepts every value and keeps everything. */
export const anything: StructuralSchema = compile({ "x-kubernetes-preserve-unknown-fields": true })

/** Fields that every embedded resource may have. */
const embeddedFields = new Set(["apiVersion", "kind", "metadata"])

/** The schema of an object's field; `undefined` if the schema doesn't know it. */
export const propertyOf = (schema: StructuralSchema, key: string): StructuralSchema | undefined =>
  schema.properties.get(key) ?? schema.additional

/**
 * Drops the fields that the schema doesn't name. `unknown` is told the path of each. Values that have nothing to drop
 * are returned as they are.
 */
export const prune = (
  schema: StructuralSchema,
  value: Json.Json,
  path: string,
  unknown: (path: string) => void
): Json.Json => {
  if (Json.isArray(value)) {
    const items = schema.items
    if (items === undefined) return value
    let changed = false
    const next = value.map((entry, index) => {
      const pruned = prune(items, entry, Json.item(path, index), unknown)
      changed ||= pruned !== entry
      return pruned
    })
    return changed ? next : value
  }
  if (!Json.isObject(value)) return value
  let changed = false
  const next: Record<string, Json.Json> = {}
  for (const key of Object.keys(value)) {
    const entry = value[key]
    if (entry === undefined) continue
    const schemaOfKey = propertyOf(schema, key)
    if (schemaOfKey === undefined) {
      if (schema.preserveUnknown || (schema.embedded && embeddedFields.has(key))) next[key] = entry
      else {
        changed = true
        unknown(Json.child(path, key))
      }
      continue
    }
    const pruned = prune(schemaOfKey, entry, Json.child(path, key), unknown)
    changed ||= pruned !== entry
    next[key] = pruned
  }
  return changed ? next : value
}

/** Fills in defaults of absent fields, and of null fields that may not be null. */
export const applyDefaults = (schema: StructuralSchema, value: Json.Json): Json.Json => {
  if (!schema.hasDefaults) return value
  if (Json.isArray(value)) {
    const items = schema.items
    if (items === undefined || !items.hasDefaults) return value
    let changed = false
    const next = value.map((entry) => {
      const filled = applyDefaults(items, entry)
      changed ||= filled !== entry
      return filled
    })
    return changed ? next : value
  }
  if (!Json.isObject(value)) return value
  let next: Record<string, Json.Json> | undefined
  for (const [key, schemaOfKey] of schema.properties) {
    if (!schemaOfKey.hasDefaults) continue
    const entry = Json.own(value, key)
    const absent = entry === undefined || (entry === null && !schemaOfKey.nullable)
    if (absent && schemaOfKey.defaultValue === undefined) continue
    const filled = applyDefaults(schemaOfKey, absent ? schemaOfKey.defaultValue ?? null : entry)
    if (filled !== entry) (next ??= { ...value })[key] = filled
  }
  const additional = schema.additional
  if (additional?.hasDefaults === true) {
    for (const [key, entry] of Object.entries(value)) {
      if (schema.properties.has(key)) continue
      const filled = applyDefaults(additional, entry)
      if (filled !== entry) (next ??= { ...value })[key] = filled
    }
  }
  return next ?? value
}

const typeOf = (value: Json.Json): string => {
  if (value === null) return "null"
  if (Json.isArray(value)) return "array"
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number"
  return typeof value
}

const hasType = (schema: StructuralSchema, actual: string): boolean => {
  if (schema.intOrString) return actual === "integer" || actual === "string"
  if (schema.quantity) return actual === "integer" || actual === "number" || actual === "string"
  return schema.type === "" || schema.type === actual || (schema.type === "number" && actual === "integer")
}

/** The identity of an item of a list that merges by keys; absent keys count as their defaults. */
export const keyOf = (schema: StructuralSchema, entry: Json.Json): JsonObject => {
  const key: Record<string, Json.Json> = {}
  for (const name of schema.listMapKeys) {
    const value = Json.at(entry, name) ?? schema.items?.properties.get(name)?.defaultValue
    if (value !== undefined) key[name] = value
  }
  return key
}

/** Finds the old item that a new item of a map-list continues. */
export const correlated = (
  schema: StructuralSchema,
  entry: Json.Json,
  previous: Json.Json | undefined
): Json.Json | undefined => {
  if (schema.listType !== "map" || !Json.isArray(previous)) return undefined
  const key = keyOf(schema, entry)
  return previous.find((candidate) => Json.equal(keyOf(schema, candidate), key))
}

/**
 * Everything about the value that breaks the schema. What has not changed since `previous` is not held against it
 * (ratcheting), so a schema that grew stricter doesn't block unrelated updates.
 */
export const validate = (
  schema: StructuralSchema,
  value: Json.Json,
  path: string,
  previous?: Json.Json
): ReadonlyArray<FieldError> => {
  if (previous !== undefined && Json.equal(value, previous)) return []
  const errors: Array<FieldError> = []
  const actual = typeOf(value)
  if (value === null) {
    if (schema.nullable || schema.type === "") return errors
    return [ApiStatus.wrongType(path, "null", schema.type)]
  }
  if (!hasType(schema, actual)) {
    return [ApiStatus.wrongType(path, actual, schema.intOrString ? "integer,string" : schema.type)]
  }
  validateValue(schema, value, path, errors)
  if (Json.isArray(value)) {
    validateUniqueness(schema, value, path, errors)
    const items = schema.items
    if (items !== undefined) {
      value.forEach((entry, index) => {
        errors.push(...validate(items, entry, Json.item(path, index), correlated(schema, entry, previous)))
      })
    }
  } else if (Json.isObject(value)) {
    for (const [key, entry] of Object.entries(value)) {
      const schemaOfKey = propertyOf(schema, key)
      if (schemaOfKey === undefined) continue
      const at = schema.properties.has(key) ? Json.child(path, key) : Json.child(path, key)
      errors.push(...validate(schemaOfKey, entry, at, Json.isObject(previous) ? Json.own(previous, key) : undefined))
    }
  }
  for (const branch of schema.allOf) errors.push(...validate(branch, value, path))
  if (schema.anyOf.length > 0 && !schema.anyOf.some((branch) => validate(branch, value, path).length === 0)) {
    errors.push(ApiStatus.invalidValue(path, show(value), `${path} in body must validate at least one schema (anyOf)`))
  }
  if (schema.oneOf.length > 0) {
    const matches = schema.oneOf.filter((branch) => validate(branch, value, path).length === 0).length
    if (matches !== 1) {
      errors.push(ApiStatus.invalidValue(
        path,
        show(value),
        `${path} in body must validate one and only one schema (oneOf). Found ${
          matches === 0 ? "none" : String(matches)
        } valid`
      ))
    }
  }
  if (schema.not !== undefined && validate(schema.not, value, path).length === 0) {
    errors.push(ApiStatus.invalidValue(path, show(value), `${path} in body must not validate the schema (not)`))
  }
  return errors
}

/** Objects are named by their type in messages, as upstream does, so that a message stays short. */
const show = (value: Json.Json): Json.Json => Json.isObject(value) ? "object" : Json.isArray(value) ? "array" : value

const validateValue = (
  schema: StructuralSchema,
  value: Json.Json,
  path: string,
  errors: Array<FieldError>
): void => {
  const refuse = (problem: string) =>
    errors.push(ApiStatus.invalidValue(path, show(value), `${path} in body ${problem}`))
  if (schema.enumeration !== undefined && !schema.enumeration.some((option) => Json.equal(option, value))) {
    errors.push(ApiStatus.notSupported(path, value, schema.enumeration))
  }
  if (typeof value === "number") {
    if (schema.minimum !== undefined && (schema.exclusiveMinimum ? value <= schema.minimum : value < schema.minimum)) {
      refuse(`should be greater than ${schema.exclusiveMinimum ? "" : "or equal to "}${schema.minimum}`)
    }
    if (schema.maximum !== undefined && (schema.exclusiveMaximum ? value >= schema.maximum : value > schema.maximum)) {
      refuse(`should be less than ${schema.exclusiveMaximum ? "" : "or equal to "}${schema.maximum}`)
    }
    if (schema.multipleOf !== undefined && !Number.isInteger(value / schema.multipleOf)) {
      refuse(`should be a multiple of ${schema.multipleOf}`)
    }
  } else if (typeof value === "string") {
    const length = [...value].length
    if (schema.minLength !== undefined && length < schema.minLength) {
      refuse(`should be at least ${schema.minLength} chars long`)
    }
    if (schema.maxLength !== undefined && length > schema.maxLength) {
      errors.push(ApiStatus.tooLong(path, schema.maxLength))
    }
    if (schema.pattern !== undefined && !schema.pattern.expression.test(value)) {
      refuse(`should match '${schema.pattern.source}'`)
    }
    const problem = schema.format === undefined ? undefined : formatProblem(schema.format, value)
    if (problem !== undefined) refuse(`must be of type ${problem}: ${JSON.stringify(value)}`)
  } else if (Json.isArray(value)) {
    if (schema.minItems !== undefined && value.length < schema.minItems) {
      errors.push(
        ApiStatus.invalidValue(path, value.length, `${path} in body should have at least ${schema.minItems} items`)
      )
    }
    if (schema.maxItems !== undefined && value.length > schema.maxItems) {
      errors.push(ApiStatus.tooMany(path, value.length, schema.maxItems))
    }
  } else if (Json.isObject(value)) {
    const count = Object.keys(value).length
    if (schema.minProperties !== undefined && count < schema.minProperties) {
      refuse(`should have at least ${schema.minProperties} properties`)
    }
    if (schema.maxProperties !== undefined && count > schema.maxProperties) {
      errors.push(ApiStatus.tooMany(path, count, schema.maxProperties))
    }
    for (const name of schema.required) {
      if (!Object.hasOwn(value, name)) errors.push(ApiStatus.required(Json.child(path, name)))
    }
  }
}

const validateUniqueness = (
  schema: StructuralSchema,
  value: ReadonlyArray<Json.Json>,
  path: string,
  errors: Array<FieldError>
): void => {
  if (schema.listType === "atomic") return
  const seen = new Set<string>()
  value.forEach((entry, index) => {
    const identity = schema.listType === "set" ? entry : keyOf(schema, entry)
    const text = JSON.stringify(identity)
    if (seen.has(text)) errors.push(ApiStatus.duplicate(Json.item(path, index), identity))
    seen.add(text)
  })
}
