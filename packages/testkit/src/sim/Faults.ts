/**
 * What goes wrong on the way between two parts: a call is late, does not arrive, arrives twice, or takes effect and its
 * answer is lost. How often is drawn once for each simulation, so that some are quiet and some are storms; what happens
 * to each call is drawn from the same seed.
 *
 * A call that is on its way goes on when its caller is gone, as requests on a wire do.
 */
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { Seed } from "./Seed.ts"

/** Probabilities for one call, and the mean of its way in milliseconds. */
export interface Rates {
  readonly meanMillis: number
  /** It does not arrive; the caller is told. */
  readonly fail: number
  /** It takes effect; the caller is told that nobody knows. */
  readonly loseAnswer: number
  /** It arrives twice; the caller hears of the first arrival. */
  readonly duplicate: number
  /** It waits so long that others overtake it. */
  readonly stall: number
}

/** What can go wrong in one simulation. */
export interface FaultPlan {
  readonly kube: Rates
  readonly agents: Rates
  /** Mean time between two breaks of one watch, in milliseconds. */
  readonly watchBreakMillis: number
  /** Probability that a watch which begins again is told that its version is too old. */
  readonly watchGone: number
  /** Mean delay of watch events, in milliseconds. */
  readonly watchMillis: number
  /** Mean times between two of each disturbance, in milliseconds; Infinity: never. */
  readonly controllerCrashMillis: number
  readonly agentCrashMillis: number
  readonly agentSilenceMillis: number
  readonly podLossMillis: number
  readonly apiOutageMillis: number
}

/** The way of a call when all is well, in milliseconds. */
const calm: Rates = { meanMillis: 1, fail: 0, loseAnswer: 0, duplicate: 0, stall: 0 }

/** Mean extra way of a call that stalls, in milliseconds: longer than most of what the callers do meanwhile. */
const stallMillis = 3_000

/** A caller learns after this mean time that its call was lost, in milliseconds. */
const lossNoticeMillis = 2_000

/** How likely a caller who gives up stops a call that has not arrived yet. */
const cancelArrives = 0.5

const drawRates = (seed: Seed, meanMillis: number): Rates => {
  const level = () => seed.chance(0.4) ? 0 : seed.next() ** 2 * 0.2
  return {
    meanMillis: 1 + seed.next() ** 2 * meanMillis,
    fail: level(),
    loseAnswer: level(),
    duplicate: level(),
    stall: level() / 2
  }
}

const drawInterval = (seed: Seed, probability: number, least: number, most: number): number =>
  seed.chance(probability) ? least + seed.next() * (most - least) : Infinity

/** Draws what can go wrong. One simulation in ten has a network that works. */
export const draw = (seed: Seed): FaultPlan => {
  const isCalm = seed.chance(0.1)
  return {
    kube: isCalm ? calm : drawRates(seed, 60),
    agents: isCalm ? calm : drawRates(seed, 40),
    watchBreakMillis: isCalm ? Infinity : drawInterval(seed, 0.7, 5_000, 60_000),
    watchGone: seed.chance(0.5) ? seed.next() * 0.5 : 0,
    watchMillis: isCalm ? 1 : 1 + seed.next() ** 3 * 1_500,
    controllerCrashMillis: drawInterval(seed, 0.7, 3_000, 40_000),
    agentCrashMillis: drawInterval(seed, 0.5, 10_000, 60_000),
    agentSilenceMillis: drawInterval(seed, 0.5, 15_000, 60_000),
    podLossMillis: drawInterval(seed, 0.4, 20_000, 90_000),
    apiOutageMillis: drawInterval(seed, 0.3, 20_000, 90_000)
  }
}

/** One call over the network. */
export interface Transfer<A, E> {
  /** What the callee does with it. */
  readonly work: Effect.Effect<A, E>
  /** What the caller is told when the call was lost; `arrived`: it may have taken effect. */
  readonly lost: (arrived: boolean) => E
  /** Calls with the same route arrive in the order in which they were made. */
  readonly route?: Route | undefined
}

/** A connection on which nothing overtakes. */
export class Route {
  private lastArrival = 0

  /** When what is sent now after a way of this length arrives. */
  arrival(now: number, wayMillis: number): number {
    this.lastArrival = Math.max(this.lastArrival, now + wayMillis)
    return this.lastArrival
  }
}

/** Options of a {@link Network}. */
export interface NetworkOptions {
  readonly seed: Seed
  /** The world's scope: calls end with it, not with their callers. */
  readonly scope: Scope.Scope
  /** The world's services. */
  readonly world: Context.Context<never>
  readonly now: () => number
  /** Whether the caller's process was killed: then it sends nothing more and hears of nothing more. */
  readonly isDead: () => boolean
}

/** Carries the calls of one process. */
export class Network {
  isHealed = false
  private readonly seed: Seed
  private readonly scope: Scope.Scope
  private readonly now: () => number
  private readonly world: Context.Context<never>
  private readonly isDead: () => boolean

  constructor({ isDead, now, scope, seed, world }: NetworkOptions) {
    this.seed = seed
    this.scope = scope
    this.now = now
    this.world = world
    this.isDead = isDead
  }

  /** Runs in the world, not in the process of the caller. */
  private outside(effect: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.sync(() => {
      Effect.runForkWith(this.world)(effect)
    })
  }

  /** A way of this mean length, in milliseconds. */
  way(meanMillis: number): number {
    return this.isHealed ? calm.meanMillis : this.seed.exponential(meanMillis)
  }

  /** Makes a call. */
  call<A, E>(rates: Rates, { lost, route, work }: Transfer<A, E>): Effect.Effect<A, E> {
    return Effect.suspend(() => {
      const { isDead, scope, seed } = this
      if (isDead()) {
        return Effect.never
      }
      const { duplicate, fail, loseAnswer, meanMillis, stall } = this.isHealed ? calm : rates
      const oneWay = () => this.way(meanMillis / 2) + (seed.chance(stall) ? seed.exponential(stallMillis) : 0)
      if (seed.chance(fail)) {
        return Effect.flatMap(Effect.sleep(oneWay()), () => Effect.fail(lost(false)))
      }
      const way = oneWay()
      const now = this.now()
      const travel = Effect.sleep(route === undefined ? way : route.arrival(now, way) - now)
      const isLost = seed.chance(loseAnswer)
      const isDoubled = seed.chance(duplicate)
      const answer = Deferred.makeUnsafe<A, E>()
      let hasArrived = false
      let isCancelled = false
      const serve = Effect.gen({ self: this }, function*() {
        yield* travel
        if (isCancelled) {
          return
        }
        hasArrived = true
        const first = yield* Effect.forkIn(work, scope)
        if (isDoubled) {
          yield* Effect.forkIn(work, scope)
        }
        const exit = yield* Fiber.await(first)
        yield* Effect.sleep(isLost ? seed.exponential(lossNoticeMillis) : oneWay())
        if (!isDead()) {
          yield* isLost ? Deferred.fail(answer, lost(true)) : Deferred.done(answer, exit)
        }
      })
      return this.outside(serve).pipe(
        Effect.andThen(Deferred.await(answer)),
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            isCancelled = !hasArrived && seed.chance(cancelArrives)
          })
        )
      )
    })
  }
}
