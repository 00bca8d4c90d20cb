/**
 * What the server knows about one resource in one version: its names, scope, schema, subresources and how it is printed.
 * Built-in kinds and those of CustomResourceDefinitions look the same from here on.
 */
import type { Json, JsonObject } from "./Json.ts"
import type { StructuralSchema } from "./Schema/Structural.ts"

/** The paths that a scale subresource reads and writes, as JSON paths without the leading dot, split. */
export interface ScalePaths {
  readonly spec: ReadonlyArray<string>
  readonly status: ReadonlyArray<string>
  readonly selector: ReadonlyArray<string> | undefined
}

/** A column of the server-side table. */
export interface Column {
  readonly name: string
  readonly type: string
  readonly format: string
  readonly description: string
  readonly priority: number
  readonly cell: (object: JsonObject, nowMillis: number) => Json
}

/** A served resource. */
export interface ResourceType {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly listKind: string
  readonly plural: string
  readonly singular: string
  readonly shortNames: ReadonlyArray<string>
  readonly categories: ReadonlyArray<string>
  readonly namespaced: boolean
  /** Where objects of this resource are stored: all versions of a resource share it. */
  readonly key: string
  /** The version in which objects are stored. */
  readonly storageVersion: string
  readonly schema: StructuralSchema
  readonly status: boolean
  readonly scale: ScalePaths | undefined
  readonly columns: ReadonlyArray<Column>
  /** Field selectors beyond metadata.name and metadata.namespace, with how each is read. */
  readonly selectableFields: ReadonlyMap<string, (object: JsonObject) => string>
  /** Defined by a CustomResourceDefinition. */
  readonly custom: boolean
  /** Reviews are answered, never stored. */
  readonly virtual: boolean
  /** A deprecated version names what to use instead in a warning. */
  readonly deprecation: string | undefined
}

/** `v1` or `group/version`. */
export const groupVersion = (group: string, version: string): string => group === "" ? version : `${group}/${version}`

/** The apiVersion of a resource's objects. */
export const apiVersionOf = (type: ResourceType): string => groupVersion(type.group, type.version)

/** The storage key of a resource. */
export const keyOf = (group: string, plural: string): string => group === "" ? plural : `${plural}.${group}`

/** The verbs that discovery tells. */
export const verbsOf = (type: ResourceType): ReadonlyArray<string> =>
  type.virtual
    ? ["create"]
    : ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
