/**
 * Tells changes of agents to any number of subscribers, each at its own pace. Whoever is told that something changed looks
 * at it as it is then, so what changes twice before it was told is told once. What waits for a slow subscriber is bounded: beyond the bound it is told to look at every agent again instead of what it missed, and at the ends of agents,
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
  /** By what it is about, in the order of the latest changes. */
  waiting: Map<string, AgentChange>
  overflowed: boolean
  readonly signal: Queue.Queue<void>
}

/** A feed of changes. */
export interface ChangeFeed {
  readonly publish: (changes: ReadonlyArray<AgentChange>) => void
  readonly changes: Stream.Stream<AgentChange>
}

const subjectOf = (change: AgentChange): string =>
  change._tag === "InstanceChanged" ? `${change.uid}/${change.instanceId}` : `${change._tag} ${change.uid}`

/** Makes a feed; `everyAgent` lists the uids that a subscriber who fell behind has to look at. */
export const make = (everyAgent: () => Iterable<string>): ChangeFeed => {
  const subscribers = new Set<Subscriber>()

  const take = (subscriber: Subscriber): ReadonlyArray<AgentChange> => {
    const { overflowed, waiting } = subscriber
    subscriber.waiting = new Map()
    subscriber.overflowed = false
    return overflowed
      ? [...waiting.values(), ...Array.from(everyAgent(), (uid): AgentChange => ({ _tag: "AgentChanged", uid }))]
      : [...waiting.values()]
  }

  return {
    publish: (changes) => {
      for (const subscriber of subscribers) {
        const kept = subscriber.overflowed ? changes.filter(({ _tag }) => _tag === "AgentGone") : changes
        for (const change of kept) {
          const subject = subjectOf(change)
          subscriber.waiting.delete(subject)
          subscriber.waiting.set(subject, change)
        }
        if (!subscriber.overflowed && subscriber.waiting.size > maxWaiting) {
          subscriber.overflowed = true
          subscriber.waiting = new Map([...subscriber.waiting].filter(([, { _tag }]) => _tag === "AgentGone"))
        }
        Queue.offerUnsafe(subscriber.signal, undefined)
      }
    },
    changes: Stream.unwrap(Effect.gen(function*() {
      const signal = yield* Queue.sliding<void>(1)
      const subscriber = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const subscriber: Subscriber = { waiting: new Map(), overflowed: false, signal }
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
