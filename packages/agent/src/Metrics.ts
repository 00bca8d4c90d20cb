/**
 * What the agent counts and measures.
 */
import * as Instruments from "@fast-sandbox/telemetry/Instruments"

/** Upper bounds, in seconds: from a step of a millisecond to a create that pulls its image. */
const durationBoundaries = [0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 5, 30]

/** Slots that the agent has. */
export const slots = Instruments.gauge("fsb_agent_slots", "Slots of the agent")

/** Slots that are held. */
export const slotsUsed = Instruments.gauge("fsb_agent_slots_used", "Slots that instances hold")

/** Containers that wait to become a sandbox, beside the slots. */
export const slotsParked = Instruments.gauge("fsb_agent_slots_parked", "Parked slots that are ready")
export const slotsBlank = Instruments.gauge("fsb_agent_slots_blank", "Slots without an image that are ready")

/** Known instances, with the attribute `state`. */
export const instances = Instruments.gauge("fsb_agent_instances", "Instances by state")

/** Ended creates, with the attributes `tier` and `result`. */
export const creates = Instruments.counter("fsb_agent_creates_total", "Creates by tier and result")

/** Ended instances, with the attribute `reason`. */
export const ends = Instruments.counter("fsb_agent_instance_ends_total", "Ended instances by reason")

/** The whole of a create as the agent sees it, with the attribute `tier`. */
export const createDuration = Instruments.seconds(
  "fsb_agent_create_duration_seconds",
  "Time from admission to a running program",
  durationBoundaries
)

/** One step of a create that succeeded, with the attributes `tier` and `step`. */
export const stepDuration = Instruments.seconds(
  "fsb_agent_create_step_duration_seconds",
  "Time of each step of a create",
  durationBoundaries
)
