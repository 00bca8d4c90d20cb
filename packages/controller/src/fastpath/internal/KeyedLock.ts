/**
 * One thing at a time for each key. What is not locked takes no memory.
 */
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"

/** Locks by key. Waiting and holding are interruptible. */
export interface KeyedLock {
  withKey(key: string): <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** Makes locks. */
export const make = (): KeyedLock => {
  const locks = new Map<string, { readonly semaphore: Semaphore.Semaphore; users: number }>()
  return {
    withKey: (key) => (self) =>
      Effect.uninterruptibleMask((restore) => {
        const lock = locks.get(key) ?? { semaphore: Semaphore.makeUnsafe(1), users: 0 }
        lock.users++
        locks.set(key, lock)
        const leave = Effect.sync(() => {
          lock.users--
          if (lock.users === 0) {
            locks.delete(key)
          }
        })
        return Effect.ensuring(restore(lock.semaphore.withPermit(self)), leave)
      })
  }
}
