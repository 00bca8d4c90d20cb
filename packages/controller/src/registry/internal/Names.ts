/**
 * Which instance holds which name, in transactional cells. The map is cut into stripes by the hash of the name: a change
 * copies the path to one entry of a stripe, which stays short however many names there are, and transactions about
 * different names hardly ever meet.
 */
import * as Effect from "effect/Effect"
import * as Hash from "effect/Hash"
import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import * as TxRef from "effect/TxRef"

/** With a million names a stripe has 250; the empty ones take about a MiB. A power of two. */
const stripeCount = 4096

/** The map inside of a stripe goes by the lowest bits of the hash, so the stripe goes by others. */
const stripeShift = 15

/** Of one stripe, by `namespace/name` of a sandbox, the instance that holds the name. */
type Stripe = HashMap.HashMap<string, string>

/** Every step is for use in a transaction; alone it is one. `isFree` and `holder` look without one: true until the next step. */
export class Names {
  private readonly stripes: ReadonlyArray<TxRef.TxRef<Stripe>> = Array.from(
    { length: stripeCount },
    () => TxRef.makeUnsafe(HashMap.empty())
  )

  isFree(key: string): boolean {
    return !HashMap.has(this.stripeOf(key).value, key)
  }

  /** The instance that holds a name. */
  holder(key: string): Effect.Effect<Option.Option<string>> {
    return Effect.sync(() => HashMap.get(this.stripeOf(key).value, key))
  }

  /** The instance holds the name from now on, if nobody does or only `instead` of whom it may. Whether it does. */
  take(key: string, instanceId: string, instead?: string): Effect.Effect<boolean> {
    return TxRef.modify(this.stripeOf(key), (stripe) => {
      const holder = HashMap.get(stripe, key)
      return Option.isNone(holder) || holder.value === instead
        ? [true, HashMap.set(stripe, key, instanceId)]
        : [false, stripe]
    })
  }

  /** The name is nobody's if it was this instance's. */
  drop(key: string, instanceId: string): Effect.Effect<void> {
    return TxRef.update(
      this.stripeOf(key),
      (stripe) => Option.contains(HashMap.get(stripe, key), instanceId) ? HashMap.remove(stripe, key) : stripe
    )
  }

  private stripeOf(key: string): TxRef.TxRef<Stripe> {
    const stripe = this.stripes[(Hash.string(key) >>> stripeShift) % stripeCount]
    if (stripe === undefined) {
      throw new Error(`there are more than ${stripeCount} stripes`)
    }
    return stripe
  }
}
