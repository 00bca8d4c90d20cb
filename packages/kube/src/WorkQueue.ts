/**
 * A keyed queue for level-triggered work: a key stands for "look at this object again". However often a key is added
 * while it waits it is worked on once; a key that is added while it is worked on is worked on again afterwards; no key
 * is ever worked on twice at once. Failed keys wait longer and longer, each for itself. Its size is bounded by the
 * number of different keys.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import * as Backoff from "./Backoff.ts"
import * as QueueState from "./internal/QueueState.ts"

/** What a worker may answer: nothing when the key is done, or when to look at it again although nothing failed. */
export type Outcome = void | { readonly requeueAfter: Duration.Input }

/** A queue of keys. */
export interface WorkQueue<K extends string> {
  /** Work on the key as soon as possible, whatever it was waiting for. Ignored after `drain`. */
  add(key: K): Effect.Effect<void>
  /** Work on the key after a delay; of several delays the earliest end wins. Ignored after `drain`. */
  addAfter(key: K, delay: Duration.Input): Effect.Effect<void>
  /**
   * Works on keys until the queue is drained. Work that fails or dies is logged and its key is tried again after the
   * backoff; a success resets it. Interrupting `run` interrupts the work at hand, whose keys stay in the queue. A queue
   * is run once at a time.
   */
  run<E, R>(
    options: { readonly workers: number },
    work: (key: K) => Effect.Effect<Outcome, E, R>
  ): Effect.Effect<void, never, R>
  /** Takes no more keys, forgets the delayed ones, and waits until `run` has worked on those that were ready. */
  readonly drain: Effect.Effect<void>
  /** Keys that are ready, being worked on, and waiting for their time. */
  readonly size: Effect.Effect<{ readonly ready: number; readonly active: number; readonly delayed: number }>
}

/** client-go's: quick at first, for conflicts; after 18 failures once in a quarter of an hour. */
export const defaultBackoff: Backoff.Backoff = Backoff.exponential({
  name: "workqueue",
  base: "5 millis",
  cap: "1000 seconds"
})

const seconds = Metric.exponentialBoundaries({ start: 0.001, factor: 4, count: 10 })

const metrics = {
  depth: Metric.gauge("fsb_workqueue_depth", { description: "Keys that are ready to be worked on" }),
  wait: Metric.histogram("fsb_workqueue_wait_seconds", {
    description: "Time between a key's being ready and the start of work on it",
    boundaries: seconds
  }),
  work: Metric.histogram("fsb_workqueue_work_seconds", {
    description: "Duration of the work on a key",
    boundaries: seconds
  }),
  retries: Metric.counter("fsb_workqueue_retries_total", {
    description: "Keys that failed and are to be tried again",
    incremental: true
  })
}

const resultOf = <E>(exit: Exit.Exit<Outcome, E>): QueueState.Result =>
  Exit.isFailure(exit)
    ? { _tag: "Failed" }
    : exit.value === undefined
    ? { _tag: "Done" }
    : { _tag: "Again", delayMillis: Duration.toMillis(exit.value.requeueAfter) }

/** Makes a queue. `name` labels its metrics, logs and spans. */
export const make = Effect.fnUntraced(function*<K extends string = string>(options: {
  readonly name: string
  readonly backoff?: Backoff.Backoff | undefined
}): Effect.fn.Return<WorkQueue<K>> {
  const backoff = options.backoff ?? defaultBackoff
  const label = { queue: options.name }
  const depth = Metric.withAttributes(metrics.depth, label)
  const wait = Metric.withAttributes(metrics.wait, label)
  const duration = Metric.withAttributes(metrics.work, label)
  const retries = Metric.withAttributes(metrics.retries, label)

  const state = QueueState.empty<K>()
  const context = yield* Effect.context<never>()
  const changed = yield* Queue.sliding<void>(1)
  const drained = yield* Deferred.make<void>()

  const step = <A>(f: (now: number) => A): Effect.Effect<A> =>
    Clock.clockWith((clock) => {
      const result = f(clock.currentTimeMillisUnsafe())
      depth.updateUnsafe(state.ready.size, context)
      if (QueueState.isDrained(state)) {
        Deferred.doneUnsafe(drained, Effect.void)
      }
      Queue.offerUnsafe(changed, undefined)
      return Effect.succeed(result)
    })

  const run = <E, R>(
    { workers }: { readonly workers: number },
    work: (key: K) => Effect.Effect<Outcome, E, R>
  ): Effect.Effect<void, never, R> =>
    Effect.scoped(Effect.gen(function*() {
      // The last to run at the end: by then nobody works any more, and what is still active was interrupted.
      yield* Effect.addFinalizer(() => step((now) => QueueState.putBackActive(state, now)))
      const fibers = yield* FiberSet.make<void>()
      let closing = false
      yield* Effect.addFinalizer(() => Effect.sync(() => closing = true))

      const workOn = (key: K) =>
        Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
          const exit = yield* restore(work(key)).pipe(
            Effect.trackDuration(duration, Duration.toSeconds),
            Effect.withSpan(`WorkQueue.${options.name}`, { root: true, attributes: { key } }),
            Effect.exit
          )
          if (closing && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) {
            return
          }
          const failures = yield* step((now) => QueueState.finish(state, key, resultOf(exit), backoff, now))
          if (Exit.isFailure(exit)) {
            yield* Metric.update(retries, 1)
            yield* Effect.logWarning(`failed ${failures} times in a row`, exit.cause)
          }
        })).pipe(Effect.annotateLogs({ queue: options.name, key }))

      while (!QueueState.isDrained(state)) {
        const now = yield* Clock.currentTimeMillis
        const next = QueueState.advance(state, now)
        while (state.active.size < workers) {
          const taken = QueueState.take(state, now)
          if (taken === undefined) {
            break
          }
          yield* Metric.update(wait, taken.waitedMillis / 1000)
          yield* FiberSet.run(fibers, workOn(taken.key))
        }
        yield* Metric.update(depth, state.ready.size)
        const something = Queue.take(changed)
        yield* next === undefined ? something : Effect.timeoutOption(something, next - now)
      }
    }))

  return {
    add: (key) => step((now) => QueueState.add(state, key, now)),
    addAfter: (key, delay) =>
      step((now) => QueueState.addAt(state, key, now + Duration.toMillis(Duration.fromInputUnsafe(delay)), now)),
    run,
    drain: Effect.andThen(step(() => QueueState.drain(state)), Deferred.await(drained)),
    size: Effect.sync(() => ({ ready: state.ready.size, active: state.active.size, delayed: state.delayed.size }))
  }
})
