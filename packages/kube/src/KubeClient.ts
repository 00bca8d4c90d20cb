/**
 * The Kubernetes API: typed reads, writes and watches of any kind of object over one pool of kept-alive connections.
 *
 * Every call has a time limit, is aborted when its fiber is interrupted, carries the current trace, and is counted. Only
 * what is certainly safe is repeated by itself, a few times: a call that was throttled, and one whose connection was
 * refused before anything was sent.
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Stream from "effect/Stream"
import type { Scale } from "./Kinds.ts"
import type { KubeConfig, KubeConfigError } from "./KubeConfig.ts"
import type { KubeError } from "./KubeError.ts"
import type { Draft, KubeKind, KubeObject, ObjectRef } from "./KubeObject.ts"

/** Which objects of a kind: without `namespace` those of all namespaces. */
export interface Selection {
  readonly namespace?: string | undefined
  /** Kubernetes' own syntax, for example `app=sandbox-agent,!draining`. */
  readonly labelSelector?: string | undefined
  /** Kubernetes' own syntax, for example `spec.nodeName=worker-1`. */
  readonly fieldSelector?: string | undefined
}

/** Options of {@link KubeClient} `list`. */
export interface ListOptions extends Selection {
  /** At most so many objects in this answer; the rest is reached with `continue`. */
  readonly limit?: number | undefined
  /** The `continue` of the page before. */
  readonly continue?: string | undefined
  /** "0": any state that the server has at hand; absent: the most recent one. */
  readonly resourceVersion?: string | undefined
  readonly resourceVersionMatch?: "Exact" | "NotOlderThan" | undefined
}

/** One page of a list. `resourceVersion` is where a watch takes over. */
export interface KubeList<A> {
  readonly items: ReadonlyArray<A>
  readonly resourceVersion: string
  /** Absent on the last page. */
  readonly continue?: string | undefined
  readonly remainingItemCount?: number | undefined
}

/** Options of writes. `fieldManager` names the writer in the object's managed fields. */
export interface WriteOptions {
  readonly fieldManager?: string | undefined
  /** Validate and answer, store nothing. */
  readonly dryRun?: true | undefined
}

/** Options of server-side apply; `force` takes over fields that another manager owns. */
export interface ApplyOptions {
  readonly fieldManager: string
  readonly force?: boolean | undefined
  readonly dryRun?: true | undefined
}

/** Options of deletes. */
export interface DeleteOptions {
  /** Delete only this incarnation; anything else is a `Conflict`. */
  readonly preconditions?: {
    readonly uid?: string | undefined
    readonly resourceVersion?: string | undefined
  } | undefined
  readonly propagationPolicy?: "Orphan" | "Background" | "Foreground" | undefined
  readonly gracePeriodSeconds?: number | undefined
}

/** Options of watches. */
export interface WatchOptions extends Selection {
  /** Events after this version; absent: the current objects first, as `Added`. */
  readonly resourceVersion?: string | undefined
  /** The server ends the stream after this time. */
  readonly timeout?: Duration.Input | undefined
}

/** What a watch reports. A bookmark carries no object, just the version up to which everything was reported. */
export type WatchEvent<A> =
  | { readonly _tag: "Added"; readonly object: A }
  | { readonly _tag: "Modified"; readonly object: A }
  | { readonly _tag: "Deleted"; readonly object: A }
  | { readonly _tag: "Bookmark"; readonly resourceVersion: string }

/** One operation of a JSON patch (RFC 6902). */
export type JsonPatchOperation =
  | { readonly op: "add" | "replace" | "test"; readonly path: string; readonly value: unknown }
  | { readonly op: "remove"; readonly path: string }
  | { readonly op: "move" | "copy"; readonly from: string; readonly path: string }

/**
 * A change to an object.
 * - merge (RFC 7386): what is named is replaced, null removes, lists are replaced as a whole
 * - json (RFC 6902): operations, atomic, with tests
 * - strategic: as merge, with lists of built-in kinds merged by their keys; custom resources refuse it
 */
export type Patch =
  | { readonly type: "merge"; readonly body: { readonly [field: string]: unknown } }
  | { readonly type: "json"; readonly body: ReadonlyArray<JsonPatchOperation> }
  | { readonly type: "strategic"; readonly body: { readonly [field: string]: unknown } }

/** A call that has no typed operation, such as `/version`. */
export interface RawRequest {
  readonly method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | undefined
  /** Absolute, for example `/healthz`. */
  readonly path: string
  readonly query?: { readonly [name: string]: string | number | boolean | undefined } | undefined
  /** Sent as JSON. */
  readonly body?: unknown
  readonly headers?: { readonly [name: string]: string } | undefined
}

