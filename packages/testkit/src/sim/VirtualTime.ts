/**
 * Runs Effect programs without the machine's clock and event loop: fibers take their turns in one queue, and when none
 * is ready the time jumps to the next timer. A program runs as fast as the machine computes, and the same program takes
 * the same steps in the same order every time.
 *
 * Nothing outside may be waited for: no socket, no promise, no timer of the machine.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as WebCrypto from "effect/crypto/WebCrypto"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as References from "effect/References"
import * as Scheduler from "effect/Scheduler"
import type { Seed } from "./Seed.ts"

/** When every simulation begins, in milliseconds since the epoch. */
export const epochMillis = Date.UTC(2030, 0, 1)

/** Steps at one instant after which a program is taken to run in circles. */
const maxStepsPerInstant = 2_000_000

/** Operations after which a fiber lets others have their turn: Effect's own default. */
const maxOperations = 2048

/** Of so many ready fibers one takes its turn, by lot: the order of those that are ready is nobody's promise. */
const lotSize = 4

interface Timer {
  readonly at: number
  readonly order: number
  fire: (() => void) | undefined
}

const isEarlier = (a: Timer, b: Timer): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

/** Timers, the earliest first: a binary heap. */
class Timers {
  private readonly heap: Array<Timer> = []

  push(timer: Timer): void {
    const { heap } = this
    let at = heap.length
    heap.push(timer)
    while (at > 0) {
      const parent = (at - 1) >>> 1
      const above = heap[parent]
      if (above === undefined || !isEarlier(timer, above)) {
        break
      }
      heap[at] = above
      at = parent
    }
    heap[at] = timer
  }

  pop(): Timer | undefined {
    const { heap } = this
    const first = heap[0]
    const last = heap.pop()
    if (first === undefined || last === undefined || heap.length === 0) {
      return first
    }
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      const left = heap[child]
      const right = heap[child + 1]
      if (left === undefined) {
        break
      }
      let below = left
      if (right !== undefined && isEarlier(right, left)) {
        below = right
        child++
      }
      if (isEarlier(last, below)) {
        break
      }
      heap[at] = below
      at = child
    }
    heap[at] = last
    return first
  }
}

const millisToNanos = (millis: number): bigint => BigInt(Math.round(millis * 1e6))

/** The program can't go on: it waits for something that never happens in here, or runs in circles. */
export class Stuck extends Error {
  override readonly name = "Stuck"
}

interface Life {
  isDead: boolean
}

/** A process inside of a simulation. */
export interface Process {
  /** The services that make an Effect program run in it. */
  readonly context: Context.Context<never>
  readonly isDead: () => boolean
  /** As `kill -9` does: no fiber of it takes another turn, no finalizer runs. */
  readonly kill: () => void
}

/** Time, turns and randomness of one simulation. */
export class VirtualTime {
  private nowMillis = epochMillis
  private order = 0
  private readonly ready: Array<() => void> = []
  private readonly timers = new Timers()
  private readonly lots: Seed

  private readonly shared: Context.Context<never>

  /** The services that make an Effect program run in here. */
  readonly context: Context.Context<never>

  constructor(seed: Seed) {
    this.lots = seed.fork("turns")
    const ids = seed.fork("ids")
    this.shared = Context.empty().pipe(
      Context.add(Random.Random, seed.fork("random").random),
      Context.add(WebCrypto.WebCrypto, {
        subtle: globalThis.crypto.subtle,
        getRandomValues: <A>(array: A): A => array,
        randomUUID: () => ids.uuid()
      }),
      Context.add(References.TracerEnabled, false)
    )
    this.context = this.process().context
  }

  /** A process of its own: what runs in its context stops for ever, without a last word, when it is killed. */
  process(): Process {
    const life = { isDead: false }
    return {
      context: this.shared.pipe(
        Context.add(Scheduler.Scheduler, this.scheduler(life)),
        Context.add(Clock.Clock, this.clock(life))
      ),
      isDead: () => life.isDead,
      kill: () => {
        life.isDead = true
      }
    }
  }

  /** Milliseconds since the epoch. */
  get now(): number {
    return this.nowMillis
  }

  private scheduler(life: Life): Scheduler.Scheduler {
    return {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= maxOperations,
      makeDispatcher: () => ({
        scheduleTask: (task) => {
          this.ready.push(() => {
            if (!life.isDead) {
              task()
            }
          })
        },
        flush: () => {}
      })
    }
  }

  private clock(life: Life): Clock.Clock {
    return {
      currentTimeMillisUnsafe: () => Math.floor(this.nowMillis),
      currentTimeMillis: Effect.sync(() => Math.floor(this.nowMillis)),
      currentTimeNanosUnsafe: () => millisToNanos(this.nowMillis),
      currentTimeNanos: Effect.sync(() => millisToNanos(this.nowMillis)),
      monotonicTimeNanosUnsafe: () => millisToNanos(this.nowMillis - epochMillis),
      monotonicTimeNanos: Effect.sync(() => millisToNanos(this.nowMillis - epochMillis)),
      sleep: (duration) => {
        const millis = Duration.toMillis(duration)
        if (!Number.isFinite(millis)) {
          return Effect.never
        }
        return Effect.callback<void>((resume) => {
          const timer = this.at(this.nowMillis + Math.max(0, millis), () => {
            if (!life.isDead) {
              resume(Effect.void)
            }
          })
          return Effect.sync(() => {
            timer.fire = undefined
          })
        })
      }
    }
  }

  private at(millis: number, fire: () => void): Timer {
    const timer: Timer = { at: millis, order: this.order++, fire }
    this.timers.push(timer)
    return timer
  }

  /** Takes out the next task: by lot among the oldest ones. */
  private takeReady(): (() => void) | undefined {
    const { ready } = this
    if (ready.length <= 1) {
      return ready.pop()
    }
    const at = this.lots.below(Math.min(lotSize, ready.length))
    const [task] = ready.splice(at, 1)
    return task
  }

  /** Runs the effect to its end, with everything that it sets off; throws {@link Stuck} when it can't get there. */
  run<A, E>(effect: Effect.Effect<A, E>): Exit.Exit<A, E> {
    const fiber: Fiber.Fiber<A, E> = Effect.runForkWith(this.context)(effect)
    let steps = 0
    for (;;) {
      const task = this.takeReady()
      if (task !== undefined) {
        task()
        if (++steps > maxStepsPerInstant) {
          throw new Stuck(`more than ${maxStepsPerInstant} steps and no time passed`)
        }
        continue
      }
      const exit = fiber.pollUnsafe()
      if (exit !== undefined) {
        return exit
      }
      const timer = this.timers.pop()
      if (timer === undefined) {
        throw new Stuck("nothing is left to happen; something waits for what never comes")
      }
      if (timer.fire !== undefined) {
        // a wait that is too short to move the clock is no time that passes
        if (timer.at > this.nowMillis) {
          steps = 0
          this.nowMillis = timer.at
        } else {
          steps++
        }
        timer.fire()
      }
    }
  }
}
