/**
 * Leader election on a coordination.k8s.io Lease: of all candidates at most one runs its effect at any time.
 *
 * Safe against clocks that disagree: a candidate only compares its own clock with itself, by waiting a whole lease
 * duration after it last saw the lease change. A leader that can't renew stops before anybody else may start.
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { KubeClient } from "./KubeClient.ts"

/** Options of {@link run}. `leaseDuration` > `renewDeadline` > `retryPeriod`, or `run` dies at once. */
export interface LeaderElectionOptions {
  /** Name of the Lease. */
  readonly name: string
  readonly namespace: string
  /** Unique among the candidates, for example the Pod's name plus a random part. */
  readonly identity: string
  /** Others may take over after this time without a renewal. Default 15 s. */
  readonly leaseDuration?: Duration.Input | undefined
  /** The leader stops after this time without a successful renewal. Default 10 s. */
  readonly renewDeadline?: Duration.Input | undefined
  /** Pause between attempts to acquire or renew. Default 2 s. */
  readonly retryPeriod?: Duration.Input | undefined
}

/**
 * Waits for the lease, then runs the effect while renewing it, and releases it at the end, whatever the end was. When
 * the lease is lost the effect is interrupted, its finalizers are awaited, and the candidate stands again. The
 * finalizers have `leaseDuration - renewDeadline` before another candidate may start.
 */
export declare const run: (
  options: LeaderElectionOptions
) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R | KubeClient>
