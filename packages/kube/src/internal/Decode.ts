/**
 * From JSON to objects of a kind.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import { MalformedResponse } from "../KubeError.ts"
import { apiVersion, keyOf, type KubeKind, type KubeObject } from "../KubeObject.ts"

/** Kinds without a schema are taken at the server's word, which has checked what it stores. */
const isOfKind = <A extends KubeObject>(_kind: KubeKind<A>, value: unknown): value is A =>
  Predicate.hasProperty(value, "metadata") && Predicate.isObject(value.metadata)

/**
 * One object as the server sent it. Items of lists lack the names of their kind, which are put back so that every
 * object says what it is.
 */
export const decodeObject = <A extends KubeObject>(
  kind: KubeKind<A>,
  value: unknown
): Effect.Effect<A, MalformedResponse> => {
  const named: unknown = Predicate.isObject(value) && !("kind" in value && "apiVersion" in value)
    ? { apiVersion: apiVersion(kind), kind: kind.kind, ...value }
    : value
  return isOfKind(kind, named)
    ? checkSchema(kind, named)
    : Effect.fail(new MalformedResponse({ problem: "the answer is not an object with metadata" }))
}

/** The object itself if it fits the schema of its kind: decoding would drop what the schema does not name. */
export const checkSchema = <A extends KubeObject>(
  kind: KubeKind<A>,
  object: A
): Effect.Effect<A, MalformedResponse> => {
  if (kind.schema === undefined) {
    return Effect.succeed(object)
  }
  const { name = "", namespace } = object.metadata
  return Schema.decodeUnknownEffect(kind.schema)(object).pipe(
    Effect.as(object),
    Effect.mapError((error) =>
      new MalformedResponse({ problem: `${keyOf({ name, namespace })} does not fit its schema: ${error.message}` })
    )
  )
}
