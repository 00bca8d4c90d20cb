/**
 * Sets of field paths, the currency of field ownership: read from and written as `FieldsV1`, computed from objects under
 * their schema, compared, merged and removed. A path is its `FieldsV1` segments (`f:name`, `k:{...}`, `v:...`) joined by
 * a character that no segment holds.
 */
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import { anything, keyOf, propertyOf, type StructuralSchema } from "./Schema/Structural.ts"

/** Paths of owned fields. */
export type FieldSet = ReadonlySet<string>

const separator = "\u0000"

const join = (path: string, segment: string): string => path === "" ? segment : `${path}${separator}${segment}`

/** The canonical text of an item's key: keys sorted, as upstream writes them. */
const itemSegment = (key: JsonObject): string =>
  `k:${JSON.stringify(Object.fromEntries(Object.entries(key).toSorted(([left], [right]) => left < right ? -1 : 1)))}`

const valueSegment = (value: Json.Json): string => `v:${JSON.stringify(value)}`

/** The segment of an item of a list that merges. */
const segmentOf = (schema: StructuralSchema, entry: Json.Json): string =>
  schema.listType === "set" ? valueSegment(entry) : itemSegment(keyOf(schema, entry))

const isAtomic = (schema: StructuralSchema, value: Json.Json): boolean =>
  Json.isArray(value) ? schema.listType === "atomic" : !Json.isObject(value) || schema.mapAtomic

/** Reads `fieldsV1`. */
export const fromFieldsV1 = (fields: JsonObject): FieldSet => {
  const found = new Set<string>()
  const visit = (node: JsonObject, path: string): void => {
    const keys = Object.keys(node)
    if (keys.length === 0 && path !== "") found.add(path)
    for (const key of keys) {
      if (key === ".") found.add(path)
      else visit(Json.objectAt(node, key), join(path, key))
    }
  }
  visit(fields, "")
  return found
}

/** Paths that are in either set. */
export const union = (left: FieldSet, right: FieldSet): FieldSet => new Set([...left, ...right])

/** Paths of the first set that are not in the second. */
export const minus = (fields: FieldSet, gone: FieldSet): FieldSet =>
  gone.size === 0 ? fields : new Set([...fields].filter((path) => !gone.has(path)))

/** Do both sets hold the same paths? */
export const same = (left: FieldSet, right: FieldSet): boolean =>
  left.size === right.size && [...left].every((path) => right.has(path))

interface Node {
  self: boolean
  readonly children: Map<string, Node>
}

/** Writes `fieldsV1`. */
export const toFieldsV1 = (set: FieldSet): JsonObject => {
  const root: Node = { self: false, children: new Map() }
  for (const path of set) {
    let node = root
    for (const segment of path.split(separator)) {
      let next = node.children.get(segment)
      if (next === undefined) {
        next = { self: false, children: new Map() }
        node.children.set(segment, next)
      }
      node = next
    }
    node.self = true
  }
  const write = (node: Node): JsonObject => {
    const entries = [...node.children].toSorted(([left], [right]) => left < right ? -1 : 1)
    return {
      ...(node.self && entries.length > 0 ? { ".": {} } : {}),
      ...Object.fromEntries(entries.map(([segment, inner]) => [segment, write(inner)]))
    }
  }
  return write(root)
}

/**
 * The fields that a value sets: its scalars, atomic and empty parts, and the items of merging lists. With `containers`,
 * free maps and merging lists count as well, as they do when an update creates them.
 */
export const fieldsOf = (
  schema: StructuralSchema,
  value: Json.Json,
  containers: "withContainers" | "leavesOnly",
  path = "",
  found = new Set<string>()
): Set<string> => {
  if (isAtomic(schema, value)) {
    found.add(path)
  } else if (Json.isArray(value)) {
    if (value.length === 0 || containers === "withContainers") found.add(path)
    for (const entry of value) {
      const at = join(path, segmentOf(schema, entry))
      found.add(at)
      if (Json.isObject(entry)) fieldsOf(schema.items ?? anything, entry, containers, at, found)
    }
  } else if (Json.isObject(value)) {
    const keys = Object.keys(value)
    if (path !== "" && (keys.length === 0 || (containers === "withContainers" && schema.properties.size === 0))) {
      found.add(path)
    }
    for (const key of keys) {
      const entry = value[key]
      if (entry === undefined) continue
      fieldsOf(propertyOf(schema, key) ?? anything, entry, containers, join(path, `f:${key}`), found)
    }
  }
  return found
}

/** What differs between two values: fields that are new or hold another value, and fields that are gone. */
export interface Difference {
  readonly changed: Set<string>
  readonly removed: Set<string>
}

