/**
 * Strategic merge patch, for built-in kinds: a merge patch whose lists merge by the key that the schema names, with the
 * directives `$patch`, `$deleteFromPrimitiveList`, `$setElementOrder` and `$retainKeys` that kubectl sends.
 */
import * as Json from "../Json.ts"
import type { JsonObject } from "../Json.ts"
import { anything, propertyOf, type StructuralSchema } from "../Schema/Structural.ts"

const deleteFromPrimitiveList = "$deleteFromPrimitiveList/"
const setElementOrder = "$setElementOrder/"
const retainKeys = "$retainKeys"
const directive = "$patch"

const plain = (value: Json.Json): Json.Json => {
  if (Json.isArray(value)) return value.filter((entry) => Json.stringAt(entry, directive) !== "delete").map(plain)
  if (!Json.isObject(value)) return value
  const next: Record<string, Json.Json> = {}
  for (const [key, entry] of Object.entries(value)) {
    if (entry !== null && !key.startsWith("$")) next[key] = plain(entry)
  }
  return next
}

const ordered = (
  list: ReadonlyArray<Json.Json>,
  order: ReadonlyArray<Json.Json>,
  identity: (entry: Json.Json) => Json.Json
): ReadonlyArray<Json.Json> => {
  const wanted = order.map((entry) => JSON.stringify(identity(entry)))
  const rank = (entry: Json.Json) => wanted.indexOf(JSON.stringify(identity(entry)))
  const named = list.filter((entry) => rank(entry) !== -1).toSorted((left, right) => rank(left) - rank(right))
  // Items that the order doesn't name (the server added them) keep their place relative to their predecessor.
  const result = [...named]
  list.forEach((entry, index) => {
    if (rank(entry) !== -1) return
    const before = index === 0 ? undefined : list[index - 1]
    const place = before === undefined ? 0 : result.indexOf(before) + 1
    result.splice(place, 0, entry)
  })
  return result
}

const mergeKeyed = (
  target: ReadonlyArray<Json.Json>,
  patch: ReadonlyArray<Json.Json>,
  mergeKey: string,
  schema: StructuralSchema
): ReadonlyArray<Json.Json> => {
  if (patch.some((entry) => Json.stringAt(entry, directive) === "replace")) {
    return patch.filter((entry) => Json.stringAt(entry, directive) !== "replace").map(plain)
  }
  let result = [...target]
  for (const entry of patch) {
    const key = Json.at(entry, mergeKey)
    const index = result.findIndex((candidate) => Json.equal(Json.at(candidate, mergeKey), key))
    if (Json.stringAt(entry, directive) === "delete") {
      result = result.filter((candidate) => !Json.equal(Json.at(candidate, mergeKey), key))
    } else if (index === -1) result.push(plain(entry))
    else result[index] = Json.isObject(entry) ? strategicMergePatch(schema, result[index], entry) : entry
  }
  return result
}

const mergeList = (
  schema: StructuralSchema,
  target: ReadonlyArray<Json.Json>,
  patch: ReadonlyArray<Json.Json>
): ReadonlyArray<Json.Json> => {
  if (!schema.patchMerges) return patch.map(plain)
  if (schema.patchMergeKey !== undefined) {
    return mergeKeyed(target, patch, schema.patchMergeKey, schema.items ?? anything)
  }
  return [...target, ...patch.filter((entry) => !target.some((known) => Json.equal(known, entry)))]
}

/** The target with the patch applied under the schema of both. */
export const strategicMergePatch = (
  schema: StructuralSchema,
  target: Json.Json | undefined,
  patch: JsonObject
): Json.Json => {
  const mode = Json.stringAt(patch, directive)
  if (mode === "replace") return plain(patch)
  if (mode === "delete") return {}
  let next: Record<string, Json.Json> = Json.isObject(target) ? { ...target } : {}
  const retained = Json.own(patch, retainKeys)
  if (Json.isArray(retained)) {
    next = Object.fromEntries(Object.entries(next).filter(([key]) => retained.includes(key)))
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith(deleteFromPrimitiveList)) {
      const field = key.slice(deleteFromPrimitiveList.length)
      const list = next[field]
      if (Json.isArray(list) && Json.isArray(value)) {
        next[field] = list.filter((entry) => !value.some((gone) => Json.equal(gone, entry)))
      }
      continue
    }
    if (key.startsWith("$")) continue
    if (value === null) {
      delete next[key]
      continue
    }
    const schemaOfKey = propertyOf(schema, key) ?? anything
    const current = Object.hasOwn(next, key) ? next[key] : undefined
    if (Json.isObject(value)) next[key] = strategicMergePatch(schemaOfKey, current, value)
    else if (Json.isArray(value)) next[key] = mergeList(schemaOfKey, Json.isArray(current) ? current : [], value)
    else next[key] = value
  }
  for (const [key, value] of Object.entries(patch)) {
    if (!key.startsWith(setElementOrder) || !Json.isArray(value)) continue
    const field = key.slice(setElementOrder.length)
    const list = next[field]
    if (!Json.isArray(list)) continue
    const mergeKey = propertyOf(schema, field)?.patchMergeKey
    next[field] = ordered(list, value, (entry) => mergeKey === undefined ? entry : Json.at(entry, mergeKey) ?? null)
  }
  return next
}
