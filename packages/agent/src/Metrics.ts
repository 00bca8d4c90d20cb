/**
 * What the agent counts and measures.
 */
import * as Metric from "effect/Metric"

/** Upper bounds, in seconds: from a step of a millisecond to a create that pulls its image. */
const durationBoundaries = [0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 5, 30]

/** Slots that the agent has. */
export const slots = Metric.gauge("fsb_agent_slots", { description: "Slots of the agent" })

/** Slots that are held. */
export const slotsUsed = Metric.gauge("fsb_agent_slots_used", { description: "Slots that instances hold" })

/** Known instances, with the attribute `state`. */
export const instances = Metric.gauge("fsb_agent_instances", { description: "Instances by state" })

/** Ended creates, with the attributes `tier` and `result`. */
export const creates = Metric.counter("fsb_agent_creates_total", {
  description: "Creates by tier and result",
  incremental: true
})

/** Ended instances, with the attribute `reason`. */
export const ends = Metric.counter("fsb_agent_instance_ends_total", {
  description: "Ended instances by reason",
  incremental: true
})

/** The whole of a create as the agent sees it, with the attribute `tier`. */
export const createDuration = Metric.histogram("fsb_agent_create_duration_seconds", {
  description: "Time from admission to a running program",
  boundaries: durationBoundaries
})

/** One step of a create, with the attribute `step`. */
export const stepDuration = Metric.histogram("fsb_agent_create_step_duration_seconds", {
  description: "Time of each step of a create",
  boundaries: durationBoundaries
})
