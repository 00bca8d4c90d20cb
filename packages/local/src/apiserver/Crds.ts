/**
 * CustomResourceDefinitions: which are acceptable, what the server says about them in their status, and the resources
 * that they define.
 */
import * as Result from "effect/Result"
import * as ApiStatus from "./ApiStatus.ts"
import type { FieldError } from "./ApiStatus.ts"
import { ageColumn, nameColumn } from "./BuiltInColumns.ts"
import { metadataSchema } from "./BuiltIns.ts"
import { syntaxProblem } from "./Cel.ts"
import { age } from "./Duration.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as JsonPath from "./JsonPath.ts"
import * as Names from "./Names.ts"
import { type Column, keyOf, type ResourceType, type ScalePaths } from "./ResourceType.ts"
import * as Structural from "./Schema/Structural.ts"

/** Where definitions are stored. */
export const crdKey = keyOf("apiextensions.k8s.io", "customresourcedefinitions")

/** Keeps a definition until all its objects are gone. */
export const crdFinalizer = "customresourcecleanup.apiextensions.k8s.io"

const versionsOf = (crd: JsonObject): ReadonlyArray<JsonObject> =>
  Json.arrayAt(crd, "spec", "versions").filter((version) => Json.isObject(version))

const text = (value: Json.Json | undefined, ...path: ReadonlyArray<string>): string =>
  Json.stringAt(value, ...path) ?? ""

const schemaErrors = (schema: Json.Json, path: string, errors: Array<FieldError>): void => {
  if (!Json.isObject(schema)) return
  const type = Json.stringAt(schema, "type")
  const untyped = Json.own(schema, "x-kubernetes-int-or-string") === true ||
    Json.own(schema, "x-kubernetes-preserve-unknown-fields") === true
  if (type === undefined && !untyped) {
    errors.push(ApiStatus.required(Json.child(path, "type"), "must not be empty for specified object fields"))
  } else if (type !== undefined && !["object", "array", "string", "integer", "number", "boolean"].includes(type)) {
    errors.push(ApiStatus.notSupported(Json.child(path, "type"), type, [
      "array",
      "boolean",
      "integer",
      "number",
      "object",
      "string"
    ]))
  }
  if (Json.own(schema, "uniqueItems") === true) {
    errors.push(ApiStatus.forbiddenField(
      Json.child(path, "uniqueItems"),
      "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
    ))
  }
  if (
    Json.own(schema, "additionalProperties") !== undefined &&
    Object.keys(Json.objectAt(schema, "properties")).length > 0
  ) {
    errors.push(ApiStatus.forbiddenField(
      Json.child(path, "additionalProperties"),
      "additionalProperties and properties are mutual exclusive"
    ))
  }
  if (type === "array" && Json.own(schema, "items") === undefined) {
    errors.push(ApiStatus.required(Json.child(path, "items"), "must be specified"))
  }
  const pattern = Json.stringAt(schema, "pattern")
  if (pattern !== undefined && !isPattern(pattern)) {
    errors.push(ApiStatus.invalidValue(Json.child(path, "pattern"), pattern, "must be a valid regular expression"))
  }
  if (Json.stringAt(schema, "x-kubernetes-list-type") === "map") {
    const keys = Json.arrayAt(schema, "x-kubernetes-list-map-keys")
    if (keys.length === 0) {
      errors.push(ApiStatus.required(
        Json.child(path, "x-kubernetes-list-map-keys"),
        "must not be empty if x-kubernetes-list-type is map"
      ))
    }
    keys.forEach((key, index) => {
      if (typeof key === "string" && Json.at(schema, "items", "properties", key) === undefined) {
        errors.push(ApiStatus.invalidValue(
          Json.item(Json.child(path, "x-kubernetes-list-map-keys"), index),
          key,
          "must be the name of a property of the item schema"
        ))
      }
    })
  }
  Json.arrayAt(schema, "x-kubernetes-validations").forEach((rule, index) => {
    const at = Json.item(Json.child(path, "x-kubernetes-validations"), index)
    const expression = text(rule, "rule")
    if (expression === "") errors.push(ApiStatus.required(Json.child(at, "rule"), "rule is not specified"))
    else {
      const problem = syntaxProblem(expression)
      if (problem !== undefined) {
        errors.push(ApiStatus.invalidValue(Json.child(at, "rule"), expression, `compilation failed: ${problem}`))
      }
    }
    const message = Json.stringAt(rule, "messageExpression")
    const problem = message === undefined ? undefined : syntaxProblem(message)
    if (problem !== undefined) {
      errors.push(ApiStatus.invalidValue(
        Json.child(at, "messageExpression"),
        message,
        `messageExpression compilation failed: ${problem}`
      ))
    }
  })
  for (const [name, property] of Object.entries(Json.objectAt(schema, "properties"))) {
    schemaErrors(property, Json.keyed(Json.child(path, "properties"), name), errors)
  }
  const items = Json.own(schema, "items")
  if (items !== undefined) schemaErrors(items, Json.child(path, "items"), errors)
  const additional = Json.own(schema, "additionalProperties")
  if (additional !== undefined) schemaErrors(additional, Json.child(path, "additionalProperties"), errors)
}

