/**
 * The Kubernetes API in memory, for tests of whatever reads, writes and watches objects: resource versions and their
 * conflicts, generations, status subresources, finalizers, label selectors, watches that begin anywhere in the history.
 * It counts writes, and every call passes a gate that a test may close, delay or fail.
 */
import { KubeClient, type KubeList, type Patch, type Selection, type WatchEvent } from "@fast-sandbox/kube/KubeClient"
import * as KubeError from "@fast-sandbox/kube/KubeError"
import type { KubeKind, KubeObject, ObjectRef } from "@fast-sandbox/kube/KubeObject"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"

type Json = { readonly [field: string]: unknown }

interface Stored extends Json {
  readonly metadata: Json & { readonly name: string; readonly resourceVersion: string; readonly uid: string }
}

interface Past {
  readonly plural: string
  readonly version: number
  readonly event: { readonly _tag: "Added" | "Modified" | "Deleted"; readonly object: Stored }
}

/** One call, as the gate sees it. `verb` is the method of KubeClient. */
export interface Call {
  readonly verb: string
  readonly kind: string
  readonly name: string
}

/** Looks at every call before it takes effect, and at every write again after it did. */
export interface Gate {
  readonly before: (call: Call) => Effect.Effect<void, KubeError.KubeError>
  readonly after: (call: Call) => Effect.Effect<void, KubeError.KubeError>
}

/** The test's side of the in-memory API. */
export class MemoryKube extends Context.Service<MemoryKube, {
  /** Replaces the gate; without one every call passes. */
  readonly setGate: (gate: Partial<Gate>) => Effect.Effect<void>
  /** Successful writes so far, in order. */
  readonly writes: Effect.Effect<ReadonlyArray<Call>>
  /** All objects of a kind as they are stored. */
  readonly all: <A extends KubeObject>(kind: KubeKind<A>) => Effect.Effect<ReadonlyArray<A>>
}>()("@fast-sandbox/testkit/MemoryKube") {
  /** An empty API. */
  static readonly layer: Layer.Layer<MemoryKube | KubeClient> = Layer.effectContext(Effect.suspend(() => make))
}

/** The API is not typed: a reader says of what kind the JSON is that it gets. */
const typed = <A>(json: unknown): A => json as A

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const merge = (target: unknown, patch: unknown): unknown => {
  if (!isObject(patch)) {
    return patch
  }
  const result: Record<string, unknown> = isObject(target) ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) {
      delete result[key]
    } else {
      result[key] = merge(result[key], value)
    }
  }
  return result
}

/** What crosses the wire: no undefined fields, no shared references. */
const wire = (value: unknown): Json => {
  const parsed: unknown = JSON.parse(JSON.stringify(value))
  return isObject(parsed) ? parsed : {}
}

const metaOf = (object: Json): Json => isObject(object["metadata"]) ? object["metadata"] : {}

const selects = ({ labelSelector, namespace }: Selection, object: Stored): boolean => {
  const labels = isObject(object.metadata["labels"]) ? object.metadata["labels"] : {}
  return (namespace === undefined || object.metadata["namespace"] === namespace) &&
    (labelSelector ?? "").split(",").filter((term) => term !== "").every((term) => {
      const [key = "", value] = term.split("=")
      return value === undefined ? Object.hasOwn(labels, key) : labels[key] === value
    })
}

const keyOf = (kind: { readonly namespaced: boolean }, { name, namespace }: ObjectRef): string =>
  kind.namespaced ? `${namespace ?? "default"}/${name}` : name

const fail = (call: Call, reason: KubeError.KubeErrorReason) =>
  new KubeError.KubeError({ method: call.verb, path: `/${call.kind}`, kind: call.kind, name: call.name, reason })

const untyped = <A extends KubeObject>({ schema: _, ...kind }: KubeKind<A>): KubeKind<never> => kind

