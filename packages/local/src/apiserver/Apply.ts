/**
 * Field ownership: `metadata.managedFields` as updates and server-side applies change it, and the merge that an apply
 * asks for, with its conflicts. Pure; the caller stores the outcome.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import * as FieldSet from "./FieldSet.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import type { StructuralSchema } from "./Schema/Structural.ts"

/** Who writes, through which door and when. */
export interface Writer {
  readonly manager: string
  readonly operation: "Apply" | "Update"
  readonly apiVersion: string
  readonly subresource: string
  /** RFC 3339, whole seconds. */
  readonly time: string
}

interface Entry {
  readonly manager: string
  readonly operation: string
  readonly apiVersion: string
  readonly subresource: string
  readonly time: string | undefined
  readonly fields: FieldSet.FieldSet
}

/** Fields of metadata that nobody owns: the server's own, and the identity. */
const unowned = [
  ["f:metadata", "f:name"],
  ["f:metadata", "f:namespace"],
  ["f:metadata", "f:creationTimestamp"],
  ["f:metadata", "f:selfLink"],
  ["f:metadata", "f:uid"],
  ["f:metadata", "f:resourceVersion"],
  ["f:metadata", "f:generation"],
  ["f:metadata", "f:managedFields"],
  ["f:metadata", "f:deletionTimestamp"],
  ["f:metadata", "f:deletionGracePeriodSeconds"]
] as const

/** Most fields are told by their first segment. */
const isUnowned = (path: string): boolean =>
  path === "f:metadata" || path === "f:apiVersion" || path === "f:kind" ||
  (FieldSet.within(path, "f:metadata") && unowned.some((top) => FieldSet.within(path, ...top)))

const ownable = (fields: FieldSet.FieldSet): Set<string> => {
  const kept = new Set<string>()
  for (const path of fields) {
    if (!isUnowned(path)) kept.add(path)
  }
  return kept
}

const entriesOf = (object: JsonObject | undefined): ReadonlyArray<Entry> =>
  Json.arrayAt(object, "metadata", "managedFields").map((entry): Entry => ({
    manager: Json.stringAt(entry, "manager") ?? "",
    operation: Json.stringAt(entry, "operation") ?? "Update",
    apiVersion: Json.stringAt(entry, "apiVersion") ?? "",
    subresource: Json.stringAt(entry, "subresource") ?? "",
    time: Json.stringAt(entry, "time"),
    fields: FieldSet.fromFieldsV1(Json.objectAt(entry, "fieldsV1"))
  }))

const encode = (entry: Entry): JsonObject => ({
  manager: entry.manager,
  operation: entry.operation,
  apiVersion: entry.apiVersion,
  ...(entry.time === undefined ? {} : { time: entry.time }),
  fieldsType: "FieldsV1",
  fieldsV1: FieldSet.toFieldsV1(entry.fields),
  ...(entry.subresource === "" ? {} : { subresource: entry.subresource })
})

const withEntries = (object: JsonObject, entries: ReadonlyArray<Entry>): JsonObject => {
  const kept = entries.filter((entry) => entry.fields.size > 0)
  return Json.withAt(object, ["metadata", "managedFields"], kept.length === 0 ? undefined : kept.map(encode))
}

const withoutFields = (entry: Entry, gone: FieldSet.FieldSet): Entry => ({
  ...entry,
  fields: FieldSet.minus(entry.fields, gone)
})

const isWriter = (entry: Entry, writer: Writer): boolean =>
  entry.manager === writer.manager && entry.operation === writer.operation &&
  entry.subresource === writer.subresource && (entry.operation === "Apply" || entry.apiVersion === writer.apiVersion)

/**
 * The object after an update or patch, with ownership moved to the writer for everything that it changed. `live` is the
 * stored object, absent for a create.
 */
export const trackUpdate = (
  schema: StructuralSchema,
  live: JsonObject | undefined,
  updated: JsonObject,
  writer: Writer
): JsonObject => {
  const { changed, removed } = FieldSet.difference(schema, live ?? {}, updated)
  const gained = ownable(changed)
  const lost = ownable(removed)
  const before = Json.at(updated, "metadata", "managedFields") === undefined ? [] : entriesOf(updated)
  if (gained.size === 0 && lost.size === 0) return withEntries(updated, before)
  const taken = FieldSet.union(gained, lost)
  const mine = before.find((entry) => isWriter(entry, writer))
  const rest = before.filter((entry) => entry !== mine).map((entry) => withoutFields(entry, taken))
  const kept = FieldSet.minus(mine?.fields ?? new Set<string>(), lost)
  const next: Entry = { ...writer, fields: FieldSet.union(kept, gained) }
  return withEntries(updated, [...rest, next])
}

