/**
 * Watches: a cursor over the stored history of one resource. A watch that falls behind costs nothing but its place in
 * the history; it resumes after a restart of the server like any other, and one that fell out of the history is told so.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as ApiStatus from "./ApiStatus.ts"
import * as Conversion from "./Conversion.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import type { ListOptions } from "./ListOptions.ts"
import * as Representation from "./Representation.ts"
import { apiVersionOf, type ResourceType } from "./ResourceType.ts"
import { everything } from "./Selectors.ts"
import { type Change, type StoreShape, unlimited } from "./Store.ts"

/** What a watch looks at. */
export interface WatchRequest {
  readonly type: ResourceType
  /** `undefined` for all namespaces. */
  readonly namespace: string | undefined
  readonly options: ListOptions
  readonly form: Representation.Form
}

/** Changes that are read and written at once; it bounds the memory that a watch needs. */
const batchSize = 200

/** How often an idle watch that wants bookmarks gets one; upstream's rhythm. */
const bookmarkMillis = 60_000

/** A watch without a timeout ends after this long, in seconds (upstream draws 30 to 60 minutes); clients then resume. */
const defaultTimeoutSeconds = 3_600

const frame = (type: string, object: string): string => `{"type":"${type}","object":${object}}\n`

/** Checks the place where a watch wants to start. */
export const admit = (store: StoreShape, request: WatchRequest): Result.Result<void, ApiStatus.ApiStatus> => {
  const start = Number(request.options.resourceVersion)
  if (start > store.revision()) return Result.fail(ApiStatus.tooLargeVersion(start, store.revision()))
  return Result.succeed(undefined)
}

/** The events of a change for a watch with a selector: objects enter and leave the selection. */
const selectedEvent = (
  request: WatchRequest,
  change: Change
): { readonly type: Change["type"]; readonly object: JsonObject } | undefined => {
  const now = Conversion.fromStored(request.type, Json.parseTrusted(change.body))
  const before = change.previous === undefined
    ? undefined
    : Conversion.fromStored(request.type, Json.parseTrusted(change.previous))
  const was = before !== undefined && request.options.selected(before)
  const is = change.type !== "DELETED" && request.options.selected(now)
  if (is) return { type: was ? "MODIFIED" : "ADDED", object: now }
  if (!was) return undefined
  return {
    type: "DELETED",
    object: Json.withAt(
      change.type === "DELETED" ? now : before,
      ["metadata", "resourceVersion"],
      String(change.revision)
    )
  }
}

/**
 * Runs a watch: `write` is given encoded events and waits while the reader is slow. It ends at its timeout, or with an
 * ERROR event when its place has left the history.
 */
export const run = (
  store: StoreShape,
  request: WatchRequest,
  write: (text: string) => Effect.Effect<void>
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { form, namespace, options, type } = request
    const wakeups = yield* Queue.sliding<void>(1)
    const clock = yield* Clock.Clock
    let columns: "withColumns" | "rowsOnly" = "withColumns"
    let idle = false
    let cursor = options.resourceVersion === "" ? 0 : Number(options.resourceVersion)
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        store.subscribe(({ resources }) => {
          if (resources.has(type.key)) {
            // Woken but not running yet: what is committed until then must not be skipped over.
            idle = false
            Queue.offerUnsafe(wakeups, undefined)
          } else if (idle) cursor = store.revision()
        })
      ),
      (stop) => Effect.sync(stop)
    )

    const encode = (kind: string, body: string, revision: number): string => {
      if (form._tag !== "Table") {
        return frame(kind, Representation.encodeOne(type, body, form, clock.currentTimeMillisUnsafe()))
      }
      const meta = { resourceVersion: String(revision) }
      const text = Representation.table(type, [body], meta, form.include, clock.currentTimeMillisUnsafe(), columns)
      columns = "rowsOnly"
      return frame(kind, text)
    }

    const bookmark = (annotations: JsonObject | undefined): string => {
      const object = JSON.stringify({
        kind: type.kind,
        apiVersion: apiVersionOf(type),
        metadata: {
          resourceVersion: String(cursor),
          creationTimestamp: null,
          ...(annotations === undefined ? {} : { annotations })
        }
      })
      if (form._tag === "Json") return frame("BOOKMARK", object)
      if (form._tag === "Metadata") {
        return frame(
          "BOOKMARK",
          object.replace(
            /"kind":.*?,"metadata"/,
            "\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\""
          )
        )
      }
      const text = JSON.stringify({
        kind: "Table",
        apiVersion: "meta.k8s.io/v1",
        metadata: { resourceVersion: String(cursor) },
        columnDefinitions: [],
        rows: [{ cells: [], object: Json.parseTrusted(object) }]
      })
      return frame("BOOKMARK", text)
    }

    const event = (change: Change): string => {
      if (namespace !== undefined && change.namespace !== namespace) return ""
      if (options.name !== undefined && change.name !== options.name) return ""
      if (options.selected === everything) {
        return encode(change.type, Conversion.serve(type, change.body), change.revision)
      }
      const selected = selectedEvent(request, change)
      return selected === undefined ? "" : encode(selected.type, JSON.stringify(selected.object), change.revision)
    }

    const initial = options.sendInitialEvents ?? (options.resourceVersion === "" || options.resourceVersion === "0")
    // Events tell only what is committed: a change that a crash undoes must never have been seen.
    store.settle()
    if (initial) {
      cursor = store.revision()
      const present = store.list({ resource: type.key, namespace, limit: unlimited })
      let text = ""
      for (const [index, stored] of present.entries()) {
        if (options.name !== undefined && stored.name !== options.name) continue
        const body = Conversion.serve(type, stored.body)
        if (options.selected !== everything && !options.selected(Json.parseTrusted(body))) continue
        text += encode("ADDED", body, stored.revision)
        if (index % batchSize === batchSize - 1) {
          yield* write(text)
          text = ""
        }
      }
      if (options.sendInitialEvents === true && options.allowWatchBookmarks) {
        text += bookmark({ "k8s.io/initial-events-end": "true" })
      }
      if (text !== "") yield* write(text)
    } else if (options.resourceVersion === "") {
      cursor = store.revision()
    }

    const follow = Effect.gen(function*() {
      let bookmarked = clock.currentTimeMillisUnsafe()
      while (true) {
        store.settle()
        if (cursor < store.compacted()) {
          const status = ApiStatus.tooOld(cursor, store.compacted())
          return yield* write(frame("ERROR", JSON.stringify(status.toJson())))
        }
        const changes = store.changes(type.key, cursor, batchSize)
        const last = changes.at(-1)
        const text = changes.map(event).join("")
        cursor = last?.revision ?? store.revision()
        if (text !== "") yield* write(text)
        // Also a watch that only sees changes which it doesn't select gets its bookmarks: it must not look dead.
        const wait = bookmarked + bookmarkMillis - clock.currentTimeMillisUnsafe()
        if (wait <= 0) {
          bookmarked = clock.currentTimeMillisUnsafe()
          if (options.allowWatchBookmarks) yield* write(bookmark(undefined))
        } else if (last === undefined) {
          idle = true
          yield* Effect.timeoutOption(Queue.take(wakeups), wait)
          idle = false
        }
      }
    })

    const seconds = options.timeoutSeconds ?? defaultTimeoutSeconds
    yield* Effect.timeoutOption(follow, seconds * 1000)
  })