const isPattern = (source: string): boolean => Result.isSuccess(Result.try(() => new RegExp(source)))

/** Everything about a definition that is not acceptable. */
export const validateCrd = (crd: JsonObject): ReadonlyArray<FieldError> => {
  const errors: Array<FieldError> = []
  const spec = Json.objectAt(crd, "spec")
  const group = text(spec, "group")
  const plural = text(spec, "names", "plural")
  const expected = `${plural}.${group}`
  const name = text(crd, "metadata", "name")
  if (name !== expected) {
    errors.push(ApiStatus.invalidValue("metadata.name", name, `must be spec.names.plural+"."+spec.group`))
  }
  if (group === "") errors.push(ApiStatus.required("spec.group"))
  else if (!group.includes(".")) {
    errors.push(ApiStatus.invalidValue("spec.group", group, "should be a domain with at least one dot"))
  }
  for (const field of ["plural", "kind"]) {
    if (text(spec, "names", field) === "") errors.push(ApiStatus.required(`spec.names.${field}`))
  }
  if (plural !== "" && Names.labelProblems(plural).length > 0) {
    errors.push(ApiStatus.invalidValue("spec.names.plural", plural, Names.labelProblems(plural).join("; ")))
  }
  const scope = text(spec, "scope")
  if (scope === "") errors.push(ApiStatus.required("spec.scope"))
  else if (scope !== "Namespaced" && scope !== "Cluster") {
    errors.push(ApiStatus.notSupported("spec.scope", scope, ["Cluster", "Namespaced"]))
  }
  const versions = versionsOf(crd)
  if (versions.length === 0) errors.push(ApiStatus.required("spec.versions", "must have at least one version"))
  if (versions.filter((version) => Json.own(version, "storage") === true).length !== 1) {
    errors.push(ApiStatus.invalidValue(
      "spec.versions",
      versions.map((version) => text(version, "name")),
      "must have exactly one version marked as storage version"
    ))
  }
  const seen = new Set<string>()
  versions.forEach((version, index) => {
    const path = Json.item("spec.versions", index)
    const versionName = text(version, "name")
    if (seen.has(versionName)) {
      errors.push(ApiStatus.invalidValue(path, versionName, "must contain unique version names"))
    }
    seen.add(versionName)
    const schema = Json.at(version, "schema", "openAPIV3Schema")
    const at = `${path}.schema.openAPIV3Schema`
    if (schema === undefined) {
      errors.push(ApiStatus.required(at, "schemas are required"))
      return
    }
    if (Json.stringAt(schema, "type") !== "object") {
      errors.push(ApiStatus.invalidValue(`${at}.type`, Json.at(schema, "type"), "must be object at the root"))
    }
    schemaErrors(schema, at, errors)
  })
  return errors
}

/** Fields of a definition that no update may change. */
export const validateCrdUpdate = (crd: JsonObject, previous: JsonObject): ReadonlyArray<FieldError> =>
  [["spec", "group"], ["spec", "names", "plural"], ["spec", "names", "kind"], ["spec", "scope"]].flatMap((path) =>
    Json.equal(Json.at(crd, ...path), Json.at(previous, ...path))
      ? []
      : [ApiStatus.invalidValue(path.join("."), Json.at(crd, ...path), "field is immutable")]
  )

/** Fills in the names that a definition may leave out. */
export const defaultCrd = (crd: JsonObject): JsonObject => {
  const names = Json.objectAt(crd, "spec", "names")
  const kind = text(names, "kind")
  const filled: JsonObject = {
    ...names,
    listKind: text(names, "listKind") === "" ? `${kind}List` : text(names, "listKind"),
    singular: text(names, "singular") === "" ? kind.toLowerCase() : text(names, "singular")
  }
  const spec: JsonObject = {
    conversion: { strategy: "None" },
    ...Json.objectAt(crd, "spec"),
    names: filled
  }
  return { ...crd, spec }
}

