/**
 * The cache of a reflector: a consistent snapshot of the objects of one kind, and its changes. Every step of the cache
 * is taken between two instructions of any reader.
 */
import * as Arr from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { KubeErrorReason } from "./KubeError.ts"
import { keyOf, type KubeObject, type ObjectRef } from "./KubeObject.ts"

/**
 * A difference between two snapshots. An object that was deleted and made again under its name is reported as `Deleted`
 * and `Added`. `Synced` says that everything the server had at the time has been delivered; it comes again after every
 * new list.
 */
export type Change<A> =
  | { readonly _tag: "Added"; readonly object: A }
  | { readonly _tag: "Modified"; readonly object: A; readonly previous: A }
  /** `object` is what this subscriber saw last. */
  | { readonly _tag: "Deleted"; readonly object: A }
  | { readonly _tag: "Synced" }

/** How a reflector is doing. */
export interface Health {
  /** The first list has been taken in. */
  readonly synced: boolean
  /** Why the copy stopped being kept up to date; none again with the next sign of life. */
  readonly problem: Option.Option<KubeErrorReason>
}

/** A live, consistent copy of the objects of one kind. `I` are the names of its indices. */
export interface Store<A extends KubeObject, I extends string = never> {
  /** One object, if it exists. */
  get(ref: ObjectRef): Effect.Effect<Option.Option<A>>
  /** All objects, in the order of their keys. */
  readonly list: Effect.Effect<ReadonlyArray<A>>
  /** The objects for which the index function gave this value, in the order of their keys. */
  byIndex(index: I, value: string): Effect.Effect<ReadonlyArray<A>>
  /** Waits until the first list has been taken in; absence means nothing before. */
  readonly synced: Effect.Effect<void>
  /**
   * First the current objects as `Added`, then `Synced`, then every difference. Each subscriber sees differences to
   * what it saw last: one that is slow sees fewer and bigger steps, and costs at most one entry for each object.
   */
  readonly changes: Stream.Stream<Change<A>>
  /** How the copying is going. */
  readonly health: Effect.Effect<Health>
  /**
   * Keys (`namespace/name`) of objects that exist but do not fit the schema of their kind, and why. The cache keeps
   * what it knew of them before, which may be nothing.
   */
  readonly malformed: Effect.Effect<ReadonlyMap<string, KubeErrorReason>>
}

/** The writing side of a store, for its reflector. */
export interface StoreWriter<A extends KubeObject> {
  /** Makes the cache equal to a list, which also ends a problem. Objects that do not fit their schema are given by key. */
  replace(objects: ReadonlyArray<A>, malformed: ReadonlyMap<string, KubeErrorReason>): void
  /** Takes in an object that was added or modified. */
  put(object: A): void
  /** Notes that an object exists but does not fit its schema. */
  putMalformed(key: string, reason: KubeErrorReason): void
  /** Takes out an object that was deleted. */
  remove(key: string): void
  /** Notes how the copying is going. */
  setProblem(problem: Option.Option<KubeErrorReason>): void
}

/** The functions that find the index values of an object. */
export type Indices<A, I extends string> = { readonly [name in I]: (object: A) => ReadonlyArray<string> }

/**
 * What one subscriber has yet to be told: for each object that changed since it last looked, what it saw of it then.
 * Differences are only formed when it looks again, so there is no buffer that could overflow.
 */
interface Subscriber<A> {
  readonly seen: Map<string, A | undefined>
  synced: boolean
  readonly wake: Queue.Queue<void>
}

const keyOfObject = (object: KubeObject): string =>
  keyOf({ name: object.metadata.name ?? "", namespace: object.metadata.namespace })

const differences = <A extends KubeObject>(before: A | undefined, now: A | undefined): ReadonlyArray<Change<A>> => {
  if (before === undefined) {
    return now === undefined ? [] : [{ _tag: "Added", object: now }]
  }
  if (now === undefined) {
    return [{ _tag: "Deleted", object: before }]
  }
  if (before.metadata.uid !== now.metadata.uid) {
    return [{ _tag: "Deleted", object: before }, { _tag: "Added", object: now }]
  }
  return before === now ? [] : [{ _tag: "Modified", object: now, previous: before }]
}

const isSame = (one: KubeObject, other: KubeObject): boolean =>
  one.metadata.resourceVersion !== undefined && one.metadata.resourceVersion === other.metadata.resourceVersion &&
  one.metadata.uid === other.metadata.uid