const make = Effect.gen(function*() {
  const objects = new Map<string, Map<string, Stored>>()
  const history: Array<Past> = []
  const published = yield* PubSub.unbounded<Past>()
  const calls: Array<Call> = []
  let version = 0
  let uids = 0
  let gate: Gate = { before: () => Effect.void, after: () => Effect.void }

  const tableOf = (plural: string): Map<string, Stored> => {
    const table = objects.get(plural) ?? new Map<string, Stored>()
    objects.set(plural, table)
    return table
  }

  const publish = (plural: string, tag: Past["event"]["_tag"], object: Stored) => {
    const past: Past = { plural, version, event: { _tag: tag, object } }
    history.push(past)
    PubSub.publishUnsafe(published, past)
  }

  const store = (kind: KubeKind<never>, key: string, object: Json, old: Stored | undefined): Stored => {
    const { plural } = kind
    const meta = metaOf(object)
    const finalizers = Array.isArray(meta["finalizers"]) ? meta["finalizers"] : []
    if (old !== undefined && meta["deletionTimestamp"] !== undefined && finalizers.length === 0) {
      version += 1
      tableOf(plural).delete(key)
      publish(plural, "Deleted", old)
      return old
    }
    const same = old !== undefined &&
      Equal.equals({ ...object, metadata: { ...meta, resourceVersion: "" } }, {
        ...old,
        metadata: { ...old.metadata, resourceVersion: "" }
      })
    if (same) {
      return old
    }
    version += 1
    const stored: Stored = {
      ...object,
      metadata: { ...meta, name: String(meta["name"]), uid: String(meta["uid"]), resourceVersion: String(version) }
    }
    tableOf(plural).set(key, stored)
    publish(plural, old === undefined ? "Added" : "Modified", stored)
    return stored
  }

  const run = <A>(call: Call, effect: Effect.Effect<A, KubeError.KubeError>): Effect.Effect<A, KubeError.KubeError> =>
    gate.before(call).pipe(Effect.andThen(effect))

  const write = <A>(call: Call, effect: Effect.Effect<A, KubeError.KubeError>) =>
    run(
      call,
      Effect.tap(effect, () => {
        calls.push(call)
        return gate.after(call)
      })
    )

  const found = (call: Call, kind: KubeKind<never>, ref: ObjectRef): Effect.Effect<Stored, KubeError.KubeError> =>
    Effect.suspend(() => {
      const object = tableOf(kind.plural).get(keyOf(kind, ref))
      return object === undefined
        ? Effect.fail(fail(call, new KubeError.NotFound({ problem: "no such object" })))
        : Effect.succeed(object)
    })

  const change = <A extends KubeObject>(
    verb: string,
    kind: KubeKind<A>,
    ref: ObjectRef,
    subresource: "object" | "status",
    edit: (old: Stored) => Json
  ): Effect.Effect<A, KubeError.KubeError> => {
    const call: Call = { verb, kind: kind.kind, name: ref.name }
    return write(
      call,
      Effect.gen(function*() {
        const old = yield* found(call, untyped(kind), ref)
        const wanted = wire(edit(old))
        const wantedVersion = metaOf(wanted)["resourceVersion"]
        if (wantedVersion !== undefined && wantedVersion !== old.metadata.resourceVersion) {
          return yield* fail(
            call,
            new KubeError.Conflict({ problem: `the object is at ${old.metadata.resourceVersion}` })
          )
        }
        const { metadata: _m, status: oldStatus, ...oldSpec } = old
        const { metadata: wantedMeta, status: wantedStatus, ...wantedSpec } = wanted
        const fixed = {
          uid: old.metadata.uid,
          generation: old.metadata["generation"],
          creationTimestamp: old.metadata["creationTimestamp"],
          deletionTimestamp: old.metadata["deletionTimestamp"]
        }
        const next = subresource === "status"
          ? { ...old, status: wantedStatus }
          : {
            ...wantedSpec,
            metadata: {
              ...(isObject(wantedMeta) ? wantedMeta : {}),
              ...fixed,
              generation: Equal.equals(oldSpec, wantedSpec) ? fixed.generation : Number(fixed.generation ?? 0) + 1
            },
            status: oldStatus
          }
        return typed<A>(store(untyped(kind), keyOf(kind, ref), wire(next), old))
      })
    )
  }

  const patched = (patch: Patch) => (old: Stored): Json => {
    if (patch.type === "json") {
      return patch.body.reduce<Json>((object, operation) => {
        if (operation.op !== "add" && operation.op !== "replace" && operation.op !== "remove") {
          return object
        }
        const path = operation.path.split("/").slice(1).map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
        const value = operation.op === "remove" ? null : operation.value
        const nested = path.reduceRight<unknown>((inner, part) => ({ [part]: inner }), value)
        const merged = merge(object, nested)
        return isObject(merged) ? merged : {}
      }, old)
    }
    const merged = merge(old, patch.body)
    const named = metaOf(wire(patch.body))["resourceVersion"]
    return isObject(merged)
      ? { ...merged, metadata: { ...metaOf(merged), resourceVersion: named ?? old.metadata.resourceVersion } }
      : {}
  }

  const create = <A extends KubeObject>(kind: KubeKind<A>, object: { readonly metadata: KubeObject["metadata"] }) => {
    const name = object.metadata.name ??
      `${object.metadata.generateName ?? ""}${(uids + 1).toString(36).padStart(5, "0")}`
    const call: Call = { verb: "create", kind: kind.kind, name }
    return write(
      call,
      Effect.gen(function*() {
        const now = DateTime.formatIso(DateTime.makeUnsafe(yield* Clock.currentTimeMillis))
        const namespace = kind.namespaced ? { namespace: object.metadata.namespace ?? "default" } : {}
        const key = keyOf(kind, { name, ...namespace })
        if (tableOf(kind.plural).has(key)) {
          return yield* fail(call, new KubeError.AlreadyExists({ problem: `${key} exists` }))
        }
        uids += 1
        const stored = wire({
          apiVersion: kind.group === "" ? kind.version : `${kind.group}/${kind.version}`,
          kind: kind.kind,
          ...object,
          status: undefined,
          metadata: {
            ...object.metadata,
            ...namespace,
            name,
            uid: `uid-${uids}`,
            generation: 1,
            creationTimestamp: now,
            resourceVersion: undefined
          }
        })
        return typed<A>(store(untyped(kind), key, stored, undefined))
      })
    )
  }

  const listOf = <A extends KubeObject>(kind: KubeKind<A>, selection: Selection): KubeList<A> => ({
    items: typed<ReadonlyArray<A>>([...tableOf(kind.plural).values()].filter((object) => selects(selection, object))),
    resourceVersion: String(version)
  })

  const remove = <A extends KubeObject>(
    kind: KubeKind<A>,
    ref: ObjectRef,
    options?: { readonly preconditions?: { readonly uid?: string | undefined } | undefined }
  ) => {
    const call: Call = { verb: "delete", kind: kind.kind, name: ref.name }
    return write(
      call,
      Effect.gen(function*() {
        const old = yield* found(call, untyped(kind), ref)
        const uid = options?.preconditions?.uid
        if (uid !== undefined && uid !== old.metadata.uid) {
          return yield* fail(call, new KubeError.Conflict({ problem: "another incarnation" }))
        }
        const now = DateTime.formatIso(DateTime.makeUnsafe(yield* Clock.currentTimeMillis))
        const deletionTimestamp = old.metadata["deletionTimestamp"] ?? now
        store(untyped(kind), keyOf(kind, ref), { ...old, metadata: { ...old.metadata, deletionTimestamp } }, old)
      })
    )
  }

  const absent = (verb: string) => (kind: { readonly kind: string }, ref: { readonly name?: string | undefined }) =>
    Effect.fail(
      fail({ verb, kind: kind.kind, name: ref.name ?? "" }, new KubeError.BadRequest({ problem: "not simulated" }))
    )

  const client = KubeClient.of({
    get: <A extends KubeObject>(kind: KubeKind<A>, ref: ObjectRef) => {
      const call: Call = { verb: "get", kind: kind.kind, name: ref.name }
      return run(call, Effect.map(found(call, untyped(kind), ref), (stored) => typed<A>(stored)))
    },
    getStatus: (kind, ref) => client.get(kind, ref),
    list: (kind, options) =>
      run({ verb: "list", kind: kind.kind, name: "" }, Effect.sync(() => listOf(kind, options ?? {}))),
    create,
    update: (kind, object) =>
      change("update", kind, { ...object.metadata, name: object.metadata.name ?? "" }, "object", () => wire(object)),
    updateStatus: (kind, object) =>
      change(
        "updateStatus",
        kind,
        { ...object.metadata, name: object.metadata.name ?? "" },
        "status",
        () => wire(object)
      ),
    patch: (kind, ref, patch) => change("patch", kind, ref, "object", patched(patch)),
    patchStatus: (kind, ref, patch) => change("patchStatus", kind, ref, "status", patched(patch)),
    apply: (kind, object) =>
      tableOf(kind.plural).has(keyOf(kind, { ...object.metadata, name: object.metadata.name ?? "" }))
        ? change(
          "apply",
          kind,
          { ...object.metadata, name: object.metadata.name ?? "" },
          "object",
          patched({ type: "merge", body: wire(object) })
        )
        : create(kind, object),
    applyStatus: (kind, object) =>
      change(
        "applyStatus",
        kind,
        { ...object.metadata, name: object.metadata.name ?? "" },
        "status",
        patched({ type: "merge", body: wire(object) })
      ),
    delete: remove,
    deleteCollection: (kind, selection) =>
      Effect.forEach(
        listOf(kind, selection).items,
        ({ metadata }) => remove(kind, { name: metadata.name ?? "", namespace: metadata.namespace }),
        { discard: true }
      ),
    getScale: absent("getScale"),
    setScale: absent("setScale"),
    watch: <A extends KubeObject>(
      kind: KubeKind<A>,
      options?: Selection & { readonly resourceVersion?: string | undefined }
    ) =>
      Stream.unwrap(Effect.gen(function*() {
        yield* gate.before({ verb: "watch", kind: kind.kind, name: "" })
        const subscription = yield* PubSub.subscribe(published)
        const from = Number(options?.resourceVersion ?? 0)
        const past = history.filter((entry) => entry.version > from)
        const last = version
        return Stream.fromIterable(past).pipe(
          Stream.concat(Stream.fromSubscription(subscription).pipe(Stream.filter((entry) => entry.version > last))),
          Stream.filter(({ event, plural }) => plural === kind.plural && selects(options ?? {}, event.object)),
          Stream.map(({ event }) => typed<WatchEvent<A>>(event))
        )
      })),
    request: ({ path }) =>
      path === "/readyz"
        ? Effect.as(Effect.suspend(() => gate.before({ verb: "request", kind: path, name: "" })), "ok")
        : absent("request")({ kind: path }, {})
  })

  const memory = MemoryKube.of({
    setGate: (next) =>
      Effect.sync(() => {
        gate = { before: next.before ?? (() => Effect.void), after: next.after ?? (() => Effect.void) }
      }),
    writes: Effect.sync(() => [...calls]),
    all: (kind) => Effect.sync(() => listOf(kind, {}).items)
  })
  return Context.make(KubeClient, client).pipe(Context.add(MemoryKube, memory))
})
