/**
 * A live copy of the objects of one kind: lists them, watches from there, and stays right through everything that can
 * happen to a watch: expired versions, throttling, broken and half-open connections, restarts of the server.
 *
 * Nothing is polled: while a watch is healthy the server pushes. A watch is renewed when the server ends it, which it
 * is asked to do every few minutes, and when it was silent for longer than servers pause between two bookmarks.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Backoff from "./Backoff.ts"
import { checkSchema } from "./internal/Decode.ts"
import { KubeClient, type Selection, type WatchEvent } from "./KubeClient.ts"
import { KubeError, type KubeErrorReason, Unavailable } from "./KubeError.ts"
import { keyOf, type KubeKind, type KubeObject } from "./KubeObject.ts"
import * as Store from "./Store.ts"

/** Options of {@link make}. `I` are the names of the indices. */
export interface ReflectorOptions<A extends KubeObject, I extends string> extends Selection {
  /** Index functions: the values under which an object is found with `store.byIndex(name, value)`. */
  readonly indices?: Store.Indices<A, I> | undefined
  /** Trims objects before they are kept; by default `metadata.managedFields` goes. */
  readonly transform?: ((object: A) => A) | undefined
  /** Objects per page of the list. Default 500, as kubectl's. */
  readonly pageSize?: number | undefined
  /** How long one watch lives before the server ends it and the next begins; up to twice as long. Default 5 minutes. */
  readonly watchTimeout?: Duration.Input | undefined
}

const defaultPageSize = 500

/** client-go's choice as well: long enough to be rare, short enough to spread watches over replaced API servers. */
const defaultWatchTimeout = Duration.minutes(5)

/** API servers send a bookmark about once a minute. A watch that is silent for twice that time is taken for dead. */
const silenceLimit = Duration.minutes(2)

/** A watch that ends sooner than this with nothing to say counts as a failure, so that it is not renewed in a rush. */
const shortWatch = Duration.seconds(1)

const backoff = Backoff.exponential({ name: "reflector", base: "200 millis", cap: "30 seconds" })

/** Pauses are stretched by up to this part of them, so that many watchers of a restarted server come back spread out. */
const jitter = 0.5

/** The default transform. The object was parsed a moment ago and has no other owner yet. */
const dropManagedFields = <A extends KubeObject>(object: A): A => {
  Reflect.deleteProperty(object.metadata, "managedFields")
  return object
}

/** Failures after which the watch may go on where it stopped; after any other one the truth is listed again. */
const keepsVersion = (reason: KubeErrorReason): boolean =>
  reason._tag === "Unavailable" || reason._tag === "TooManyRequests"

const logMalformed = (reason: KubeErrorReason) => Effect.logWarning("an object is left out of the cache", reason)

/**
 * Starts a reflector in the background of the scope and returns its store, which fills up at once; wait for
 * `store.synced` before deciding anything from absence. It never fails: what goes wrong is logged, shown in
 * `store.health`, and tried again with growing pauses.
 */
export const make = Effect.fnUntraced(function*<A extends KubeObject, const I extends string = never>(
  kind: KubeKind<A>,
  options?: ReflectorOptions<A, I>
): Effect.fn.Return<Store.Store<A, I>, never, KubeClient | Scope.Scope> {
  const client = yield* KubeClient
  const { store, writer } = Store.make<A, I>(options?.indices)
  const transform = options?.transform ?? dropManagedFields
  const watchTimeout = Duration.fromInputUnsafe(options?.watchTimeout ?? defaultWatchTimeout)
  // One object that does not fit must not hide all the others, so the schema is looked at here, object by object.
  const unchecked: KubeKind<A> = { ...kind, schema: undefined }
  const selection: Selection = {
    namespace: options?.namespace,
    labelSelector: options?.labelSelector,
    fieldSelector: options?.fieldSelector
  }

  let version: string | undefined
  let failures = 0

  const alive = () => {
    failures = 0
    writer.setProblem(Option.none())
  }

  const keyOfObject = ({ metadata: { name = "", namespace } }: A) => keyOf({ name, namespace })

  const list = Effect.fnUntraced(function*(pageSize: number | undefined) {
    const objects: Array<A> = []
    const malformed = new Map<string, KubeErrorReason>()
    let listed = ""
    let next: string | undefined
    do {
      const page = yield* client.list(unchecked, { ...selection, limit: pageSize, continue: next })
      for (const item of page.items) {
        const checked = yield* Effect.result(checkSchema(kind, item))
        if (Result.isSuccess(checked)) {
          objects.push(transform(item))
        } else {
          malformed.set(keyOfObject(item), checked.failure)
        }
      }
      next = page.continue
      listed = page.resourceVersion
    } while (next !== undefined)
    yield* Effect.sync(() => {
      version = listed
      writer.replace(objects, malformed)
    })
    yield* Effect.forEach(malformed.values(), (reason) => logMalformed(reason), { discard: true })
  })

  /** A list whose continue token expired on the way, because it is so long, is fetched in one piece instead. */
  const relist = list(options?.pageSize ?? defaultPageSize).pipe(
    Effect.catchReason("KubeError", "Gone", () => list(undefined))
  )

  const takeIn = Effect.fnUntraced(function*(event: WatchEvent<A>) {
    if (event._tag === "Bookmark") {
      version = event.resourceVersion
      return alive()
    }
    const { object } = event
    if (event._tag === "Deleted") {
      writer.remove(keyOfObject(object))
    } else {
      const checked = yield* Effect.result(checkSchema(kind, object))
      if (Result.isSuccess(checked)) {
        writer.put(transform(object))
      } else {
        writer.putMalformed(keyOfObject(object), checked.failure)
        yield* logMalformed(checked.failure)
      }
    }
    version = object.metadata.resourceVersion ?? version
    alive()
  })

  const watch = Effect.fnUntraced(function*(from: string) {
    const timeout = Duration.times(watchTimeout, 1 + (yield* Random.next))
    const silent = new KubeError({
      method: "GET",
      path: kind.plural,
      kind: kind.kind,
      reason: new Unavailable({ problem: "the watch fell silent", sent: true })
    })
    let events = 0
    const [duration] = yield* client.watch(unchecked, { ...selection, resourceVersion: from, timeout }).pipe(
      Stream.timeoutOrElse({ duration: silenceLimit, orElse: () => Stream.fail(silent) }),
      Stream.runForEach((event) => {
        events++
        return takeIn(event)
      }),
      Effect.timed
    )
    if (events === 0 && Duration.isLessThan(duration, shortWatch)) {
      yield* pause
    } else {
      alive()
    }
  })

  const pause = Effect.gen(function*() {
    failures++
    yield* Effect.sleep(backoff.delayMillis(failures) * (1 + jitter * (yield* Random.next)))
  })

  const step = Effect.suspend(() => version === undefined ? relist : watch(version)).pipe(
    Effect.catch((error) =>
      Effect.gen(function*() {
        if (!keepsVersion(error.reason)) {
          version = undefined
        }
        if (error.reason._tag === "Gone" && failures === 0) {
          failures++
          return
        }
        writer.setProblem(Option.some(error.reason))
        yield* failures === 0 ? Effect.logDebug(error.message) : Effect.logWarning(error.message)
        yield* pause
      })
    )
  )

  yield* Effect.forever(step).pipe(
    Effect.annotateLogs({ reflector: kind.plural }),
    Effect.forkScoped
  )
  return store
})
