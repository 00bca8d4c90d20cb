/**
 * JSON values as the API server handles them: immutable trees that are read by path and changed by copying the spine.
 */
import * as Result from "effect/Result"

/** Any JSON value. */
export type Json = null | boolean | number | string | ReadonlyArray<Json> | JsonObject

/** A JSON object; an absent key reads as `undefined`. */
export interface JsonObject {
  readonly [key: string]: Json
}

/** The empty object. */
export const emptyObject: JsonObject = {}

/** True for objects, not for arrays and null. */
export const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** True for arrays. */
export const isArray = (value: Json | undefined): value is ReadonlyArray<Json> => Array.isArray(value)

/** The own value of a key; inherited names such as `constructor` count as absent. */
export const own = (object: JsonObject, key: string): Json | undefined =>
  Object.hasOwn(object, key) ? object[key] : undefined

/** The value under a path of keys, or `undefined` where the path ends early. */
export const at = (value: Json | undefined, ...path: ReadonlyArray<string>): Json | undefined => {
  let current = value
  for (const key of path) {
    if (!isObject(current)) return undefined
    current = own(current, key)
  }
  return current
}

/** The object under a path, empty if there is none. */
export const objectAt = (value: Json | undefined, ...path: ReadonlyArray<string>): JsonObject => {
  const found = at(value, ...path)
  return isObject(found) ? found : emptyObject
}

/** The array under a path, empty if there is none. */
export const arrayAt = (value: Json | undefined, ...path: ReadonlyArray<string>): ReadonlyArray<Json> => {
  const found = at(value, ...path)
  return isArray(found) ? found : []
}

/** The string under a path, if there is one. */
export const stringAt = (value: Json | undefined, ...path: ReadonlyArray<string>): string | undefined => {
  const found = at(value, ...path)
  return typeof found === "string" ? found : undefined
}

/** The number under a path, if there is one. */
export const numberAt = (value: Json | undefined, ...path: ReadonlyArray<string>): number | undefined => {
  const found = at(value, ...path)
  return typeof found === "number" ? found : undefined
}

/** The object without one key. */
export const omit = (object: JsonObject, key: string): JsonObject => {
  if (!Object.hasOwn(object, key)) return object
  const { [key]: _, ...rest } = object
  return rest
}

/** A copy with the value under `path` replaced; `undefined` removes it. Missing parents are created, never to hold nothing. */
export const withAt = (
  object: JsonObject,
  path: ReadonlyArray<string>,
  value: Json | undefined
): JsonObject => {
  const [key, ...rest] = path
  if (key === undefined) return object
  if (rest.length === 0) return value === undefined ? omit(object, key) : { ...object, [key]: value }
  const child = own(object, key)
  if (value === undefined && !isObject(child)) return object
  return { ...object, [key]: withAt(isObject(child) ? child : emptyObject, rest, value) }
}

/** Structural equality; the order of an object's keys doesn't matter. */
export const equal = (left: Json | undefined, right: Json | undefined): boolean => {
  if (left === right) return true
  if (isArray(left)) {
    return isArray(right) && left.length === right.length && left.every((item, index) => equal(item, right[index]))
  }
  if (!isObject(left) || !isObject(right)) return false
  const keys = Object.keys(left)
  return keys.length === Object.keys(right).length &&
    keys.every((key) => Object.hasOwn(right, key) && equal(left[key], right[key]))
}

/** Parses JSON text; the failure is the parser's message. */
export const parse = (text: string): Result.Result<Json, string> =>
  Result.try({
    try: (): Json => JSON.parse(text),
    catch: (cause) => cause instanceof Error ? cause.message : String(cause)
  })

/** Parses text that this process wrote itself, such as a stored object. */
export const parseTrusted = (text: string): JsonObject => JSON.parse(text)

/** A path as Kubernetes writes it: `spec.containers[0].name`. */
export const child = (path: string, key: string): string => path === "" ? key : `${path}.${key}`

/** A path into a list: `spec.ports[2]`. */
export const item = (path: string, index: number): string => `${path}[${index}]`

/** A path into a map with free keys: `metadata.labels[app]`. */
export const keyed = (path: string, key: string): string => `${path}[${key}]`
