/**
 * Tells changes of agents to any number of subscribers, each at its own pace. What waits for a slow subscriber is
 * bounded: beyond the bound it is told to look at every agent again instead of what it missed, and at the ends of agents,
 * which it could not find by looking.
 */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { AgentChange } from "../Agents.ts"

/**
 * Subscribers hear of changes this long after they happened: work that nobody waits for must not stand in the way of an
 * answer that somebody does wait for, and which the change came with.
 */
const answerFirst = "5 millis"

/** Changes that wait for one subscriber before they are folded: a few seconds of a busy controller. */
const maxWaiting = 4096

interface Subscriber {
  waiting: Array<AgentChange>
  overflowed: boolean
  readonly signal: Queue.Queue<void>
}

/** A feed of changes. */
export interface ChangeFeed {
  readonly publish: (changes: ReadonlyArray<AgentChange>) => void
  readonly changes: Stream.Stream<AgentChange>
}

/** Makes a feed; `everyAgent` lists the uids that a subscriber who fell behind has to look at. */
export const make = (everyAgent: () => Iterable<string>): ChangeFeed => {
  const subscribers = new Set<Subscriber>()

  const take = (subscriber: Subscriber): ReadonlyArray<AgentChange> => {
    const { overflowed, waiting } = subscriber
    subscriber.waiting = []
    subscriber.overflowed = false
    return overflowed
      ? [...waiting, ...Array.from(everyAgent(), (uid): AgentChange => ({ _tag: "AgentChanged", uid }))]
      : waiting
  }

  return {
    publish: (changes) => {
      for (const subscriber of subscribers) {
        const kept = subscriber.overflowed ? changes.filter(({ _tag }) => _tag === "AgentGone") : changes
        subscriber.waiting.push(...kept)
        if (!subscriber.overflowed && subscriber.waiting.length > maxWaiting) {
          subscriber.overflowed = true
          subscriber.waiting = subscriber.waiting.filter(({ _tag }) => _tag === "AgentGone")
        }
        Queue.offerUnsafe(subscriber.signal, undefined)
      }
    },
    changes: Stream.unwrap(Effect.gen(function*() {
      const signal = yield* Queue.sliding<void>(1)
      const subscriber = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const subscriber: Subscriber = { waiting: [], overflowed: false, signal }
          subscribers.add(subscriber)
          return subscriber
        }),
        (subscriber) => Effect.sync(() => subscribers.delete(subscriber))
      )
      return Stream.fromQueue(signal).pipe(
        Stream.tap(() => Effect.sleep(answerFirst)),
        Stream.map(() => take(subscriber)),
        Stream.flattenIterable
      )
    }))
  }
}