const describe = (entry: Entry): string => {
  const name = JSON.stringify(entry.manager) +
    (entry.subresource === "" ? "" : ` with subresource ${JSON.stringify(entry.subresource)}`)
  if (entry.operation !== "Update") return name
  return `${name} using ${entry.apiVersion}${entry.time === undefined ? "" : ` at ${entry.time}`}`
}

const conflictStatus = (
  conflicts: ReadonlyArray<{ readonly entry: Entry; readonly paths: ReadonlyArray<string> }>
): ApiStatus.ApiStatus => {
  const count = conflicts.reduce((sum, { paths }) => sum + paths.length, 0)
  const parts = conflicts.map(({ entry, paths }) => {
    const shown = paths.map(FieldSet.display)
    return shown.length === 1
      ? `conflict with ${describe(entry)}: ${shown[0]}`
      : `conflicts with ${describe(entry)}:${shown.map((path) => `\n- ${path}`).join("")}`
  })
  return new ApiStatus.ApiStatus({
    code: 409,
    reason: "Conflict",
    text: `Apply failed with ${count} conflict${count === 1 ? "" : "s"}: ${parts.join("\n")}`,
    causes: conflicts.flatMap(({ entry, paths }) =>
      paths.map((path) => ({
        reason: "FieldManagerConflict",
        message: `conflict with ${describe(entry)}`,
        field: FieldSet.display(path)
      }))
    )
  })
}

/**
 * The object after a server-side apply: what `applied` says merged into `live`, what this manager no longer says (and
 * nobody else owns) removed, ownership moved. Fails with the conflicts unless `force` takes the fields over.
 */
export const apply = (
  schema: StructuralSchema,
  live: JsonObject | undefined,
  applied: JsonObject,
  writer: Writer,
  force: boolean
): Result.Result<JsonObject, ApiStatus.ApiStatus> => {
  const said = ownable(FieldSet.fieldsOf(schema, applied, "leavesOnly"))
  const entries = entriesOf(live)
  const mine = entries.find((entry) => isWriter(entry, writer))
  const others = entries.filter((entry) => entry !== mine)
  const conflicts = live === undefined ? [] : others.flatMap((entry) => {
    const paths = [...said].filter((path) => {
      if (!entry.fields.has(path)) return false
      const wanted = FieldSet.valueAt(schema, applied, path)
      const current = FieldSet.valueAt(schema, live, path)
      if (Json.equal(wanted, current)) return false
      return FieldSet.ownedWhole(wanted) || FieldSet.ownedWhole(current) || Json.isArray(wanted)
    })
    return paths.length === 0 ? [] : [{ entry, paths: paths.toSorted() }]
  })
  if (conflicts.length > 0 && !force) return Result.fail(conflictStatus(conflicts))
  const lostTo = new Map(conflicts.map(({ entry, paths }) => [entry, new Set(paths)]))
  const remaining = others.map((entry) => withoutFields(entry, lostTo.get(entry) ?? new Set()))
  const merged = live === undefined ? applied : FieldSet.merge(schema, live, applied)
  const gone = new Set<string>()
  for (const path of mine?.fields ?? []) {
    if (!said.has(path) && !remaining.some((entry) => entry.fields.has(path))) gone.add(path)
  }
  const pruned = FieldSet.removeFields(schema, merged, gone)
  const object = Json.isObject(pruned) ? pruned : applied
  const unchanged = mine !== undefined && FieldSet.same(mine.fields, said) &&
    live !== undefined && Json.equal(object, live)
  const next: Entry = { ...writer, time: unchanged ? mine.time : writer.time, fields: said }
  const place = mine === undefined ? entries.length : entries.indexOf(mine)
  return Result.succeed(withEntries(object, [...remaining.slice(0, place), next, ...remaining.slice(place)]))
}

/** Ownership in an order and without times, to tell whether a write changes anything. */
export const withoutTimes = (object: JsonObject): JsonObject => {
  const entries = Json.at(object, "metadata", "managedFields")
  return Json.isArray(entries)
    ? Json.withAt(
      object,
      ["metadata", "managedFields"],
      entries.map((entry) => Json.isObject(entry) ? Json.omit(entry, "time") : entry)
    )
    : object
}
