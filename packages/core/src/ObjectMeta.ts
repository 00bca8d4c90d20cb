/**
 * The part of Kubernetes object metadata that Fast Sandbox reads or writes. Decoding keeps what is not named here, so
 * that an object that is read and written back loses nothing.
 */
import * as Schema from "effect/Schema"

/** An instant as Kubernetes writes it (RFC 3339). Kept as text, so that nothing is lost when it is written back. */
export const Timestamp = Schema.String.annotate({ format: "date-time" })

/** `metadata.ownerReferences[]` */
export const OwnerReference = Schema.Struct({
  apiVersion: Schema.String,
  kind: Schema.String,
  name: Schema.String,
  uid: Schema.String,
  controller: Schema.optionalKey(Schema.Boolean),
  blockOwnerDeletion: Schema.optionalKey(Schema.Boolean)
})

/** `metadata.ownerReferences[]` */
export type OwnerReference = typeof OwnerReference.Type

/** `metadata` of an object that was read from, or is to be written to, the Kubernetes API. */
export const ObjectMeta = Schema.Struct({
  name: Schema.optionalKey(Schema.String),
  generateName: Schema.optionalKey(Schema.String),
  namespace: Schema.optionalKey(Schema.String),
  uid: Schema.optionalKey(Schema.String),
  resourceVersion: Schema.optionalKey(Schema.String),
  generation: Schema.optionalKey(Schema.Int),
  creationTimestamp: Schema.optionalKey(Schema.NullOr(Timestamp)),
  deletionTimestamp: Schema.optionalKey(Timestamp),
  deletionGracePeriodSeconds: Schema.optionalKey(Schema.Int),
  labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  annotations: Schema.optionalKey(Schema.Record(Schema.String, Schema.String)),
  finalizers: Schema.optionalKey(Schema.Array(Schema.String)),
  ownerReferences: Schema.optionalKey(Schema.Array(OwnerReference))
})

/** `metadata` of a Kubernetes object. */
export type ObjectMeta = typeof ObjectMeta.Type

/** `status.conditions[]` as every controller writes it. */
export const Condition = Schema.Struct({
  type: Schema.String.annotate({ description: "What the condition speaks of, in CamelCase." }),
  status: Schema.Literals(["True", "False", "Unknown"]),
  observedGeneration: Schema.optionalKey(Schema.Int),
  lastTransitionTime: Timestamp.annotate({ description: "When the status last changed." }),
  reason: Schema.String.annotate({ description: "Why, in one CamelCase word that programs may compare." }),
  message: Schema.String.annotate({ description: "Why, for a person." })
})

/** `status.conditions[]` */
export type Condition = typeof Condition.Type

/** What a condition says, without when it began to say so. */
export interface ConditionUpdate {
  readonly type: string
  readonly status: Condition["status"]
  readonly reason: string
  readonly message: string
  readonly observedGeneration?: number | undefined
}

/**
 * The conditions with one of them set. `lastTransitionTime` moves only when the status changes, and the same array is
 * given back when nothing changes, so that a reconcile that finds nothing to do writes nothing.
 */
export const setCondition = (
  conditions: ReadonlyArray<Condition>,
  update: ConditionUpdate,
  now: string
): ReadonlyArray<Condition> => {
  const at = conditions.findIndex((condition) => condition.type === update.type)
  const old = at === -1 ? undefined : conditions[at]
  if (
    old !== undefined && old.status === update.status && old.reason === update.reason &&
    old.message === update.message && old.observedGeneration === update.observedGeneration
  ) {
    return conditions
  }
  const next: Condition = {
    type: update.type,
    status: update.status,
    ...(update.observedGeneration === undefined ? {} : { observedGeneration: update.observedGeneration }),
    lastTransitionTime: old !== undefined && old.status === update.status ? old.lastTransitionTime : now,
    reason: update.reason,
    message: update.message
  }
  return old === undefined ? [...conditions, next] : conditions.with(at, next)
}
