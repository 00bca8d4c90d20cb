/**
 * Sandboxes give way to what starts, keeps and answers for them: all of them together weigh less than any other process of
 * the node, so that one which takes all it can get slows its neighbours' starts by little. A processor that nobody else
 * wants is theirs as before, up to their limits. Among themselves the one that is being made goes first
 * (`OciSpec.whileStarting`).
 */
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { AgentConfig } from "./AgentConfig.ts"

/** Weighs the cgroup of all sandboxes of the agent. */
export const layer: Layer.Layer<never, never, AgentConfig> = Layer.effectDiscard(
  Effect.flatMap(AgentConfig, ({ cgroupParent }) => PodCgroups.giveWay(cgroupParent))
)
