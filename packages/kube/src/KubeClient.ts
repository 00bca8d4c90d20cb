/**
 * The Kubernetes API: typed reads, writes and watches of any kind of object over one pool of kept-alive connections.
 *
 * Every call has a time limit, is aborted when its fiber is interrupted, carries the current trace, and is counted. Only
 * what is certainly safe is repeated by itself, a few times: a call that was throttled, one whose connection was refused
 * before anything was sent, and a read whose connection broke.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Calls from "./internal/Calls.ts"
import { type Call, failure, malformed, parseJson, unavailable } from "./internal/Calls.ts"
import { decodeObject } from "./internal/Decode.ts"
import type { HttpResponse } from "./internal/HttpExchange.ts"
import { pathOf, type Query } from "./internal/Paths.ts"
import { reasonOfEvent } from "./internal/Status.ts"
import { Scale } from "./Kinds.ts"
import { KubeConfig } from "./KubeConfig.ts"
import { BadRequest, type KubeError } from "./KubeError.ts"
import { apiVersion, type Applied, type Draft, type KubeKind, type KubeObject, type ObjectRef } from "./KubeObject.ts"

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
    object: Applied<A>,
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
    object: Applied<A>,
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
  static get layer(): Layer.Layer<KubeClient, never, KubeConfig> {
    return layer
  }
}

/** Options of {@link make}. */
export interface KubeClientOptions {
  /** Limit of each attempt of a call, and of the wait for the head of a watch. Default 30 s. */
  readonly requestTimeout?: Duration.Input | undefined
}

/** Limit of each attempt of a call where none is given: below the 60 s after which API servers give up themselves. */
const defaultRequestTimeout = Duration.seconds(30)

/** Longest line of a watch: one event carries one object, of which etcd allows 1.5 MiB. */
const maxEventLength = 16 * 1024 * 1024

const patchTypes = {
  merge: "application/merge-patch+json",
  json: "application/json-patch+json",
  strategic: "application/strategic-merge-patch+json"
} as const

/** JSON is YAML, and every API server since 1.16 takes this media type. */
const applyType = "application/apply-patch+yaml"

const objectOf = <A extends KubeObject>(kind: KubeKind<A>, call: Call, value: unknown): Effect.Effect<A, KubeError> =>
  Effect.mapError(decodeObject(kind, value), (reason) => failure(call, reason))

const ListAnswer = Schema.Struct({
  items: Schema.optional(Schema.NullOr(Schema.Array(Schema.Unknown))),
  metadata: Schema.Struct({
    resourceVersion: Schema.optional(Schema.String),
    continue: Schema.optional(Schema.String),
    remainingItemCount: Schema.optional(Schema.NullOr(Schema.Number))
  })
})

const WatchLine = Schema.Struct({ type: Schema.String, object: Schema.Unknown })

const decodeList = Schema.decodeUnknownOption(ListAnswer)
const decodeWatchLine = Schema.decodeUnknownOption(WatchLine)

const collection = <A extends KubeObject>(kind: KubeKind<A>, namespace: string | undefined) => ({
  path: pathOf(kind, namespace),
  kind: kind.kind
})

const written = (options: WriteOptions | undefined): Query => ({
  fieldManager: options?.fieldManager,
  dryRun: options?.dryRun === true ? "All" : undefined
})

const selected = (selection: Selection | undefined): Query => ({
  labelSelector: selection?.labelSelector,
  fieldSelector: selection?.fieldSelector
})

const typed = <A extends KubeObject>(kind: KubeKind<A>, body: object) => ({
  ...body,
  apiVersion: apiVersion(kind),
  kind: kind.kind
})

const deletion = (options: DeleteOptions | undefined) => ({ apiVersion: "v1", kind: "DeleteOptions", ...options })