/** Compares two values under their schema. */
export const difference = (
  schema: StructuralSchema,
  before: Json.Json | undefined,
  after: Json.Json | undefined,
  path = "",
  found: Difference = { changed: new Set(), removed: new Set() }
): Difference => {
  if (before === after) return found
  if (before === undefined) {
    if (after !== undefined) fieldsOf(schema, after, "withContainers", path, found.changed)
    return found
  }
  if (after === undefined) {
    fieldsOf(schema, before, "withContainers", path, found.removed)
    return found
  }
  const bothLists = Json.isArray(before) && Json.isArray(after)
  const bothMaps = Json.isObject(before) && Json.isObject(after)
  if ((!bothLists && !bothMaps) || isAtomic(schema, after)) {
    if (!Json.equal(before, after)) {
      if (!isAtomic(schema, before)) fieldsOf(schema, before, "withContainers", path, found.removed)
      fieldsOf(schema, after, "withContainers", path, found.changed)
    }
    return found
  }
  if (bothLists) {
    const old = new Map(before.map((entry) => [segmentOf(schema, entry), entry]))
    const items = schema.items ?? anything
    for (const entry of after) {
      const segment = segmentOf(schema, entry)
      const at = join(path, segment)
      const previous = old.get(segment)
      old.delete(segment)
      if (previous === undefined) found.changed.add(at)
      if (Json.isObject(entry)) difference(items, previous, entry, at, found)
    }
    for (const [segment, entry] of old) {
      const at = join(path, segment)
      found.removed.add(at)
      if (Json.isObject(entry)) fieldsOf(items, entry, "withContainers", at, found.removed)
    }
    return found
  }
  if (bothMaps) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      difference(
        propertyOf(schema, key) ?? anything,
        Json.own(before, key),
        Json.own(after, key),
        join(path, `f:${key}`),
        found
      )
    }
  }
  return found
}

/** A value merged over another: maps key by key, lists by their type, atomic values whole. */
export const merge = (schema: StructuralSchema, live: Json.Json | undefined, applied: Json.Json): Json.Json => {
  if (live === undefined || isAtomic(schema, applied)) return applied
  if (Json.isArray(applied)) {
    if (!Json.isArray(live)) return applied
    const wanted = new Map(applied.map((entry) => [segmentOf(schema, entry), entry]))
    const result = live.map((entry) => {
      const segment = segmentOf(schema, entry)
      const other = wanted.get(segment)
      wanted.delete(segment)
      return other === undefined ? entry : merge(schema.items ?? anything, entry, other)
    })
    return [...result, ...wanted.values()]
  }
  if (!Json.isObject(applied) || !Json.isObject(live)) return applied
  const next: Record<string, Json.Json> = { ...live }
  for (const [key, value] of Object.entries(applied)) {
    next[key] = merge(propertyOf(schema, key) ?? anything, Json.own(live, key), value)
  }
  return next
}

/** The value without the given fields; containers that this empties go too. */
export const removeFields = (
  schema: StructuralSchema,
  value: Json.Json,
  gone: FieldSet,
  path = ""
): Json.Json | undefined => {
  if (gone.size === 0) return value
  if (Json.isArray(value)) {
    if (isAtomic(schema, value)) return value
    const next = value.flatMap((entry) => {
      const at = join(path, segmentOf(schema, entry))
      if (gone.has(at)) return []
      const kept = removeFields(schema.items ?? anything, entry, gone, at)
      return kept === undefined ? [] : [kept]
    })
    return next.length === 0 && value.length > 0 ? undefined : next
  }
  if (!Json.isObject(value) || schema.mapAtomic) return value
  const next: Record<string, Json.Json> = {}
  for (const [key, entry] of Object.entries(value)) {
    const at = join(path, `f:${key}`)
    const container = (Json.isObject(entry) || Json.isArray(entry)) &&
      !isAtomic(propertyOf(schema, key) ?? anything, entry)
    if (gone.has(at) && !container) continue
    const kept = removeFields(propertyOf(schema, key) ?? anything, entry, gone, at)
    if (kept !== undefined) next[key] = kept
  }
  return Object.keys(next).length === 0 && Object.keys(value).length > 0 && path !== "" ? undefined : next
}

/** The value at a path, `undefined` where there is none. */
export const valueAt = (schema: StructuralSchema, value: Json.Json, path: string): Json.Json | undefined => {
  let current: Json.Json | undefined = value
  let schemaOfCurrent = schema
  for (const segment of path.split(separator)) {
    if (segment.startsWith("f:")) {
      const key = segment.slice(2)
      if (!Json.isObject(current)) return undefined
      current = Json.own(current, key)
      schemaOfCurrent = propertyOf(schemaOfCurrent, key) ?? anything
    } else {
      if (!Json.isArray(current)) return undefined
      const listSchema: StructuralSchema = schemaOfCurrent
      current = current.find((entry) => segmentOf(listSchema, entry) === segment)
      schemaOfCurrent = listSchema.items ?? anything
    }
  }
  return current
}

/** True for a value that is owned as a whole. */
export const ownedWhole = (value: Json.Json | undefined): boolean =>
  value === undefined || !(Json.isObject(value) || Json.isArray(value)) ||
  (Json.isObject(value) && Object.keys(value).length === 0)

/** A path as conflicts show it: `.spec.containers[name="a"].image`. */
export const display = (path: string): string =>
  path.split(separator).map((segment) => {
    if (segment.startsWith("f:")) return `.${segment.slice(2)}`
    if (segment.startsWith("v:")) return `[=${segment.slice(2)}]`
    const key = Json.parseTrusted(segment.slice(2))
    return `[${Object.entries(key).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(",")}]`
  }).join("")

/** True if a path lies at or below one of the given top segments, such as `f:status`. */
export const within = (path: string, ...top: ReadonlyArray<string>): boolean => {
  const prefix = top.join(separator)
  return path === prefix || path.startsWith(`${prefix}${separator}`)
}
