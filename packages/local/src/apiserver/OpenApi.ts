/**
 * OpenAPI documents: schemas and operations of what is served, enough for kubectl's explain, apply and validation.
 */
import { createHash } from "node:crypto"
import { modelDefinitions, modelOf } from "./BuiltIns.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import type { ResourceType } from "./ResourceType.ts"

const schemaName = (type: ResourceType): string =>
  `${type.group.split(".").toReversed().join(".")}.${type.version}.${type.kind}`

const modelName = (model: string): string => `io.k8s.api.${model}`

/** Rewrites references to models, and a reference beside other keys into `allOf`, where it may have neighbours. */
const rewritten = (value: Json.Json, prefix: string): Json.Json => {
  if (Json.isArray(value)) return value.map((entry) => rewritten(entry, prefix))
  if (!Json.isObject(value)) return value
  const reference = Json.stringAt(value, "$ref")
  if (reference !== undefined) {
    const target = { $ref: `${prefix}${modelName(reference.replace("#/definitions/", ""))}` }
    const rest = Json.omit(value, "$ref")
    return Object.keys(rest).length === 0 ? target : { ...rest, allOf: [target] }
  }
  if (Json.own(value, "x-fast-sandbox-quantity") === true) {
    return { description: Json.own(value, "description") ?? "", oneOf: [{ type: "string" }, { type: "number" }] }
  }
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, rewritten(entry, prefix)]))
}

const kindOf = (type: ResourceType): JsonObject => ({ group: type.group, version: type.version, kind: type.kind })

const schemasOf = (type: ResourceType, prefix: string): ReadonlyMap<string, JsonObject> => {
  const found = new Map<string, JsonObject>()
  const add = (name: string, schema: Json.Json) => found.set(name, Json.isObject(schema) ? schema : {})
  const model = type.custom ? undefined : modelOf(type.group, type.kind)
  const base = model ?? "V1ObjectMeta"
  for (const [name, definition] of modelDefinitions(base)) add(modelName(name), rewritten(definition, prefix))
  const extension = { "x-kubernetes-group-version-kind": [kindOf(type)] }
  if (model !== undefined) {
    add(modelName(model), { ...found.get(modelName(model)), ...extension })
    return found
  }
  const source = type.schema.source
  add(schemaName(type), {
    ...source,
    properties: {
      ...Json.objectAt(source, "properties"),
      apiVersion: {
        type: "string",
        description: "APIVersion defines the versioned schema of this representation of an object."
      },
      kind: {
        type: "string",
        description: "Kind is a string value representing the REST resource this object represents."
      },
      metadata: {
        description: "Standard object's metadata.",
        allOf: [{ $ref: `${prefix}${modelName("V1ObjectMeta")}` }]
      }
    },
    ...extension
  })
  return found
}

const parameter = (name: string, place: "query" | "path", type = "string"): JsonObject => ({
  name,
  in: place,
  ...(place === "path" ? { required: true } : {}),
  schema: { type }
})

const writeParameters = ["dryRun", "fieldManager", "fieldValidation"].map((name) => parameter(name, "query"))

const operation = (
  type: ResourceType,
  action: string,
  prefix: string,
  parameters: ReadonlyArray<Json.Json>
): JsonObject => {
  const model = type.custom ? undefined : modelOf(type.group, type.kind)
  const schema = { $ref: `${prefix}${model === undefined ? schemaName(type) : modelName(model)}` }
  return {
    operationId: `${action}${type.group.replaceAll(/[^a-zA-Z0-9]/g, "")}${type.version}${type.kind}`,
    "x-kubernetes-action": action,
    "x-kubernetes-group-version-kind": kindOf(type),
    parameters,
    responses: { "200": { description: "OK", content: { "application/json": { schema } } } }
  }
}

const pathsOf = (type: ResourceType, prefix: string): JsonObject => {
  const base = type.group === "" ? `/api/${type.version}` : `/apis/${type.group}/${type.version}`
  const collection = `${base}${type.namespaced ? "/namespaces/{namespace}" : ""}/${type.plural}`
  const scope = type.namespaced ? [parameter("namespace", "path")] : []
  const post = operation(type, "post", prefix, writeParameters)
  if (type.virtual) return { [collection]: { parameters: scope, post } }
  const item = {
    parameters: [...scope, parameter("name", "path")],
    get: operation(type, "get", prefix, []),
    put: operation(type, "put", prefix, writeParameters),
    patch: operation(type, "patch", prefix, [...writeParameters, parameter("force", "query", "boolean")]),
    delete: operation(type, "delete", prefix, [])
  }
  return {
    [collection]: { parameters: scope, get: operation(type, "list", prefix, []), post },
    [`${collection}/{name}`]: item,
    ...(type.status ? { [`${collection}/{name}/status`]: item } : {})
  }
}

/** The path of a group version's document below `/openapi/v3/`. */
export const pathOf = (group: string, version: string): string =>
  group === "" ? `api/${version}` : `apis/${group}/${version}`

/** The OpenAPI v3 document of a group version; `undefined` if nothing is served there. */
export const document = (
  types: ReadonlyArray<ResourceType>,
  group: string,
  version: string
): JsonObject | undefined => {
  const served = types.filter((type) => type.group === group && type.version === version)
  if (served.length === 0) return undefined
  const prefix = "#/components/schemas/"
  const schemas = new Map<string, JsonObject>()
  // A type's own entry carries its kind, so it must not be overwritten by a plain reference from another type.
  for (const type of served) {
    for (const [name, schema] of schemasOf(type, prefix)) {
      if (!schemas.has(name) || Object.hasOwn(schema, "x-kubernetes-group-version-kind")) schemas.set(name, schema)
    }
  }
  return {
    openapi: "3.0.0",
    info: { title: "Kubernetes", version: "v1.35.0" },
    paths: Object.assign({}, ...served.map((type) => pathsOf(type, prefix))),
    components: { schemas: Object.fromEntries(schemas) }
  }
}

/** `/openapi/v3`: where the documents are, each with a tag that changes with what is served. */
export const index = (types: ReadonlyArray<ResourceType>): JsonObject => {
  const paths = new Map<string, JsonObject>()
  for (const type of types) {
    const path = pathOf(type.group, type.version)
    if (paths.has(path)) continue
    const served = types.filter((other) => other.group === type.group && other.version === type.version)
    const tag = createHash("sha256").update(
      JSON.stringify(served.map((other) => other.custom ? other.schema.source : other.kind))
    )
      .digest("hex").slice(0, 32).toUpperCase()
    paths.set(path, { serverRelativeURL: `/openapi/v3/${path}?hash=${tag}` })
  }
  return { paths: Object.fromEntries(paths) }
}

/** The whole as one Swagger 2.0 document. */
export const swagger = (types: ReadonlyArray<ResourceType>): JsonObject => {
  const prefix = "#/definitions/"
  const definitions = new Map<string, JsonObject>()
  for (const type of types) {
    for (const [name, schema] of schemasOf(type, prefix)) {
      if (!definitions.has(name) || Object.hasOwn(schema, "x-kubernetes-group-version-kind")) {
        definitions.set(name, schema)
      }
    }
  }
  return {
    swagger: "2.0",
    info: { title: "Kubernetes", version: "v1.35.0" },
    paths: Object.assign({}, ...types.map((type) => pathsOf(type, prefix))),
    definitions: Object.fromEntries(definitions)
  }
}