/** Makes a client whose connections close with the scope. */
export const make = Effect.fnUntraced(function*(
  options?: KubeClientOptions
): Effect.fn.Return<KubeClient["Service"], never, KubeConfig | Scope.Scope> {
  const config = yield* KubeConfig
  const { answer, open } = yield* Calls.make(
    config,
    Duration.fromInputUnsafe(options?.requestTimeout ?? defaultRequestTimeout)
  )

  const json = <A>(call: Call, decode: (value: unknown) => Effect.Effect<A, KubeError>): Effect.Effect<A, KubeError> =>
    answer(call, (body) => Effect.flatMap(parseJson(call, body), decode))

  const object = <A extends KubeObject>(kind: KubeKind<A>, call: Call): Effect.Effect<A, KubeError> =>
    json(call, (value) => objectOf(kind, call, value))

  const namespaceOf = <A extends KubeObject>(kind: KubeKind<A>, namespace: string | undefined): string | undefined =>
    kind.namespaced ? namespace ?? config.namespace : undefined

  const member = <A extends KubeObject>(
    kind: KubeKind<A>,
    ref: ObjectRef,
    subresource?: "status" | "scale" | undefined
  ) => ({
    path: pathOf(kind, namespaceOf(kind, ref.namespace), ref.name, subresource),
    kind: kind.kind,
    name: ref.name
  })

  const read = <A extends KubeObject>(kind: KubeKind<A>, ref: ObjectRef, subresource?: "status") =>
    object(kind, {
      verb: subresource === undefined ? "get" : "getStatus",
      method: "GET",
      ...member(kind, ref, subresource)
    })

  const replace = <A extends KubeObject>(
    kind: KubeKind<A>,
    value: A,
    options: WriteOptions | undefined,
    subresource?: "status"
  ) =>
    withName(subresource === undefined ? "update" : "updateStatus", "PUT", kind, value, (ref, verb) =>
      object(kind, {
        verb,
        method: "PUT",
        ...member(kind, ref, subresource),
        query: written(options),
        body: typed(kind, value)
      }))

  const change = <A extends KubeObject>(
    kind: KubeKind<A>,
    ref: ObjectRef,
    patch: Patch,
    options: WriteOptions | undefined,
    subresource?: "status"
  ) =>
    object(kind, {
      verb: subresource === undefined ? "patch" : "patchStatus",
      method: "PATCH",
      ...member(kind, ref, subresource),
      query: written(options),
      body: patch.body,
      contentType: patchTypes[patch.type]
    })

  const declare = <A extends KubeObject>(
    kind: KubeKind<A>,
    value: Applied<A>,
    options: ApplyOptions,
    subresource?: "status"
  ) =>
    withName(subresource === undefined ? "apply" : "applyStatus", "PATCH", kind, value, (ref, verb) =>
      object(kind, {
        verb,
        method: "PATCH",
        ...member(kind, ref, subresource),
        query: { ...written(options), force: options.force },
        body: typed(kind, value),
        contentType: applyType
      }))

  const withName = <A extends KubeObject, B>(
    verb: string,
    method: "PUT" | "PATCH",
    kind: KubeKind<A>,
    value: { readonly metadata: KubeObject["metadata"] },
    use: (ref: ObjectRef, verb: string) => Effect.Effect<B, KubeError>
  ): Effect.Effect<B, KubeError> => {
    const { name, namespace } = value.metadata
    return name === undefined
      ? Effect.fail(failure(
        { verb, method, ...collection(kind, namespaceOf(kind, namespace)) },
        new BadRequest({ problem: "the object has no metadata.name" })
      ))
      : use({ name, namespace }, verb)
  }

  const scaleOf = <A extends KubeObject>(kind: KubeKind<A>, call: Call) =>
    json(call, (value) => objectOf(Scale, { ...call, kind: `${kind.kind}/scale` }, value))

  return KubeClient.of({
    get: (kind, ref) => read(kind, ref),
    getStatus: (kind, ref) => read(kind, ref, "status"),
    list: (kind, options) => {
      const call: Call = {
        verb: "list",
        method: "GET",
        ...collection(kind, options?.namespace),
        query: {
          ...selected(options),
          limit: options?.limit,
          continue: options?.continue,
          resourceVersion: options?.resourceVersion,
          resourceVersionMatch: options?.resourceVersionMatch
        }
      }
      return json(call, (value) =>
        Option.match(decodeList(value), {
          onNone: () => Effect.fail(malformed(call, "the answer is not a list")),
          onSome: ({ items, metadata }) =>
            Effect.map(Effect.forEach(items ?? [], (item) => objectOf(kind, call, item)), (items) => ({
              items,
              resourceVersion: metadata.resourceVersion ?? "",
              ...(metadata.continue === undefined || metadata.continue === "" ? {} : { continue: metadata.continue }),
              ...(typeof metadata.remainingItemCount === "number"
                ? { remainingItemCount: metadata.remainingItemCount }
                : {})
            }))
        }))
    },
    create: (kind, value, options) =>
      object(kind, {
        verb: "create",
        method: "POST",
        ...collection(kind, namespaceOf(kind, value.metadata.namespace)),
        ...(value.metadata.name === undefined ? {} : { name: value.metadata.name }),
        query: written(options),
        body: typed(kind, value)
      }),
    update: (kind, value, options) => replace(kind, value, options),
    updateStatus: (kind, value, options) => replace(kind, value, options, "status"),
    patch: (kind, ref, patch, options) => change(kind, ref, patch, options),
    patchStatus: (kind, ref, patch, options) => change(kind, ref, patch, options, "status"),
    apply: (kind, value, options) => declare(kind, value, options),
    applyStatus: (kind, value, options) => declare(kind, value, options, "status"),
    delete: (kind, ref, options) =>
      answer(
        { verb: "delete", method: "DELETE", ...member(kind, ref), body: deletion(options) },
        () => Effect.void
      ),
    deleteCollection: (kind, selection, options) =>
      answer({
        verb: "deletecollection",
        method: "DELETE",
        ...collection(kind, namespaceOf(kind, selection.namespace)),
        query: selected(selection),
        body: deletion(options)
      }, () => Effect.void),
    getScale: (kind, ref) => scaleOf(kind, { verb: "getScale", method: "GET", ...member(kind, ref, "scale") }),
    setScale: (kind, ref, replicas) =>
      scaleOf(kind, {
        verb: "setScale",
        method: "PATCH",
        ...member(kind, ref, "scale"),
        body: { spec: { replicas } },
        contentType: patchTypes.merge
      }),
    watch: (kind, options) => {
      const call: Call = {
        verb: "watch",
        method: "GET",
        ...collection(kind, options?.namespace),
        query: {
          ...selected(options),
          watch: true,
          allowWatchBookmarks: true,
          resourceVersion: options?.resourceVersion,
          timeoutSeconds: options?.timeout === undefined
            ? undefined
            : Math.max(1, Math.ceil(Duration.toSeconds(options.timeout)))
        }
      }
      return Stream.unwrap(
        Effect.map(open(call), (response) => watchEvents(kind, call, response))
      )
    },
    request: ({ body, headers, method, path, query }) =>
      answer(
        { verb: "request", method: method ?? "GET", path, query, body, headers },
        (text, response) =>
          response.header("content-type")?.includes("json") === true
            ? parseJson({ verb: "request", method: method ?? "GET", path }, text)
            : Effect.succeed(text)
      )
  })
})

