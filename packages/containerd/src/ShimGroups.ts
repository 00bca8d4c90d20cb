/**
 * Shims that are shared. A shim per sandbox costs 6 ms and 13 MB each; a few long-lived ones, each held up by an anchor
 * task that does nothing, serve all sandboxes of an agent. A dead shim takes its sandboxes with it, hence several.
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { ShimRuntime } from "./ShimRuntime.ts"

/** One group. `isUp` is false while its anchor is being set up again; creates then start an ordinary shim. */
export interface ShimGroup {
  readonly index: number
  readonly anchorId: string
  readonly shimPid: number | undefined
  readonly isUp: boolean
}

/**
 * `next` is the shim to use for the next container, round robin over the groups that are up; the stock shim when none is
 * or grouping is off. `groups` tells their state.
 */
export class ShimGroups extends Context.Service<ShimGroups, {
  readonly next: Effect.Effect<ShimRuntime>
  readonly groups: Effect.Effect<ReadonlyArray<ShimGroup>>
}>()("@fast-sandbox/containerd/ShimGroups") {}