/** The status of a definition that is accepted and served; what an earlier status says about time and versions stays. */
export const establishedStatus = (crd: JsonObject, previous: JsonObject | undefined, time: string): JsonObject => {
  const storage = versionsOf(crd).find((version) => Json.own(version, "storage") === true)
  const before = Json.arrayAt(previous, "status", "storedVersions")
  const name = text(storage, "name")
  const kept = Json.arrayAt(previous, "status", "conditions")
  const condition = (type: string, reason: string, message: string): Json.Json =>
    kept.find((entry) => Json.stringAt(entry, "type") === type && Json.stringAt(entry, "status") === "True") ??
      { type, status: "True", lastTransitionTime: time, reason, message }
  return {
    conditions: [
      condition("NamesAccepted", "NoConflicts", "no conflicts found"),
      condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
      ...kept.filter((entry) => Json.stringAt(entry, "type") === "Terminating")
    ],
    acceptedNames: Json.objectAt(crd, "spec", "names"),
    storedVersions: before.includes(name) ? before : [...before, name]
  }
}

const cellOf = (path: JsonPath.JsonPath, type: string): Column["cell"] => (object, now) => {
  const found = JsonPath.evaluate(path, object)
  const first = found[0]
  if (first === undefined || first === null) return null
  switch (type) {
    case "date":
      return typeof first === "string" ? age(first, now) : null
    case "integer":
      return typeof first === "number" ? Math.trunc(first) : null
    case "number":
      return typeof first === "number" ? first : null
    case "boolean":
      return typeof first === "boolean" ? first : null
    default:
      return found.map((value) => typeof value === "string" ? value : JSON.stringify(value)).join(",")
  }
}

const columnsOf = (version: JsonObject): ReadonlyArray<Column> => {
  const declared = Json.arrayAt(version, "additionalPrinterColumns").flatMap((entry): ReadonlyArray<Column> => {
    const path = JsonPath.compile(text(entry, "jsonPath"))
    const type = text(entry, "type")
    return path === undefined ? [] : [{
      name: text(entry, "name"),
      type,
      format: text(entry, "format"),
      description: text(entry, "description"),
      priority: Json.numberAt(entry, "priority") ?? 0,
      cell: cellOf(path, type)
    }]
  })
  return declared.length === 0 ? [nameColumn, ageColumn] : [nameColumn, ...declared]
}

const scaleOf = (version: JsonObject): ScalePaths | undefined => {
  const scale = Json.at(version, "subresources", "scale")
  if (scale === undefined) return undefined
  const spec = JsonPath.plainFields(text(scale, "specReplicasPath"))
  const status = JsonPath.plainFields(text(scale, "statusReplicasPath"))
  if (spec === undefined || status === undefined) return undefined
  return { spec, status, selector: JsonPath.plainFields(text(scale, "labelSelectorPath")) }
}

const rootSchema = (version: JsonObject): Structural.StructuralSchema => {
  const compiled = Structural.compile(Json.objectAt(version, "schema", "openAPIV3Schema"))
  const anyString = Structural.compile({ type: "string" })
  const metadata = metadataSchema()
  return {
    ...compiled,
    embedded: true,
    properties: new Map([
      ["apiVersion", anyString],
      ["kind", anyString],
      ...[...compiled.properties].filter(([key]) => key !== "apiVersion" && key !== "kind" && key !== "metadata"),
      ["metadata", { ...metadata, hasRules: false, rules: [] }]
    ])
  }
}

/** The served versions of a definition as resources. */
export const definedTypes = (crd: JsonObject): ReadonlyArray<ResourceType> => {
  const spec = Json.objectAt(crd, "spec")
  const names = Json.objectAt(spec, "names")
  const group = text(spec, "group")
  const plural = text(names, "plural")
  const versions = versionsOf(crd)
  const storageVersion = text(versions.find((version) => Json.own(version, "storage") === true), "name")
  const strings = (key: string) => Json.arrayAt(names, key).filter((value) => typeof value === "string")
  return versions.filter((version) => Json.own(version, "served") === true).map((version): ResourceType => ({
    group,
    version: text(version, "name"),
    kind: text(names, "kind"),
    listKind: text(names, "listKind"),
    plural,
    singular: text(names, "singular"),
    shortNames: strings("shortNames"),
    categories: strings("categories"),
    namespaced: text(spec, "scope") === "Namespaced",
    key: `${plural}.${group}`,
    storageVersion,
    schema: rootSchema(version),
    status: Json.at(version, "subresources", "status") !== undefined,
    scale: scaleOf(version),
    columns: columnsOf(version),
    selectableFields: new Map(
      Json.arrayAt(version, "selectableFields").flatMap((entry) => {
        const fields = JsonPath.plainFields(text(entry, "jsonPath"))
        if (fields === undefined) return []
        return [[fields.join("."), (object: JsonObject) => {
          const value = Json.at(object, ...fields)
          return value === undefined || value === null ? "" : String(value)
        }]]
      })
    ),
    custom: true,
    virtual: false,
    deprecation: Json.own(version, "deprecated") === true
      ? Json.stringAt(version, "deprecationWarning") ??
        `${group}/${text(version, "name")} ${text(names, "kind")} is deprecated`
      : undefined
  }))
}
