/**
 * The node's `/dev/null` belongs to root and is open to everybody. Runtimes that make it a sandbox's break the node, also
 * when they do it for a moment: whoever owns it may close it.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { statSync, watch } from "node:fs"

const path = "/dev/null"

const state = (): string => {
  const { gid, mode, uid } = statSync(path)
  return `owner ${uid}:${gid}, mode ${mode.toString(8)}`
}

/**
 * Fails the test file, when it has ended, in which the owner or mode of the null device was changed, also for a moment.
 * The time of its last change would tell as much, if others on the machine did not give it to root again and again.
 */
export const unchanged: Layer.Layer<never> = Layer.effectDiscard(
  Effect.acquireRelease(
    Effect.sync(() => {
      const seen = new Set([state()])
      return { seen, watcher: watch(path, () => seen.add(state())) }
    }),
    ({ seen, watcher }) =>
      Effect.suspend(() => {
        watcher.close()
        seen.add(state())
        return seen.size === 1
          ? Effect.void
          : Effect.die(new Error(`${path} was changed: ${[...seen].join("; ")}`))
      })
  )
)
