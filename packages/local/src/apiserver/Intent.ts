/**
 * A request as the verbs see it: what it is about, and how it wants to be carried out.
 */
import type * as Result from "effect/Result"
import type { FieldValidation } from "./Admission.ts"
import type { ApiStatus } from "./ApiStatus.ts"
import type { ResourceType } from "./ResourceType.ts"

/** What a step of a request gives, or how the request is refused. */
export type Outcome<A> = Result.Result<A, ApiStatus>

/** What a request is about and how it wants to be carried out. */
export interface Intent {
  readonly type: ResourceType
  /** Empty for cluster-scoped kinds. */
  readonly namespace: string
  readonly subresource: "" | "status" | "scale" | "finalize"
  readonly dryRun: boolean
  readonly fieldManager: string
  readonly fieldValidation: FieldValidation
  readonly nowMillis: number
  readonly warn: (text: string) => void
}

/** What a patch is written in. */
export type PatchKind = "Json" | "Merge" | "StrategicMerge" | "Apply"

/** Options of a delete. */
export interface DeleteOptions {
  readonly gracePeriodSeconds?: number | undefined
  readonly uid?: string | undefined
  readonly resourceVersion?: string | undefined
  readonly propagation?: "Background" | "Foreground" | "Orphan" | undefined
}