/** The Kubernetes API. Every operation fails with {@link KubeError}. */
export class KubeClient extends Context.Service<KubeClient, {
  /** Reads one object. */
  get<A extends KubeObject>(kind: KubeKind<A>, ref: ObjectRef): Effect.Effect<A, KubeError>
  /** Reads one page of objects; without `limit` that is all of them. */
  list<A extends KubeObject>(kind: KubeKind<A>, options?: ListOptions): Effect.Effect<KubeList<A>, KubeError>
  /** Stores a new object; `AlreadyExists` if the name is taken. Answers with what was stored. */
  create<A extends KubeObject>(
    kind: KubeKind<A>,
    object: Draft<A>,
    options?: WriteOptions
  ): Effect.Effect<A, KubeError>
  /** Replaces an object, except its status; `Conflict` if it changed since its `resourceVersion`. */
  update<A extends KubeObject>(kind: KubeKind<A>, object: A, options?: WriteOptions): Effect.Effect<A, KubeError>
  /** Changes parts of an object. Put a `resourceVersion` into a merge patch's metadata to make it conditional. */
  patch<A extends KubeObject>(
    kind: KubeKind<A>,
    ref: ObjectRef,
    patch: Patch,
    options?: WriteOptions
  ): Effect.Effect<A, KubeError>
  /** Creates or changes an object by declaring the fields that `fieldManager` wants; `Conflict` if others own them. */
  apply<A extends KubeObject>(
    kind: KubeKind<A>,
    object: { readonly metadata: KubeObject["metadata"]; readonly [field: string]: unknown },
    options: ApplyOptions
  ): Effect.Effect<A, KubeError>
  /** Asks for deletion. The object stays, with a `deletionTimestamp`, until its finalizers and grace period are done. */
  delete<A extends KubeObject>(
    kind: KubeKind<A>,
    ref: ObjectRef,
    options?: DeleteOptions
  ): Effect.Effect<void, KubeError>
  /** Asks for deletion of all selected objects. */
  deleteCollection<A extends KubeObject>(
    kind: KubeKind<A>,
    selection: Selection,
    options?: DeleteOptions
  ): Effect.Effect<void, KubeError>
  /** Reads the status subresource: the whole object. */
  getStatus<A extends KubeObject>(kind: KubeKind<A>, ref: ObjectRef): Effect.Effect<A, KubeError>
  /** Replaces the status of an object and nothing else; `Conflict` if it changed since its `resourceVersion`. */
  updateStatus<A extends KubeObject>(kind: KubeKind<A>, object: A, options?: WriteOptions): Effect.Effect<A, KubeError>
  /** Changes parts of the status. The patch is of the whole object: `{ status: { ... } }`. */
  patchStatus<A extends KubeObject>(
    kind: KubeKind<A>,
    ref: ObjectRef,
    patch: Patch,
    options?: WriteOptions
  ): Effect.Effect<A, KubeError>
  /** Server-side apply of the status. */
  applyStatus<A extends KubeObject>(
    kind: KubeKind<A>,
    object: { readonly metadata: KubeObject["metadata"]; readonly [field: string]: unknown },
    options: ApplyOptions
  ): Effect.Effect<A, KubeError>
  /** Reads the scale subresource. */
  getScale<A extends KubeObject>(kind: KubeKind<A>, ref: ObjectRef): Effect.Effect<Scale, KubeError>
  /** Sets the wanted number of replicas. */
  setScale<A extends KubeObject>(
    kind: KubeKind<A>,
    ref: ObjectRef,
    replicas: number
  ): Effect.Effect<Scale, KubeError>
  /**
   * One watch, as the server delivers it; ends when the server ends it and fails when the connection breaks. A reader
   * that wants the state of things wants a `Reflector`. Reading slowly slows the server, nothing is buffered.
   */
  watch<A extends KubeObject>(kind: KubeKind<A>, options?: WatchOptions): Stream.Stream<WatchEvent<A>, KubeError>
  /** Any other call. JSON answers are parsed, others come as text. */
  request(request: RawRequest): Effect.Effect<unknown, KubeError>
}>()("@fast-sandbox/kube/KubeClient") {
  /** The API that a {@link KubeConfig} points to. The connection pool closes with the layer's scope. */
  declare static readonly layer: Layer.Layer<KubeClient, KubeConfigError, KubeConfig>
}