/**
 * The events in the body of a watch: one JSON value a line. A last line without its end is what a broken connection
 * leaves behind, and no event.
 */
const watchEvents = <A extends KubeObject>(
  kind: KubeKind<A>,
  call: Call,
  response: HttpResponse
): Stream.Stream<WatchEvent<A>, KubeError> =>
  response.body.pipe(
    Stream.mapError((error) => unavailable(call, error)),
    Stream.decodeText(),
    Stream.mapAccumEffect(() => "", (rest, chunk) => {
      const lines = (rest + chunk).split("\n")
      const last = lines.pop() ?? ""
      return last.length > maxEventLength
        ? Effect.fail(malformed(call, `a watch event is longer than ${maxEventLength} characters`))
        : Effect.succeed([last, lines] as const)
    }),
    Stream.filter((line) => line.trim() !== ""),
    Stream.mapEffect((line) =>
      Effect.flatMap(parseJson(call, line), (value) =>
        Option.match(decodeWatchLine(value), {
          onNone: () => Effect.fail(malformed(call, "a line of the watch is not an event")),
          onSome: ({ object, type }) => decodeEvent(kind, call, type, object)
        }))
    )
  )

const eventTags = { ADDED: "Added", MODIFIED: "Modified", DELETED: "Deleted" } as const

const decodeEvent = <A extends KubeObject>(
  kind: KubeKind<A>,
  call: Call,
  type: string,
  object: unknown
): Effect.Effect<WatchEvent<A>, KubeError> => {
  switch (type) {
    case "ADDED":
    case "MODIFIED":
    case "DELETED":
      return Effect.map(objectOf(kind, call, object), (object) => ({ _tag: eventTags[type], object }))
    case "BOOKMARK":
      return Effect.map(
        objectOf({ ...kind, schema: undefined }, call, object),
        ({ metadata }) => ({ _tag: "Bookmark", resourceVersion: metadata.resourceVersion ?? "" })
      )
    case "ERROR":
      return Effect.fail(failure(call, reasonOfEvent(object)))
    default:
      return Effect.fail(malformed(call, `the watch reports an event of the unknown type ${JSON.stringify(type)}`))
  }
}

const layer: Layer.Layer<KubeClient, never, KubeConfig> = Layer.effect(KubeClient, make())
