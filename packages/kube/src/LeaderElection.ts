/**
 * Leader election on a coordination.k8s.io Lease: of all candidates at most one runs its effect at any time.
 *
 * Safe against clocks that disagree, by client-go's method: the times in the Lease are for people. A candidate takes
 * over when it has seen the Lease unchanged for a whole lease duration by its own monotonic clock. A leader counts its
 * time from the moment before it sent the last renewal that succeeded, so it always stops first.
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import { Lease } from "./Kinds.ts"
import { KubeClient } from "./KubeClient.ts"
import type { KubeError } from "./KubeError.ts"
import type { Draft } from "./KubeObject.ts"

/** Options of {@link run}. `leaseDuration` > `renewDeadline` > `retryPeriod`, or `run` dies at once. */
export interface LeaderElectionOptions {
  /** Name of the Lease. */
  readonly name: string
  readonly namespace: string
  /** Unique among the candidates and their predecessors, for example the Pod's name plus a random part. */
  readonly identity: string
  /** Others may take over after this time without a renewal; whole seconds. Default 15 s. */
  readonly leaseDuration?: Duration.Input | undefined
  /** The leader stops after this time without a successful renewal. Default 10 s. */
  readonly renewDeadline?: Duration.Input | undefined
  /** Pause between attempts to acquire or renew. Default 2 s. */
  readonly retryPeriod?: Duration.Input | undefined
}

/** Where one Lease is kept. */
export interface LeaseStore {
  readonly get: Effect.Effect<Option.Option<Lease>, KubeError>
  create(lease: Draft<Lease>): Effect.Effect<void, KubeError>
  /** Fails if the Lease changed since it was read. */
  update(lease: Lease): Effect.Effect<void, KubeError>
}

/** client-go's defaults. */
const defaults = { leaseDuration: "15 seconds", renewDeadline: "10 seconds", retryPeriod: "2 seconds" } as const

/** Pauses between attempts to acquire are stretched by up to this part of them, so that candidates don't collide. */
const jitter = 0.2

const leading = Metric.gauge("fsb_leader", { description: "1 while this process holds the lease" })

/**
 * Waits for the lease, then runs the effect while renewing it, and releases it at the end, whatever the end was. When
 * the lease is lost the effect is interrupted, its finalizers are awaited, and the candidate stands again. The
 * finalizers have `leaseDuration - renewDeadline` before another candidate may start.
 */
export const run =
  (options: LeaderElectionOptions) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | KubeClient> =>
    Effect.flatMap(KubeClient, (client) => {
      const ref = { name: options.name, namespace: options.namespace }
      return runOn({
        get: client.get(Lease, ref).pipe(
          Effect.map(Option.some),
          Effect.catchReason("KubeError", "NotFound", () => Effect.succeedNone)
        ),
        create: (lease) => client.create(Lease, lease),
        update: (lease) => client.update(Lease, lease)
      }, options)(effect)
    })

/** {@link run} on any place that keeps a Lease. */
export const runOn =
  (store: LeaseStore, options: LeaderElectionOptions) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(makeCandidate(store, options), (candidate) => {
      const term: Effect.Effect<A, E, R> = Effect.flatMap(
        candidate.acquire,
        (acquiredAt) =>
          Effect.flatMap(
            lead(candidate, acquiredAt, effect),
            (result) => Option.isSome(result) ? Effect.succeed(result.value) : term
          )
      )
      return term.pipe(
        Effect.onExit(() => candidate.release),
        Effect.annotateLogs({ lease: `${options.namespace}/${options.name}`, identity: options.identity })
      )
    })

interface Candidate {
  /** Waits until the lease is ours. Answers with the time from which it counts, in monotonic milliseconds. */
  readonly acquire: Effect.Effect<number>
  /** Renews the lease until it is lost. */
  hold(acquiredAt: number): Effect.Effect<void>
  /** Gives the lease back, if it is ours. */
  readonly release: Effect.Effect<void>
  readonly name: string
}

/** Runs the effect until it ends (some) or the lease is lost (none). Renews through to the end of its finalizers. */
const lead = <A, E, R>(
  candidate: Candidate,
  acquiredAt: number,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<Option.Option<A>, E, R> =>
  Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
    const gauge = Metric.withAttributes(leading, { lease: candidate.name })
    const lost = yield* Deferred.make<void>()
    const holder = yield* candidate.hold(acquiredAt).pipe(
      Effect.andThen(Deferred.succeed(lost, undefined)),
      Effect.interruptible,
      Effect.forkChild({ startImmediately: true })
    )
    yield* Metric.update(gauge, 1)
    yield* Effect.logInfo("leading")
    return yield* restore(
      Effect.raceFirst(Effect.asSome(effect), Effect.as(Deferred.await(lost), Option.none<A>()))
    ).pipe(
      Effect.tap((result) => Option.isNone(result) ? Effect.logError("lost the lease, stopped leading") : Effect.void),
      Effect.onExit(() => Effect.andThen(Fiber.interrupt(holder), Metric.update(gauge, 0)))
    )
  }))

