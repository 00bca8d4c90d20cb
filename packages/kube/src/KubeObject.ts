/**
 * What all Kubernetes objects have in common, and how a kind of object is named to the API. Objects are the server's
 * own JSON values: the types name the fields that are used here, and what they do not name is still there at run time
 * and is written back untouched.
 */
import type * as Schema from "effect/Schema"

/** A pointer from an object to the object that owns it; the garbage collector deletes it after its owners. */
export interface OwnerReference {
  readonly apiVersion: string
  readonly kind: string
  readonly name: string
  readonly uid: string
  readonly controller?: boolean | undefined
  readonly blockOwnerDeletion?: boolean | undefined
}

/** The metadata of an object, as far as a client may write it. Time stamps are RFC 3339 in UTC. */
export interface ObjectMeta {
  readonly name?: string | undefined
  readonly generateName?: string | undefined
  readonly namespace?: string | undefined
  readonly labels?: { readonly [key: string]: string } | undefined
  readonly annotations?: { readonly [key: string]: string } | undefined
  readonly ownerReferences?: ReadonlyArray<OwnerReference> | undefined
  readonly finalizers?: ReadonlyArray<string> | undefined
  readonly uid?: string | undefined
  readonly resourceVersion?: string | undefined
  readonly generation?: number | undefined
  readonly creationTimestamp?: string | null | undefined
  readonly deletionTimestamp?: string | undefined
  readonly deletionGracePeriodSeconds?: number | undefined
}

/** The metadata of an object that the server has stored. */
export interface StoredMeta extends ObjectMeta {
  readonly name: string
  readonly uid: string
  readonly resourceVersion: string
  readonly creationTimestamp: string
}

/** The least that is known of an object of any kind. */
export interface KubeObject {
  readonly apiVersion?: string | undefined
  readonly kind?: string | undefined
  readonly metadata: ObjectMeta
}

/** An object before the server has seen it: it may lack what the server fills in. */
export type Draft<A extends KubeObject> = Omit<A, "apiVersion" | "kind" | "metadata" | "status"> & {
  readonly apiVersion?: string | undefined
  readonly kind?: string | undefined
  readonly metadata: ObjectMeta
  readonly status?: A extends { readonly status?: infer S } ? S | undefined : undefined
}

/** Any part of a value, down to the elements of lists. */
export type PartOf<T> = T extends ReadonlyArray<infer Item> ? ReadonlyArray<PartOf<Item>>
  : T extends object ? { readonly [K in keyof T]?: PartOf<T[K]> | undefined }
  : T

/** What one field manager declares of an object with server-side apply. */
export type Applied<A extends KubeObject> = PartOf<Omit<A, "metadata">> & { readonly metadata: ObjectMeta }

/**
 * A kind of object whose values have the type `A`. `group` is empty for the core group. Where `schema` is given, what
 * the server sends is checked with it, and fields that it does not name are kept. `A` is the JSON form: a schema that
 * decodes to something else does not fit.
 */
export interface KubeKind<A extends KubeObject> {
  readonly group: string
  readonly version: string
  readonly kind: string
  readonly plural: string
  readonly namespaced: boolean
  readonly schema?: Schema.Codec<A, A> | undefined
}

/** The name of one object. `namespace` defaults to the one of the current context, and is ignored for cluster kinds. */
export interface ObjectRef {
  readonly name: string
  readonly namespace?: string | undefined
}

/** `group/version`, or just `version` in the core group. */
export const apiVersion = (kind: { readonly group: string; readonly version: string }): string =>
  kind.group === "" ? kind.version : `${kind.group}/${kind.version}`

/** The key of an object in a cache or a queue: `namespace/name`, or `name` for what has no namespace. */
export const keyOf = (ref: ObjectRef): string => ref.namespace === undefined ? ref.name : `${ref.namespace}/${ref.name}`

/** The object that a key of {@link keyOf} names. */
export const refOf = (key: string): ObjectRef => {
  const slash = key.indexOf("/")
  return slash === -1 ? { name: key } : { namespace: key.slice(0, slash), name: key.slice(slash + 1) }
}
