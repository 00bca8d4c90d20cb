/**
 * The rules of `x-kubernetes-validations`: CEL expressions over a value (`self`) and, on updates, its predecessor
 * (`oldSelf`). Values are converted by their schema, so that integers, timestamps and durations are what CEL expects.
 */
import { celEnv, type CelInput, type CelResult, isCelError, parse, plan } from "@bufbuild/cel"
import { strings } from "@bufbuild/cel/ext"
import * as Result from "effect/Result"
import type { FieldError } from "./ApiStatus.ts"
import * as Json from "./Json.ts"
import { correlated, propertyOf, type Rule, type StructuralSchema } from "./Schema/Structural.ts"

const environment = celEnv({ funcs: [...strings] })

type Program = (bindings: Record<string, CelInput>) => CelResult

const programs = new Map<string, Program | string>()

/** Compiled expressions that are kept; rules come from CustomResourceDefinitions, of which there are few. */
const programLimit = 2_000

/** Compiles an expression, or says why it can't be. */
const compile = (expression: string): Program | string => {
  const known = programs.get(expression)
  if (known !== undefined) return known
  const program = Result.getOrElse(
    Result.try((): Program | string => plan(environment, parse(expression))),
    (cause) => cause instanceof Error ? cause.message : String(cause)
  )
  if (programs.size >= programLimit) programs.clear()
  programs.set(expression, program)
  return program
}

/** Why an expression is not valid CEL, if it isn't. */
export const syntaxProblem = (expression: string): string | undefined => {
  const program = compile(expression)
  return typeof program === "string" ? program : undefined
}

/** Does the rule compare with the previous value? */
export const isTransition = (expression: string): boolean => /\boldSelf\b/.test(expression)

/** Words that CEL reserves: fields of that name are written `__name__` in rules. */
const reserved = new Set([
  "true",
  "false",
  "null",
  "in",
  "as",
  "break",
  "const",
  "continue",
  "else",
  "for",
  "function",
  "if",
  "import",
  "let",
  "loop",
  "package",
  "namespace",
  "return",
  "var",
  "void",
  "while"
])

const escaped = (name: string): string =>
  reserved.has(name)
    ? `__${name}__`
    : name.replaceAll("__", "__underscores__").replaceAll(".", "__dot__").replaceAll("-", "__dash__").replaceAll(
      "/",
      "__slash__"
    )

/** Reads a timestamp or duration with CEL's own constructors. */
const construct = (constructor: "timestamp" | "duration", value: string): CelInput => {
  const result = evaluate(`${constructor}(text)`, { text: value })
  return isFailure(result) ? value : result
}

/** A value as CEL sees it under its schema. */
const toCel = (schema: StructuralSchema | undefined, value: Json.Json): CelInput => {
  if (typeof value === "number") {
    return schema?.type === "number" || !Number.isInteger(value) ? value : BigInt(value)
  }
  if (typeof value === "string") {
    if (schema?.format === "date-time") return construct("timestamp", value)
    return schema?.format === "duration" ? construct("duration", value) : value
  }
  if (Json.isArray(value)) return value.map((entry) => toCel(schema?.items, entry))
  if (Json.isObject(value)) {
    return new Map(
      Object.entries(value).map(([key, entry]) => {
        const named = schema?.properties.has(key) === true
        return [named ? escaped(key) : key, toCel(schema === undefined ? undefined : propertyOf(schema, key), entry)]
      })
    )
  }
  return value
}

interface Failure {
  readonly failure: string
}

const isFailure = (value: CelInput | Failure): value is Failure =>
  typeof value === "object" && value !== null && "failure" in value

const evaluate = (expression: string, bindings: Record<string, CelInput>): CelInput | Failure => {
  const program = compile(expression)
  if (typeof program === "string") return { failure: program }
  const result = program(bindings)
  return isCelError(result) ? { failure: result.message } : result
}

const reasons: Record<string, FieldError["reason"]> = {
  FieldValueRequired: "FieldValueRequired",
  FieldValueForbidden: "FieldValueForbidden",
  FieldValueDuplicate: "FieldValueDuplicate"
}

/** Values are named by their type in messages, as upstream does. */
const shown = (schema: StructuralSchema, value: Json.Json): string =>
  JSON.stringify(schema.type === "" ? Json.isObject(value) ? "object" : typeof value : schema.type)

const refusal = (
  rule: Rule,
  schema: StructuralSchema,
  value: Json.Json,
  path: string,
  bindings: Record<string, CelInput>
): FieldError => {
  const computed = rule.messageExpression === undefined ? undefined : evaluate(rule.messageExpression, bindings)
  const problem = typeof computed === "string" && computed.trim() !== ""
    ? computed
    : rule.message ?? `failed rule: ${rule.rule}`
  const reason = reasons[rule.reason ?? ""] ?? "FieldValueInvalid"
  const field = path === "" ? "<nil>" : path
  const at = rule.fieldPath === undefined ? field : `${path}${rule.fieldPath}`.replace(/^\./, "")
  switch (reason) {
    case "FieldValueRequired":
      return { reason, field: at, message: `Required value: ${problem}` }
    case "FieldValueForbidden":
      return { reason, field: at, message: `Forbidden: ${problem}` }
    case "FieldValueDuplicate":
      return { reason, field: at, message: `Duplicate value: ${shown(schema, value)}` }
    default:
      return { reason, field: at, message: `Invalid value: ${shown(schema, value)}: ${problem}` }
  }
}

/**
 * What breaks the rules of a schema at and below a value. Rules that mention `oldSelf` run only where there is an old
 * value to compare with; other rules are not held against a value that has not changed.
 */
export const validateRules = (
  schema: StructuralSchema,
  value: Json.Json,
  previous: Json.Json | undefined,
  path: string
): ReadonlyArray<FieldError> => {
  if (!schema.hasRules || value === null) return []
  const errors: Array<FieldError> = []
  const unchanged = previous !== undefined && Json.equal(previous, value)
  if (schema.rules.length > 0) {
    const bindings: Record<string, CelInput> = { self: toCel(schema, value) }
    if (previous !== undefined) bindings["oldSelf"] = toCel(schema, previous)
    for (const rule of schema.rules) {
      const transition = isTransition(rule.rule)
      if (transition ? previous === undefined : unchanged) continue
      const result = evaluate(rule.rule, bindings)
      if (result === true) continue
      if (isFailure(result)) {
        errors.push({
          reason: "FieldValueInvalid",
          field: path === "" ? "<nil>" : path,
          message: `Invalid value: ${
            shown(schema, value)
          }: rule evaluation error: ${result.failure} evaluating rule: ${rule.rule}`
        })
      } else errors.push(refusal(rule, schema, value, path, bindings))
    }
  }
  if (Json.isArray(value)) {
    const items = schema.items
    if (items?.hasRules === true) {
      value.forEach((entry, index) => {
        errors.push(...validateRules(items, entry, correlated(schema, entry, previous), Json.item(path, index)))
      })
    }
  } else if (Json.isObject(value)) {
    for (const [key, entry] of Object.entries(value)) {
      const schemaOfKey = propertyOf(schema, key)
      if (schemaOfKey === undefined || !schemaOfKey.hasRules) continue
      errors.push(...validateRules(
        schemaOfKey,
        entry,
        Json.isObject(previous) ? Json.own(previous, key) : undefined,
        Json.child(path, key)
      ))
    }
  }
  return errors
}
