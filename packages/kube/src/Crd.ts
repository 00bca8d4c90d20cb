/**
 * From an Effect Schema to a CustomResourceDefinition: the structural OpenAPI v3 schema that an API server enforces.
 */
import type * as Schema from "effect/Schema"
import type { CustomResourceDefinition, JsonSchemaProps, PrinterColumn } from "./Kinds.ts"
import type { Draft } from "./KubeObject.ts"

/** What a CRD says beside its schema. */
export interface CrdOptions {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly shortNames?: ReadonlyArray<string> | undefined
  readonly scope?: "Namespaced" | "Cluster" | undefined
  readonly spec: Schema.Top
  readonly status?: Schema.Top | undefined
  readonly printerColumns?: ReadonlyArray<PrinterColumn> | undefined
  readonly scale?: {
    readonly specReplicasPath: string
    readonly statusReplicasPath: string
    readonly labelSelectorPath?: string | undefined
  } | undefined
}

/** The structural schema of the JSON form of a Schema. */
export declare const structuralSchema: (schema: Schema.Top) => JsonSchemaProps

/** The definition of a custom resource. With `status` it has a status subresource. */
export declare const make: (options: CrdOptions) => Draft<CustomResourceDefinition>
