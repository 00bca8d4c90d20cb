/**
 * Label and field selectors: the text of `labelSelector` and `fieldSelector` parameters, read into predicates.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Names from "./Names.ts"
import type { ResourceType } from "./ResourceType.ts"

/** Decides whether an object is selected. */
export type Predicate = (object: JsonObject) => boolean

/** Selects everything; watches and lists recognise it and then need not decode objects. */
export const everything: Predicate = () => true

type LabelTest = (labels: JsonObject) => boolean

const number = (value: Json.Json | undefined): number =>
  typeof value === "string" && /^-?\d+$/.test(value) ? Number(value) : Number.NaN

/** Splits at commas that are not inside parentheses. */
const requirements = (text: string): ReadonlyArray<string> => {
  const parts: Array<string> = []
  let depth = 0
  let start = 0
  for (let index = 0; index < text.length; index++) {
    const character = text[index]
    if (character === "(") depth += 1
    else if (character === ")") depth -= 1
    else if (character === "," && depth === 0) {
      parts.push(text.slice(start, index))
      start = index + 1
    }
  }
  parts.push(text.slice(start))
  return parts.map((part) => part.trim())
}

const labelTest = (requirement: string): LabelTest | undefined => {
  const setBased = /^(\S+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(requirement)
  if (setBased !== null) {
    const [, key = "", operator, list = ""] = setBased
    const values = new Set<Json.Json | undefined>(list.split(",").map((value) => value.trim()))
    return operator === "in"
      ? (labels) => values.has(Json.own(labels, key))
      : (labels) => !values.has(Json.own(labels, key))
  }
  const comparison = /^([^\s!=<>]+)\s*(==|=|!=|<|>)\s*([^\s=<>!]*)$/.exec(requirement)
  if (comparison !== null) {
    const [, key = "", operator, value = ""] = comparison
    if (Names.labelValueProblems(value).length > 0) return undefined
    switch (operator) {
      case "!=":
        return (labels) => Json.own(labels, key) !== value
      case "<":
        return (labels) => number(Json.own(labels, key)) < number(value)
      case ">":
        return (labels) => number(Json.own(labels, key)) > number(value)
      default:
        return (labels) => Json.own(labels, key) === value
    }
  }
  const presence = /^(!?)\s*([^\s!=<>(),]+)$/.exec(requirement)
  if (presence === null) return undefined
  const [, negated, key = ""] = presence
  if (Names.qualifiedNameProblems(key).length > 0) return undefined
  return negated === "!" ? (labels) => !Object.hasOwn(labels, key) : (labels) => Object.hasOwn(labels, key)
}

/** Reads a label selector. */
export const labels = (text: string): Result.Result<Predicate, ApiStatus.ApiStatus> => {
  if (text.trim() === "") return Result.succeed(everything)
  const tests: Array<LabelTest> = []
  for (const requirement of requirements(text)) {
    const test = labelTest(requirement)
    if (test === undefined) {
      return Result.fail(ApiStatus.badRequest(
        `unable to parse requirement: invalid selector ${JSON.stringify(requirement)} in ${JSON.stringify(text)}`
      ))
    }
    tests.push(test)
  }
  return Result.succeed((object) => {
    const found = Json.objectAt(object, "metadata", "labels")
    return tests.every((test) => test(found))
  })
}

const readerOf = (type: ResourceType, path: string): ((object: JsonObject) => string) | undefined => {
  if (path === "metadata.name") return (object) => Json.stringAt(object, "metadata", "name") ?? ""
  if (path === "metadata.namespace") return (object) => Json.stringAt(object, "metadata", "namespace") ?? ""
  return type.selectableFields.get(path)
}

/** Reads a field selector of a resource; a field that the resource can't be selected by is refused. */
export const fields = (type: ResourceType, text: string): Result.Result<Predicate, ApiStatus.ApiStatus> => {
  if (text.trim() === "") return Result.succeed(everything)
  const tests: Array<Predicate> = []
  for (const requirement of text.split(",")) {
    const match = /^\s*([^=!\s]+)\s*(==|=|!=)\s*(.*?)\s*$/.exec(requirement)
    if (match === null) {
      return Result.fail(ApiStatus.badRequest(
        `unable to find by: invalid selector: '${text}'; can't understand '${requirement}'`
      ))
    }
    const [, path = "", operator, value = ""] = match
    const reader = readerOf(type, path)
    if (reader === undefined) {
      return Result.fail(ApiStatus.badRequest(
        type.custom
          ? `field label not supported: ${path}`
          : `Unable to find ${JSON.stringify(type.plural)} that match label selector "", field selector ${
            JSON.stringify(text)
          }: field label not supported: ${path}`
      ))
    }
    tests.push(operator === "!=" ? (object) => reader(object) !== value : (object) => reader(object) === value)
  }
  return Result.succeed((object) => tests.every((test) => test(object)))
}

/** Both selectors must select. */
export const both = (left: Predicate, right: Predicate): Predicate =>
  left === everything ? right : right === everything ? left : (object) => left(object) && right(object)

/** The name that a field selector pins an object to, so that a lookup can replace a scan. */
export const pinnedName = (text: string): string | undefined =>
  /(?:^|,)\s*metadata\.name={1,2}([^,!=\s]+)/.exec(text)?.[1]
