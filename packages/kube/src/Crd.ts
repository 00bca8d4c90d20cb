/**
 * From an Effect Schema to a CustomResourceDefinition. API servers take a dialect of OpenAPI v3 that they call
 * structural: every value has a type, nothing is referenced, and what would be costly to check is left out.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
 *
 * Annotations of a schema whose name begins with `x-kubernetes-` are passed on, for example CEL rules as
 * `x-kubernetes-validations`.
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { CustomResourceDefinition, CustomResourceVersion, JsonSchemaProps, PrinterColumn } from "./Kinds.ts"
import { CustomResourceDefinition as CustomResourceDefinitionKind } from "./Kinds.ts"
import { apiVersion, type Draft } from "./KubeObject.ts"

/** What a CRD says beside its schema. */
export interface CrdOptions {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly description: string
  readonly shortNames?: ReadonlyArray<string> | undefined
  readonly scope?: "Namespaced" | "Cluster" | undefined
  readonly spec: Schema.Top
  /** Where it is given there is a status subresource. */
  readonly status?: Schema.Top | undefined
  readonly printerColumns?: ReadonlyArray<PrinterColumn> | undefined
  readonly scale?: NonNullable<CustomResourceVersion["subresources"]>["scale"]
}

/** Keywords that mean the same in JSON Schema and in structural schemas. */
const sharedKeywords: ReadonlySet<string> = new Set([
  "type",
  "title",
  "description",
  "format",
  "default",
  "enum",
  "pattern",
  "minimum",
  "maximum",
  "multipleOf",
  "minLength",
  "maxLength",
  "minItems",
  "maxItems",
  "minProperties",
  "maxProperties"
])

const isRecord = (value: unknown): value is { readonly [key: string]: unknown } =>
  Predicate.isObject(value) && !Array.isArray(value)

const isExtension = (keyword: string): boolean => keyword.startsWith("x-kubernetes-")

const notStructural = (path: string, why: string): Error => new Error(`${path}: not a structural schema: ${why}`)

/**
 * The structural schema of the JSON form of a Schema.
 *
 * @throws an error with the path where the Schema has no structural form, such as a union of objects: a mistake in the
 * definition, which only the program that generates CRDs can meet
 */
export const structuralSchema = (schema: Schema.Top): JsonSchemaProps => {
  const document = Schema.toJsonSchemaDocument(schema, { includeAnnotationKey: isExtension })
  const resolve = (node: unknown, path: string, within: ReadonlyArray<string>): JsonSchemaProps => {
    if (!isRecord(node)) {
      throw notStructural(path, "the schema is not an object")
    }
    if (typeof node.$ref === "string") {
      const name = node.$ref.slice(node.$ref.lastIndexOf("/") + 1)
      if (within.includes(name)) {
        throw notStructural(path, `${name} contains itself`)
      }
      const { $ref: _, ...siblings } = node
      return { ...resolve(document.definitions[name], path, [...within, name]), ...siblings }
    }
    return convert(node, path, (child, at) => resolve(child, at, within))
  }
  return resolve(document.schema, "", [])
}

type Resolve = (node: unknown, path: string) => JsonSchemaProps

const convert = (node: { readonly [key: string]: unknown }, path: string, resolve: Resolve): JsonSchemaProps => {
  const { anyOf, oneOf, ...rest } = node
  const alternatives = anyOf ?? oneOf
  if (Array.isArray(alternatives)) {
    return { ...convertUnion(alternatives, path, resolve), ...annotationsOf(rest) }
  }
  const result: Record<string, unknown> = {}
  for (const [keyword, value] of Object.entries(node)) {
    if (sharedKeywords.has(keyword) || isExtension(keyword)) {
      result[keyword] = value
    } else {
      Object.assign(result, convertKeyword(keyword, value, path, resolve))
    }
  }
  return normalize(result)
}

const annotationsOf = (node: { readonly [key: string]: unknown }): JsonSchemaProps =>
  Object.fromEntries(
    Object.entries(node).filter(([keyword]) =>
      keyword === "description" || keyword === "title" || keyword === "default" || isExtension(keyword)
    )
  )

/** How Effect writes the numbers that JSON has no form for; an API server can't get them anyway. */
const isNonFinite = (node: unknown): boolean =>
  isRecord(node) && Array.isArray(node.enum) &&
  node.enum.every((value) => value === "Infinity" || value === "-Infinity" || value === "NaN")

const isNull = (node: unknown): boolean => isRecord(node) && node.type === "null"

