/**
 * The subset of Kubernetes JSONPath that printer columns, selectable fields and scale paths use: fields, quoted fields,
 * indexes, wildcards, and the equality filter on list items.
 */
import * as Json from "./Json.ts"

type Step =
  | { readonly _tag: "Field"; readonly name: string }
  | { readonly _tag: "Index"; readonly index: number }
  | { readonly _tag: "All" }
  | {
    readonly _tag: "Filter"
    readonly path: ReadonlyArray<string>
    readonly operator: string
    readonly value: Json.Json
  }

/** A compiled path. */
export type JsonPath = ReadonlyArray<Step>

const grammar =
  /\.?\[\?\(\s*@\.([\w.-]+)\s*(==|!=)\s*(?:'([^']*)'|"([^"]*)"|([\w.-]+))\s*\)\]|\.?\[(-?\d+)\]|\.?\[\*\]|\.\*|\.?\[(?:'([^']*)'|"([^"]*)")\]|\.((?:\\.|[^.[\]\\])+)/y

const literal = (text: string): Json.Json =>
  text === "true" ? true : text === "false" ? false : /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text

/** Compiles a path such as `.status.conditions[?(@.type=="Ready")].status`; `undefined` if it can't be read. */
export const compile = (text: string): JsonPath | undefined => {
  const source = text.replace(/^\{(.*)\}$/, "$1").replace(/^\$/, "")
  const steps: Array<Step> = []
  let position = 0
  while (position < source.length) {
    grammar.lastIndex = position
    const match = grammar.exec(source)
    if (match === null) return undefined
    position = grammar.lastIndex
    const [whole, path, operator, single, double, bare, index, quoted, doubleQuoted, name] = match
    if (path !== undefined) {
      steps.push({
        _tag: "Filter",
        path: path.split("."),
        operator: operator ?? "==",
        value: single ?? double ?? literal(bare ?? "")
      })
    } else if (index !== undefined) steps.push({ _tag: "Index", index: Number(index) })
    else if (whole.endsWith("*]") || whole === ".*") steps.push({ _tag: "All" })
    else steps.push({ _tag: "Field", name: quoted ?? doubleQuoted ?? (name ?? "").replaceAll("\\", "") })
  }
  return steps
}

/** All values that a path finds. */
export const evaluate = (path: JsonPath, value: Json.Json): ReadonlyArray<Json.Json> => {
  let found: ReadonlyArray<Json.Json> = [value]
  for (const step of path) {
    found = found.flatMap((current): ReadonlyArray<Json.Json> => {
      switch (step._tag) {
        case "Field": {
          const next = Json.at(current, step.name)
          return next === undefined ? [] : [next]
        }
        case "Index": {
          const next = Json.isArray(current) ? current.at(step.index) : undefined
          return next === undefined ? [] : [next]
        }
        case "All":
          return Json.isArray(current) ? current : Json.isObject(current) ? Object.values(current) : []
        case "Filter":
          return Json.isArray(current)
            ? current.filter((entry) =>
              Json.equal(Json.at(entry, ...step.path), step.value) === (step.operator === "==")
            )
            : []
      }
    })
  }
  return found
}

/** The field names of a path that has nothing else, such as `.spec.replicas`. */
export const plainFields = (text: string): ReadonlyArray<string> | undefined => {
  const path = compile(text)
  if (path === undefined || path.length === 0) return undefined
  const names = path.flatMap((step) => step._tag === "Field" ? [step.name] : [])
  return names.length === path.length ? names : undefined
}
