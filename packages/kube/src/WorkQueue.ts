/**
 * A keyed queue for level-triggered work: a key stands for "look at this object again". However often a key is added
 * while it waits it is worked on once; a key that is added while it is worked on is worked on again afterwards; no key
 * is ever worked on twice at once. Failed keys wait longer and longer, each for itself.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"

/** How long a key that failed `failures` times in a row has to wait. */
export interface Backoff {
  readonly name: string
  readonly delayMillis: (failures: number) => number
}

/** Doubles from `base` up to `cap`. */
export declare const exponentialBackoff: (options: {
  readonly name: string
  readonly base: Duration.Input
  readonly cap: Duration.Input
}) => Backoff

/** What a worker may answer: nothing when the key is done, or when to look at it again although nothing failed. */
export type Outcome = void | { readonly requeueAfter: Duration.Input }

/** A queue of keys. */
export interface WorkQueue<K extends string> {
  /** Work on the key as soon as possible. Ignored after `drain`. */
  add(key: K): Effect.Effect<void>
  /** Work on the key after a delay; of several delays the shortest wins. */
  addAfter(key: K, delay: Duration.Input): Effect.Effect<void>
  /**
   * Runs workers until the queue is drained. A worker that fails or dies is logged and its key is tried again after the
   * backoff; a success resets it. Interrupting `run` interrupts the workers, whose keys stay in the queue.
   */
  run<E, R>(
    options: { readonly workers: number },
    work: (key: K) => Effect.Effect<Outcome, E, R>
  ): Effect.Effect<void, never, R>
  /** Takes no more keys, forgets the delayed ones, and waits until what was ready has been worked on. */
  readonly drain: Effect.Effect<void>
  /** Keys ready to be worked on, keys being worked on, and keys waiting for their time. */
  readonly size: Effect.Effect<{ readonly ready: number; readonly active: number; readonly delayed: number }>
}

/** Makes a queue. `name` labels its metrics and logs. The default backoff goes from 5 ms to 1000 s, as client-go's. */
export declare const make: <K extends string = string>(options: {
  readonly name: string
  readonly backoff?: Backoff | undefined
}) => Effect.Effect<WorkQueue<K>>
