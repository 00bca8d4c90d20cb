/**
 * Tells subscribers which keys may have changed. A key that waits is told once, so a slow subscriber costs at most one
 * entry for each key and misses none.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

interface Subscriber {
  waiting: Set<string>
  readonly signal: Queue.Queue<void>
}

/** A feed of keys. */
export interface KeyFeed {
  readonly publish: (key: string) => void
  /** A subscription that begins now and ends with the scope. */
  readonly subscribe: Effect.Effect<Stream.Stream<string>, never, Scope.Scope>
}

/** Makes a feed. */
export const make = (): KeyFeed => {
  const subscribers = new Set<Subscriber>()
  const take = (subscriber: Subscriber): ReadonlySet<string> => {
    const { waiting } = subscriber
    subscriber.waiting = new Set()
    return waiting
  }
  return {
    publish: (key) => {
      for (const { signal, waiting } of subscribers) {
        waiting.add(key)
        Queue.offerUnsafe(signal, undefined)
      }
    },
    subscribe: Effect.gen(function*() {
      const signal = yield* Queue.sliding<void>(1)
      const subscriber = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const subscriber: Subscriber = { waiting: new Set(), signal }
          subscribers.add(subscriber)
          return subscriber
        }),
        (subscriber) => Effect.sync(() => subscribers.delete(subscriber))
      )
      return Stream.fromQueue(signal).pipe(Stream.map(() => take(subscriber)), Stream.flattenIterable)
    })
  }
}
