/**
 * JSON patch (RFC 6902): a list of operations at JSON pointers, all of them or none.
 */
import * as Result from "effect/Result"
import * as Json from "../Json.ts"

/** More operations than this in one request are refused, as upstream. */
const operationLimit = 10_000

type Outcome = Result.Result<Json.Json, string>

const pointer = (text: string): ReadonlyArray<string> | undefined =>
  text === ""
    ? []
    : text.startsWith("/")
    ? text.slice(1).split("/").map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    : undefined

const listIndex = (list: ReadonlyArray<Json.Json>, key: string, past: boolean): number | undefined => {
  if (past && key === "-") return list.length
  if (!/^(0|[1-9]\d*)$/.test(key)) return undefined
  const index = Number(key)
  return index < list.length + (past ? 1 : 0) ? index : undefined
}

const read = (value: Json.Json, path: ReadonlyArray<string>): Json.Json | undefined => {
  let current: Json.Json | undefined = value
  for (const key of path) {
    if (Json.isArray(current)) {
      const index = listIndex(current, key, false)
      current = index === undefined ? undefined : current[index]
    } else if (Json.isObject(current)) current = Json.own(current, key)
    else return undefined
    if (current === undefined) return undefined
  }
  return current
}

type Edit = (parent: ReadonlyArray<Json.Json> | Json.JsonObject, key: string) => Outcome

const edit = (value: Json.Json, path: ReadonlyArray<string>, change: Edit): Outcome => {
  const [key, ...rest] = path
  if (key === undefined || (!Json.isObject(value) && !Json.isArray(value))) return Result.fail("missing path")
  if (rest.length === 0) return change(value, key)
  const next = read(value, [key])
  if (next === undefined) return Result.fail("missing path")
  return Result.map(edit(next, rest, change), (changed) =>
    Json.isArray(value)
      ? value.map((entry, index) => index === Number(key) ? changed : entry)
      : { ...value, [key]: changed })
}

const add = (document: Json.Json, path: ReadonlyArray<string>, value: Json.Json): Outcome =>
  path.length === 0 ? Result.succeed(value) : edit(document, path, (parent, key) => {
    if (Json.isArray(parent)) {
      const index = listIndex(parent, key, true)
      return index === undefined
        ? Result.fail(`Unable to access invalid index: ${key}`)
        : Result.succeed([...parent.slice(0, index), value, ...parent.slice(index)])
    }
    return Result.succeed({ ...parent, [key]: value })
  })

const remove = (document: Json.Json, path: ReadonlyArray<string>): Outcome =>
  edit(document, path, (parent, key) => {
    if (Json.isArray(parent)) {
      const index = listIndex(parent, key, false)
      return index === undefined
        ? Result.fail(`Unable to remove nonexistent key: ${key}`)
        : Result.succeed([...parent.slice(0, index), ...parent.slice(index + 1)])
    }
    return Object.hasOwn(parent, key)
      ? Result.succeed(Json.omit(parent, key))
      : Result.fail(`Unable to remove nonexistent key: ${key}`)
  })

const replace = (document: Json.Json, path: ReadonlyArray<string>, value: Json.Json): Outcome => {
  if (path.length === 0) return Result.succeed(value)
  if (read(document, path) === undefined) return Result.fail("replace operation does not apply: doc is missing key")
  return edit(document, path, (parent, key) =>
    Result.succeed(
      Json.isArray(parent)
        ? parent.map((entry, index) => index === Number(key) ? value : entry)
        : { ...parent, [key]: value }
    ))
}

const step = (document: Json.Json, operation: Json.Json): Outcome => {
  const path = pointer(Json.stringAt(operation, "path") ?? "")
  const from = pointer(Json.stringAt(operation, "from") ?? "")
  if (path === undefined || from === undefined || Json.stringAt(operation, "path") === undefined) {
    return Result.fail("operation has no valid path")
  }
  const value = Json.at(operation, "value")
  switch (Json.stringAt(operation, "op")) {
    case "add":
      return value === undefined ? Result.fail("add operation has no value") : add(document, path, value)
    case "replace":
      return value === undefined ? Result.fail("replace operation has no value") : replace(document, path, value)
    case "remove":
      return remove(document, path)
    case "test":
      return Json.equal(read(document, path) ?? null, value ?? null)
        ? Result.succeed(document)
        : Result.fail(`testing value ${Json.stringAt(operation, "path")} failed`)
    case "copy": {
      const source = read(document, from)
      return source === undefined ? Result.fail("copy operation: missing from") : add(document, path, source)
    }
    case "move": {
      const source = read(document, from)
      if (source === undefined) return Result.fail("move operation: missing from")
      return Result.flatMap(remove(document, from), (without) => add(without, path, source))
    }
    default:
      return Result.fail(`unexpected kind: ${JSON.stringify(Json.at(operation, "op") ?? null)}`)
  }
}

/** The document with all operations applied, or why one doesn't apply. */
export const jsonPatch = (document: Json.Json, operations: ReadonlyArray<Json.Json>): Outcome => {
  if (operations.length > operationLimit) {
    return Result.fail(`The allowed maximum operations in a JSON patch is ${operationLimit}, got ${operations.length}`)
  }
  let current: Outcome = Result.succeed(document)
  for (const operation of operations) current = Result.flatMap(current, (value) => step(value, operation))
  return current
}
