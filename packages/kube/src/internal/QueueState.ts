/**
 * The state of a work queue and its steps, without time or effects of its own: `now` is always given.
 *
 * Every key is in at most one of the states ready, active and delayed, except that an active key may also be marked to
 * be worked on again or delayed at the same time.
 */
import type { Backoff } from "../Backoff.ts"

/** What became of the work on a key. */
export type Result =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Again"; readonly delayMillis: number }
  | { readonly _tag: "Failed" }

/** The state of a queue. Sets and maps keep the order of insertion, which is the order of work. */
export interface QueueState<K> {
  /** Keys to be worked on, and since when they could have been. */
  readonly ready: Map<K, number>
  /** Keys being worked on, and since when they are wanted again, if they are. */
  readonly active: Map<K, number | undefined>
  /** Keys that wait for their time. */
  readonly delayed: Map<K, number>
  /** Failures in a row. */
  readonly failures: Map<K, number>
  draining: boolean
}

/** An empty queue. */
export const empty = <K>(): QueueState<K> => ({
  ready: new Map(),
  active: new Map(),
  delayed: new Map(),
  failures: new Map(),
  draining: false
})

const makeReady = <K>(state: QueueState<K>, key: K, now: number): void => {
  state.delayed.delete(key)
  if (state.active.has(key)) {
    state.active.set(key, state.active.get(key) ?? now)
  } else if (!state.ready.has(key)) {
    state.ready.set(key, now)
  }
}

/** The key is to be worked on as soon as possible. */
export const add = <K>(state: QueueState<K>, key: K, now: number): void => {
  if (!state.draining) {
    makeReady(state, key, now)
  }
}

/** The key is to be worked on at a time; the earliest of several wins, and now is the earliest of all. */
export const addAt = <K>(state: QueueState<K>, key: K, at: number, now: number): void => {
  if (state.draining || state.ready.has(key) || state.active.get(key) !== undefined) {
    return
  }
  if (at <= now) {
    makeReady(state, key, now)
  } else {
    state.delayed.set(key, Math.min(at, state.delayed.get(key) ?? at))
  }
}

/** Moves the delayed keys whose time has come, in the order of their times. Answers with the next time, if any. */
export const advance = <K>(state: QueueState<K>, now: number): number | undefined => {
  const due = Array.from(state.delayed).filter(([, at]) => at <= now).toSorted(([, one], [, other]) => one - other)
  for (const [key, at] of due) {
    makeReady(state, key, at)
  }
  let next: number | undefined
  for (const at of state.delayed.values()) {
    next = next === undefined ? at : Math.min(next, at)
  }
  return next
}

/** Takes the next key to work on, and for how long it had been ready. */
export const take = <K>(
  state: QueueState<K>,
  now: number
): { readonly key: K; readonly waitedMillis: number } | undefined => {
  for (const [key, since] of state.ready) {
    state.ready.delete(key)
    state.active.set(key, undefined)
    return { key, waitedMillis: now - since }
  }
  return undefined
}

/**
 * Notes what became of an active key. One that was added meanwhile is ready at once, even if it failed: the world has
 * changed since. Answers with the number of failures in a row.
 */
export const finish = <K>(state: QueueState<K>, key: K, result: Result, backoff: Backoff, now: number): number => {
  const again = state.active.get(key)
  state.active.delete(key)
  const failures = result._tag === "Failed" ? (state.failures.get(key) ?? 0) + 1 : 0
  if (failures === 0 || state.draining) {
    state.failures.delete(key)
  } else {
    state.failures.set(key, failures)
  }
  if (again !== undefined) {
    makeReady(state, key, again)
  } else if (result._tag === "Failed") {
    addAt(state, key, now + backoff.delayMillis(failures), now)
  } else if (result._tag === "Again") {
    addAt(state, key, now + result.delayMillis, now)
  }
  return failures
}

/** Puts back all keys whose work was interrupted. */
export const putBackActive = <K>(state: QueueState<K>, now: number): void => {
  for (const key of Array.from(state.active.keys())) {
    state.active.delete(key)
    makeReady(state, key, now)
  }
}

/** Takes no more keys and forgets the delayed ones. */
export const drain = <K>(state: QueueState<K>): void => {
  state.draining = true
  state.delayed.clear()
  state.failures.clear()
}

/** Nothing is left to be done, and nothing will come. */
export const isDrained = <K>(state: QueueState<K>): boolean =>
  state.draining && state.ready.size === 0 && state.active.size === 0
