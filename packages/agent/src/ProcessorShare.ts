/**
 * Sandboxes give way to what starts, keeps and answers for them: all of them together weigh less than any other process of
 * the node, so that one which takes all it can get slows its neighbours' starts by little. A processor that nobody else
 * wants is theirs as before, up to their limits. Among themselves the one that is being made goes first
 * (`OciSpec.whileStarting`).
 */
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { AgentConfig } from "./AgentConfig.ts"

/** An eighth of what a process weighs that is in no cgroup, or another cgroup at its side. */
const shares = 128

/** Weighs a cgroup of sandboxes. What refuses it (a cgroup file system that is read-only) is told, and harmless. */
export const giveWay = (cgroup: string): Effect.Effect<void> =>
  Cgroups.weigh(cgroup, shares).pipe(
    Effect.catch(({ message }) => Effect.logWarning("sandboxes are not made to give way to the agent", message))
  )

/** Weighs the cgroup of all sandboxes of the agent. */
export const layer: Layer.Layer<never, never, AgentConfig> = Layer.effectDiscard(
  Effect.flatMap(AgentConfig, ({ cgroupParent }) => giveWay(cgroupParent))
)
