/**
 * Label selectors as `kubectl -l` has them: `app=web,tier!=cache,env in (a, b),owner notin (c),new,!old`. A comma between
 * requirements means and.
 */
import * as Result from "effect/Result"
import { InvalidArgument } from "./Errors.ts"

/** One requirement. Labels that are absent satisfy `notIn`, as Kubernetes has it. */
export type Requirement =
  | { readonly _tag: "in" | "notIn"; readonly key: string; readonly values: ReadonlyArray<string> }
  | { readonly _tag: "exists" | "absent"; readonly key: string }

/** All of these; none selects everything. */
export type LabelSelector = ReadonlyArray<Requirement>

const keyPattern = /^([a-z0-9]([-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/
const setPattern = /^(\S+)\s+(in|notin)\s*\(([^()]*)\)$/
const equalityPattern = /^([^=!\s]+)\s*(==|=|!=)\s*([^=!\s]*)$/

/** At commas outside of parentheses. */
const splitTerms = (text: string): ReadonlyArray<string> => text.split(/,(?![^(]*\))/).map((term) => term.trim())

const parseTerm = (term: string): Requirement | undefined => {
  const set = setPattern.exec(term)
  if (set !== null) {
    const [, key = "", operator, values = ""] = set
    return {
      _tag: operator === "in" ? "in" : "notIn",
      key,
      values: values.split(",").map((value) => value.trim())
    }
  }
  const equality = equalityPattern.exec(term)
  if (equality !== null) {
    const [, key = "", operator, value = ""] = equality
    return { _tag: operator === "!=" ? "notIn" : "in", key, values: [value] }
  }
  return term.startsWith("!") ? { _tag: "absent", key: term.slice(1).trim() } : { _tag: "exists", key: term }
}

/** Reads a selector; the empty text selects everything. */
export const parse = (text: string): Result.Result<LabelSelector, InvalidArgument> => {
  if (text.trim() === "") {
    return Result.succeed([])
  }
  const requirements: Array<Requirement> = []
  for (const term of splitTerms(text)) {
    const requirement = parseTerm(term)
    if (requirement === undefined || !keyPattern.test(requirement.key)) {
      return Result.fail(
        new InvalidArgument({
          field: "labelSelector",
          problem: `${JSON.stringify(term)} is no requirement such as app=web, tier!=cache, env in (a,b) or !old`
        })
      )
    }
    requirements.push(requirement)
  }
  return Result.succeed(requirements)
}

/** Whether labels satisfy every requirement. */
export const matches = (
  selector: LabelSelector,
  labels: { readonly [key: string]: string } | undefined = {}
): boolean =>
  selector.every((requirement) => {
    const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined
    switch (requirement._tag) {
      case "in":
        return value !== undefined && requirement.values.includes(value)
      case "notIn":
        return value === undefined || !requirement.values.includes(value)
      case "exists":
        return value !== undefined
      case "absent":
        return value === undefined
    }
  })
