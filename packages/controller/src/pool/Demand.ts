/**
 * The slots that were asked for and refused a moment ago. Sandboxes that wait are seen in the Kubernetes API; a fast
 * create that found no room leaves nothing behind but a mark here, so that the pool grows until the caller tries again.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"

/** For how long a refusal counts, in milliseconds: about two tries of a caller that does as the refusal tells it. */
export const windowMillis = 2_500

/** Refusals that are remembered for each pool; more demand than that grows the pool at its full pace anyway. */
const maxRemembered = 1_000

/** Pools whose refusals wait to be heard of. */
const maxUnheard = 256

/** See the module. Pools are named `namespace/name`. */
export class Demand extends Context.Service<Demand, {
  /** Somebody was refused a slot. */
  raise(pool: string): Effect.Effect<void>
  /** How many were refused within the window. */
  recent(pool: string): Effect.Effect<number>
  /** Pools that were refused a slot. A slow reader misses some; `recent` still counts them. */
  readonly changes: Stream.Stream<string>
}>()("@fast-sandbox/controller/pool/Demand") {
  static readonly layer: Layer.Layer<Demand> = Layer.effect(
    Demand,
    Effect.gen(function*() {
      const refusals = new Map<string, Array<number>>()
      const changes = yield* PubSub.sliding<string>(maxUnheard)
      const within = (pool: string, now: number): Array<number> => {
        const recent = (refusals.get(pool) ?? []).filter((at) => at > now - windowMillis).slice(-maxRemembered)
        if (recent.length === 0) {
          refusals.delete(pool)
        } else {
          refusals.set(pool, recent)
        }
        return recent
      }
      return Demand.of({
        raise: (pool) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            refusals.set(pool, [...within(pool, now), now])
            return Effect.asVoid(PubSub.publish(changes, pool))
          }),
        recent: (pool) => Effect.map(Clock.currentTimeMillis, (now) => within(pool, now).length),
        changes: Stream.fromPubSub(changes)
      })
    })
  )
}