/** Of the unions there are two in structural schemas: with null, and of integer and string. */
const convertUnion = (alternatives: ReadonlyArray<unknown>, path: string, resolve: Resolve): JsonSchemaProps => {
  const nullable = alternatives.some(isNull) ? { nullable: true } : {}
  const values = alternatives.filter((one) => !isNull(one) && !isNonFinite(one)).map((one) => resolve(one, path))
  const [first, second] = values
  if (first !== undefined && second === undefined) {
    return { ...first, ...nullable }
  }
  if (values.length === 2 && [first?.type, second?.type].toSorted().join() === "integer,string") {
    return { "x-kubernetes-int-or-string": true, ...nullable }
  }
  throw notStructural(path, "a union of these types can't be expressed")
}

const convertKeyword = (keyword: string, value: unknown, path: string, resolve: Resolve): JsonSchemaProps => {
  switch (keyword) {
    case "properties":
      return {
        properties: Object.fromEntries(
          Object.entries(isRecord(value) ? value : {}).map(([name, child]) => [name, resolve(child, `${path}.${name}`)])
        )
      }
    case "items":
      return { items: resolve(value, `${path}[]`) }
    case "required":
      return Array.isArray(value) && value.length > 0 ? { required: value } : {}
    case "additionalProperties":
      return isRecord(value) && Object.keys(value).length > 0
        ? { additionalProperties: resolve(value, `${path}[*]`) }
        : {}
    // Checking all pairs of a list is refused by API servers; a list that is a set may only hold scalars.
    case "uniqueItems":
      return value === true ? { "x-kubernetes-list-type": "set" } : {}
    case "exclusiveMinimum":
      return { minimum: value, exclusiveMinimum: true }
    case "exclusiveMaximum":
      return { maximum: value, exclusiveMaximum: true }
    // Several checks of one value, of which each only adds keywords.
    case "allOf":
      return Object.assign({}, ...(Array.isArray(value) ? value : []).map((part) => convert(part, path, resolve)))
    // Examples and identifiers are of no use to an API server.
    case "examples":
    case "$id":
      return {}
    default:
      throw notStructural(path, `the keyword ${keyword} can't be expressed`)
  }
}

/** Says what JSON Schema leaves open, and nothing that goes without saying. */
const normalize = (node: Record<string, unknown>): JsonSchemaProps => {
  const { maximum, minimum, ...rest } = node
  const bounds = {
    ...(minimum === undefined || minimum === Number.MIN_SAFE_INTEGER ? {} : { minimum }),
    ...(maximum === undefined || maximum === Number.MAX_SAFE_INTEGER ? {} : { maximum })
  }
  const isOpen = rest.type === undefined ||
    (rest.type === "object" && rest.additionalProperties === undefined &&
      (!isRecord(rest.properties) || Object.keys(rest.properties).length === 0))
  return {
    ...rest,
    ...bounds,
    ...(rest.type === "integer" && rest.format === undefined ? { format: "int64" } : {}),
    ...(isOpen ? { "x-kubernetes-preserve-unknown-fields": true } : {})
  }
}

/** The definition of a custom resource. */
export const make = (options: CrdOptions): Draft<CustomResourceDefinition> => ({
  apiVersion: apiVersion(CustomResourceDefinitionKind),
  kind: CustomResourceDefinitionKind.kind,
  metadata: { name: `${options.plural}.${options.group}` },
  spec: {
    group: options.group,
    scope: options.scope ?? "Namespaced",
    names: {
      kind: options.kind,
      listKind: `${options.kind}List`,
      plural: options.plural,
      singular: options.kind.toLowerCase(),
      ...(options.shortNames === undefined ? {} : { shortNames: options.shortNames })
    },
    versions: [{
      name: options.version,
      served: true,
      storage: true,
      ...(options.printerColumns === undefined ? {} : { additionalPrinterColumns: options.printerColumns }),
      schema: {
        openAPIV3Schema: {
          type: "object",
          description: options.description,
          required: ["spec"],
          properties: {
            apiVersion: { type: "string" },
            kind: { type: "string" },
            metadata: { type: "object" },
            spec: structuralSchema(options.spec),
            ...(options.status === undefined ? {} : { status: structuralSchema(options.status) })
          }
        }
      },
      subresources: {
        ...(options.status === undefined ? {} : { status: {} }),
        ...(options.scale === undefined ? {} : { scale: options.scale })
      }
    }]
  }
})
