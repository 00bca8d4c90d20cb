/**
 * The node's `/dev/null` belongs to root and is open to everybody. Runtimes that make it a sandbox's break the node, also
 * when they do it for a moment: whoever owns it may close it.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { statSync } from "node:fs"

const path = "/dev/null"

/** The time of the last change tells of owners that there were in between; writing does not move it. */
const state = Effect.sync(() => {
  const { ctimeNs, gid, mode, uid } = statSync(path, { bigint: true })
  return `${path}: owner ${uid}:${gid}, mode ${mode.toString(8)}, changed at ${ctimeNs}`
})

/** Fails the test file, when it has ended, in which the owner or mode of the null device was changed. */
export const unchanged: Layer.Layer<never> = Layer.effectDiscard(
  Effect.acquireRelease(
    state,
    (before) =>
      Effect.flatMap(
        state,
        (after) =>
          before === after ? Effect.void : Effect.die(new Error(`the null device was changed: ${before}, now ${after}`))
      )
  )
)