/** An empty store and its writing side. */
export const make = <A extends KubeObject, I extends string>(
  indices: Indices<A, I> | undefined
): { readonly store: Store<A, I>; readonly writer: StoreWriter<A> } => {
  const objects = new Map<string, A>()
  const index = new Map<string, Map<string, Set<string>>>()
  const indexers: ReadonlyArray<readonly [string, (object: A) => ReadonlyArray<string>]> = Object.entries(indices ?? {})
  const subscribers = new Set<Subscriber<A>>()
  const synced = Deferred.makeUnsafe<void>()
  let malformed: ReadonlyMap<string, KubeErrorReason> = new Map()
  let problem = Option.none<KubeErrorReason>()

  const setIndexed = (key: string, object: A, present: boolean) => {
    for (const [name, valuesOf] of indexers) {
      const values = index.get(name) ?? new Map<string, Set<string>>()
      index.set(name, values)
      for (const value of valuesOf(object)) {
        const keys = values.get(value) ?? new Set<string>()
        if (present) {
          values.set(value, keys.add(key))
        } else if (keys.delete(key) && keys.size === 0) {
          values.delete(value)
        }
      }
    }
  }

  const set = (key: string, now: A | undefined) => {
    const before = objects.get(key)
    if (before === now || (before !== undefined && now !== undefined && isSame(before, now))) {
      return
    }
    if (before !== undefined) {
      setIndexed(key, before, false)
    }
    if (now === undefined) {
      objects.delete(key)
    } else {
      objects.set(key, now)
      setIndexed(key, now, true)
    }
    for (const subscriber of subscribers) {
      if (!subscriber.seen.has(key)) {
        subscriber.seen.set(key, before)
      } else if (now === undefined && subscriber.seen.get(key) === undefined) {
        subscriber.seen.delete(key)
      }
    }
  }

  /** The last thing to do in every step, since those who are woken may run at once. */
  const wake = () => {
    for (const subscriber of subscribers) {
      Queue.offerUnsafe(subscriber.wake, undefined)
    }
  }

  const setFitting = (key: string) => {
    if (malformed.has(key)) {
      malformed = new Map(Array.from(malformed).filter(([other]) => other !== key))
    }
  }

  const writer: StoreWriter<A> = {
    replace: (list, notFitting) => {
      const listed = new Set<string>(notFitting.keys())
      for (const object of list) {
        const key = keyOfObject(object)
        listed.add(key)
        set(key, object)
      }
      for (const key of Array.from(objects.keys())) {
        if (!listed.has(key)) {
          set(key, undefined)
        }
      }
      malformed = notFitting
      problem = Option.none()
      for (const subscriber of subscribers) {
        subscriber.synced = true
      }
      Deferred.doneUnsafe(synced, Effect.void)
      wake()
    },
    put: (object) => {
      const key = keyOfObject(object)
      setFitting(key)
      set(key, object)
      wake()
    },
    putMalformed: (key, reason) => {
      malformed = new Map(malformed).set(key, reason)
    },
    remove: (key) => {
      setFitting(key)
      set(key, undefined)
      wake()
    },
    setProblem: (now) => {
      problem = now
    }
  }

  const subscribe = Effect.acquireRelease(
    Effect.map(Queue.sliding<void>(1), (wake) => {
      const subscriber: Subscriber<A> = {
        seen: new Map(Array.from(objects.keys()).toSorted().map((key) => [key, undefined])),
        synced: Deferred.isDoneUnsafe(synced),
        wake
      }
      subscribers.add(subscriber)
      Queue.offerUnsafe(wake, undefined)
      return subscriber
    }),
    (subscriber) => Effect.sync(() => subscribers.delete(subscriber))
  )

  const next = (subscriber: Subscriber<A>): Effect.Effect<Arr.NonEmptyReadonlyArray<Change<A>>> =>
    Effect.flatMap(Queue.take(subscriber.wake), () => {
      const changes: Array<Change<A>> = []
      for (const [key, before] of subscriber.seen) {
        changes.push(...differences(before, objects.get(key)))
      }
      subscriber.seen.clear()
      if (subscriber.synced) {
        subscriber.synced = false
        changes.push({ _tag: "Synced" })
      }
      return Arr.isReadonlyArrayNonEmpty(changes) ? Effect.succeed(changes) : next(subscriber)
    })

  const store: Store<A, I> = {
    get: (ref) => Effect.sync(() => Option.fromUndefinedOr(objects.get(keyOf(ref)))),
    list: Effect.sync(() => Array.from(objects).toSorted(byKey).map(([, object]) => object)),
    byIndex: (name, value) =>
      Effect.sync(() =>
        Array.from(index.get(name)?.get(value) ?? []).toSorted().flatMap((key) => objects.get(key) ?? [])
      ),
    synced: Deferred.await(synced),
    changes: Stream.fromPull(Effect.map(subscribe, next)).pipe(Stream.scoped),
    health: Effect.sync(() => ({ synced: Deferred.isDoneUnsafe(synced), problem })),
    malformed: Effect.sync(() => malformed)
  }
  return { store, writer }
}

const byKey = ([one]: readonly [string, unknown], [other]: readonly [string, unknown]): number =>
  one < other ? -1 : one > other ? 1 : 0
