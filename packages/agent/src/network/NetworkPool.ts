/**
 * Networks that are made before anybody asks, so that a sandbox finds its own ready. An empty pool makes one on the spot,
 * which takes a millisecond.
 */
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { next } from "./Addresses.ts"
import { type NetworkError, NetworkHelper } from "./NetworkHelper.ts"
import * as Networks from "./Networks.ts"

/** A crowd of creates that comes at once; each that waits takes 0.3 MiB of the kernel's memory. */
export const maxAhead = 16

/** After one was taken, the create that took it needs the processor more than the next one does. */
const refillDelay = "20 millis"

/** The kernel is out of memory or of interfaces: it may take others some time to go. */
const retryPolicy = Schedule.spaced("1 second")

/** What {@link NetworkPool.take} can fail with. */
export type MakeError = NetworkError | PlatformError.PlatformError

/** `take` gives a network that nobody has had. */
export interface NetworkPool {
  readonly take: Effect.Effect<Networks.Network, MakeError>
}

/** The highest number that is in use, so that the next ones are new. */
const lastNumber = (stateDirectory: string) =>
  Effect.map(
    NetworkNamespaces.list,
    (all) => Math.max(0, ...all.map(({ name }) => NetworkNamespaces.numberOf(stateDirectory, name) ?? 0))
  )

/** Fills itself up to `ahead` in the background, until the scope closes; what nobody took goes then. */
export const make = Effect.fn("NetworkPool.make")(function*(
  options: Networks.Options,
  ahead: number
): Effect.fn.Return<NetworkPool, never, NetworkHelper | FileSystem.FileSystem | Scope.Scope> {
  const helper = yield* NetworkHelper
  const context = yield* Effect.context<NetworkHelper | FileSystem.FileSystem>()
  const ready: Array<Networks.Network> = []
  const wanted = yield* Queue.sliding<void>(1)
  let last = yield* lastNumber(options.stateDirectory)

  const makeNext = Effect.suspend(() => {
    last = next(last)
    return Networks.make(last, options)
  }).pipe(
    Effect.tap(({ n }) =>
      Effect.sync(() => {
        last = n
      })
    ),
    Effect.provideContext(context)
  )

  yield* Effect.addFinalizer(() =>
    Effect.forEach(ready.splice(0), ({ path }) => Effect.ignore(helper.drop(path), { log: "Warn" }), { discard: true })
  )

  const fill: Effect.Effect<void, MakeError> = Effect.suspend(() =>
    ready.length >= ahead ? Effect.void : makeNext.pipe(
      Effect.tap((network) => Effect.sync(() => ready.push(network))),
      Effect.uninterruptible,
      Effect.andThen(Effect.yieldNow),
      Effect.andThen(fill)
    )
  )
  yield* fill.pipe(
    Effect.tapError((error) => Effect.logWarning("networks can't be made ahead", error.message)),
    Effect.retry(retryPolicy),
    Effect.orDie,
    Effect.andThen(Queue.take(wanted)),
    Effect.andThen(Effect.sleep(refillDelay)),
    Effect.forever,
    Effect.forkScoped
  )

  return {
    take: Effect.suspend(() => {
      const network = ready.shift()
      return network === undefined ? makeNext : Effect.succeed(network)
    }).pipe(Effect.tap(() => Queue.offer(wanted, undefined)))
  }
})
