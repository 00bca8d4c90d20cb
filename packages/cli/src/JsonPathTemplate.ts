/**
 * Templates as `kubectl -o jsonpath` has them: text, `{.path}` for the values that a path finds, `{"text"}` with escapes,
 * and `{range .path}...{end}` for each of them. A module of its own, so that it is loaded only by the calls that need it.
 */
import type * as Json from "@fast-sandbox/local/apiserver/Json"
import * as JsonPath from "@fast-sandbox/local/apiserver/JsonPath"
import * as Result from "effect/Result"

type Part =
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "Path"; readonly path: JsonPath.JsonPath }
  | { readonly _tag: "Range"; readonly path: JsonPath.JsonPath; readonly body: ReadonlyArray<Part> }

/** A brace, its content with quoted text and nested brackets in it, and its end. */
const expression = /\{((?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^{}"'])*)\}/g

const escapes: Readonly<Record<string, string>> = { n: "\n", t: "\t", r: "\r" }

const unquote = (text: string): string =>
  text.slice(1, -1).replace(/\\(.)/g, (_, letter: string) => escapes[letter] ?? letter)

const compile = (text: string): Result.Result<JsonPath.JsonPath, string> => {
  const trimmed = text.trim()
  // kubectl takes a path without its first dot as well
  const path = JsonPath.compile(
    trimmed === "@" || trimmed === "." ? "" : /^[.[$]/.test(trimmed) ? trimmed : `.${trimmed}`
  )
  return path === undefined ? Result.fail(`can't read the path ${JSON.stringify(text)}`) : Result.succeed(path)
}

const parse = (template: string): Result.Result<ReadonlyArray<Part>, string> =>
  Result.gen(function*() {
    const root: Array<Part> = []
    /** The bodies of the ranges that are open, the innermost last. */
    const open = [root]
    const add = (part: Part) => open.at(-1)?.push(part)
    let end = 0
    for (const match of template.matchAll(expression)) {
      const [whole, content = ""] = match
      const between = template.slice(end, match.index)
      if (/[{}]/.test(between)) return yield* Result.fail(`a brace without its partner in ${JSON.stringify(template)}`)
      if (between !== "") add({ _tag: "Text", text: between })
      end = match.index + whole.length
      const inner = content.trim()
      if (/^["']/.test(inner)) {
        add({ _tag: "Text", text: unquote(inner) })
      } else if (inner === "end") {
        if (open.length === 1) return yield* Result.fail("{end} without {range}")
        open.pop()
      } else if (inner.startsWith("range ")) {
        const body: Array<Part> = []
        add({ _tag: "Range", path: yield* compile(inner.slice("range ".length)), body })
        open.push(body)
      } else {
        add({ _tag: "Path", path: yield* compile(inner) })
      }
    }
    const rest = template.slice(end)
    if (/[{}]/.test(rest)) return yield* Result.fail(`a brace without its partner in ${JSON.stringify(template)}`)
    if (rest !== "") add({ _tag: "Text", text: rest })
    return open.length > 1 ? yield* Result.fail("{range} without {end}") : root
  })

const show = (value: Json.Json): string => typeof value === "string" ? value : JSON.stringify(value)

const write = (parts: ReadonlyArray<Part>, value: Json.Json): string =>
  parts.map((part) => {
    switch (part._tag) {
      case "Text":
        return part.text
      case "Path":
        return JsonPath.evaluate(part.path, value).map(show).join(" ")
      case "Range":
        return JsonPath.evaluate(part.path, value).map((item) => write(part.body, item)).join("")
    }
  }).join("")

/** What the template makes of an object, or what is wrong with the template. A template without braces is one path. */
export const render = (template: string, object: unknown): Result.Result<string, string> => {
  const whole = template.includes("{") ? template : `{${template}}`
  // through JSON, so that what is undefined is not there
  return Result.map(parse(whole), (parts) => write(parts, JSON.parse(JSON.stringify(object))))
}