/** What was last seen of the lease, and when, by the monotonic clock. */
interface Observation {
  readonly resourceVersion: string
  readonly at: number
}

const monotonicMillis = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos / 1_000_000n))

const makeCandidate = Effect.fnUntraced(function*(
  store: LeaseStore,
  options: LeaderElectionOptions
): Effect.fn.Return<Candidate> {
  const millis = (name: keyof typeof defaults) =>
    Duration.toMillis(Duration.fromInputUnsafe(options[name] ?? defaults[name]))
  const leaseDuration = millis("leaseDuration")
  const renewDeadline = millis("renewDeadline")
  const retryPeriod = millis("retryPeriod")
  if (!(leaseDuration > renewDeadline && renewDeadline > retryPeriod && retryPeriod > 0)) {
    return yield* Effect.die(new Error("leader election wants leaseDuration > renewDeadline > retryPeriod > 0"))
  }
  const leaseDurationSeconds = Math.ceil(leaseDuration / 1000)
  /** No single request may use up the whole time in which the lease has to be renewed. */
  const attemptLimit = Math.max(retryPeriod, renewDeadline / 2)

  let observed: Observation | undefined
  let mayHold = false

  const claim = (transitions: number, before: Lease["spec"], now: DateTime.Utc): NonNullable<Lease["spec"]> => {
    const time = DateTime.formatIso(now).replace("Z", "000Z")
    return {
      ...before,
      holderIdentity: options.identity,
      leaseDurationSeconds,
      acquireTime: before?.holderIdentity === options.identity ? before.acquireTime ?? time : time,
      renewTime: time,
      leaseTransitions: transitions
    }
  }

  /** Acquires or renews once. False: another one holds the lease, and its time is not over. */
  const attempt: Effect.Effect<boolean, KubeError> = Effect.gen(function*() {
    const found = yield* store.get
    const now = yield* DateTime.now
    const at = yield* monotonicMillis
    if (Option.isNone(found)) {
      mayHold = true
      yield* store.create({
        metadata: { name: options.name, namespace: options.namespace },
        spec: claim(0, undefined, now)
      })
      return true
    }
    const { metadata: { resourceVersion }, spec } = found.value
    if (observed === undefined || observed.resourceVersion !== resourceVersion) {
      observed = { resourceVersion, at }
    }
    const holder = spec?.holderIdentity ?? ""
    const isOurs = holder === options.identity
    const promised = spec?.leaseDurationSeconds === undefined ? leaseDuration : spec.leaseDurationSeconds * 1000
    if (holder !== "" && !isOurs && at < observed.at + promised) {
      return false
    }
    mayHold = true
    const transitions = (spec?.leaseTransitions ?? 0) + (isOurs ? 0 : 1)
    yield* store.update({ ...found.value, spec: claim(transitions, spec, now) })
    return true
  })

  /** One attempt within a limit. None: it failed, or there was no answer. Some: whether the lease is ours, since when. */
  const tryOnce = (limit: number) =>
    Effect.flatMap(monotonicMillis, (startedAt) =>
      attempt.pipe(
        Effect.map((isOurs) => ({ isOurs, startedAt })),
        Effect.timeoutOption(limit),
        Effect.catch((error) => Effect.as(Effect.logDebug(error.message), Option.none<never>()))
      ))

  const acquire: Effect.Effect<number> = Effect.flatMap(
    tryOnce(attemptLimit),
    (tried) =>
      Option.isSome(tried) && tried.value.isOurs
        ? Effect.succeed(tried.value.startedAt)
        : Random.next.pipe(
          Effect.flatMap((random) => Effect.sleep(retryPeriod * (1 + jitter * random))),
          Effect.andThen(acquire)
        )
  )

  const hold = Effect.fnUntraced(function*(acquiredAt: number) {
    let renewedAt = acquiredAt
    let triedAt = acquiredAt
    while (true) {
      // From start to start, so that a slow server does not stretch the pauses too.
      const deadline = renewedAt + renewDeadline
      yield* Effect.sleep(Math.max(0, Math.min(triedAt + retryPeriod, deadline) - (yield* monotonicMillis)))
      triedAt = yield* monotonicMillis
      if (triedAt >= deadline) {
        return
      }
      const tried = yield* tryOnce(Math.min(deadline - triedAt, attemptLimit))
      if (Option.isSome(tried)) {
        if (!tried.value.isOurs) {
          return
        }
        renewedAt = tried.value.startedAt
      }
    }
  })

  const release = Effect.suspend(() => mayHold ? store.get : Effect.succeedNone).pipe(
    Effect.flatMap((found) =>
      Option.isSome(found) && found.value.spec?.holderIdentity === options.identity
        ? store.update({ ...found.value, spec: { ...found.value.spec, holderIdentity: "" } })
        : Effect.void
    ),
    Effect.timeout(attemptLimit),
    Effect.catch((error) => Effect.logWarning("the lease was not released and will expire", error))
  )

  return { acquire, hold, release, name: options.name }
})
