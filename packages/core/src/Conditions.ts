/**
 * The conditions of a Sandbox: the same facts as its phase and its reason, in the form that `kubectl wait` and other
 * controllers understand. They are a function of the rest of the status, so nothing is ever decided from them except
 * since when an agent has been silent.
 */
import { type Condition, type ConditionUpdate, setCondition } from "./ObjectMeta.ts"
import type { Phase, SandboxStatus } from "./Sandbox.ts"

/** Reasons that are not the name of a phase. Programs may compare them. */
export const reasons = {
  assigned: "Assigned",
  poolNotFound: "PoolNotFound",
  noCapacity: "NoCapacity",
  agentLost: "AgentLost",
  agentSilent: "AgentSilent",
  instanceLost: "InstanceLost",
  startFailed: "StartFailed",
  reset: "Reset",
  expired: "Expired",
  backingOff: "BackingOff",
  restarting: "Restarting",
  recovered: "Recovered",
  recoveryExhausted: "RecoveryExhausted",
  notRecovering: "NotRecovering",
  notExpired: "NotExpired"
} as const

/** Why something is as it is: a word for programs and a sentence for people. */
export interface Explanation {
  readonly reason: string
  readonly message: string
}

/** What the conditions are made from. */
export interface ConditionsInput {
  /** The status that is about to be reported; its `conditions` are the previous ones. */
  readonly status: SandboxStatus & { readonly phase: Phase }
  readonly generation: number | undefined
  /** RFC 3339. */
  readonly now: string
  /** Why no agent was found. */
  readonly unplaced?: Explanation | undefined
  /** The agent does not answer at the moment. */
  readonly silent?: true | undefined
}

type Said = Omit<ConditionUpdate, "type" | "observedGeneration">

const phaseMessages: { readonly [phase in Phase]: string } = {
  Pending: "waiting for an agent",
  Scheduled: "an agent was chosen",
  Starting: "the agent is starting the program",
  Running: "the program runs",
  Stopping: "the program was asked to end",
  Succeeded: "the program ended with exit code 0",
  Failed: "the program failed",
  Stopped: "the program was stopped",
  Expired: "the sandbox reached its expiry",
  Lost: "the sandbox was lost with its agent",
  Deleting: "the sandbox is being deleted"
}

const scheduled = ({ status, unplaced }: ConditionsInput): Said => {
  if (unplaced !== undefined) {
    return { status: "False", ...unplaced }
  }
  return status.sandboxID === undefined
    ? { status: "False", reason: status.phase, message: phaseMessages[status.phase] }
    : {
      status: "True",
      reason: reasons.assigned,
      message: `instance ${status.sandboxID} on agent ${status.assignedPod ?? "unknown"}`
    }
}

const ready = ({ silent, status }: ConditionsInput): Said => {
  if (silent === true) {
    return {
      status: "Unknown",
      reason: reasons.agentSilent,
      message: `agent ${status.assignedPod ?? "unknown"} does not answer`
    }
  }
  return {
    status: status.phase === "Running" ? "True" : "False",
    reason: status.phase === "Running" ? status.phase : status.reason ?? status.phase,
    message: status.message ?? phaseMessages[status.phase]
  }
}

const expired = ({ status }: ConditionsInput): Said | undefined => {
  if (status.phase === "Expired") {
    return { status: "True", reason: reasons.expired, message: phaseMessages.Expired }
  }
  return status.conditions?.some((condition) => condition.type === "Expired") === true
    ? { status: "False", reason: reasons.notExpired, message: "the sandbox was revived" }
    : undefined
}

const recovering = ({ status }: ConditionsInput): Said | undefined => {
  const { phase, recovery } = status
  if (recovery?.nextAt !== undefined) {
    return {
      status: "True",
      reason: reasons.backingOff,
      message: `recovery ${recovery.attempt} starts a new instance at ${recovery.nextAt}`
    }
  }
  if (recovery !== undefined && (phase === "Pending" || phase === "Scheduled" || phase === "Starting")) {
    return { status: "True", reason: reasons.restarting, message: `recovery ${recovery.attempt} is under way` }
  }
  if (status.reason === reasons.recoveryExhausted) {
    return { status: "False", reason: reasons.recoveryExhausted, message: status.message ?? phaseMessages[phase] }
  }
  if (status.conditions?.some((condition) => condition.type === "Recovering") !== true) {
    return undefined
  }
  return phase === "Running"
    ? { status: "False", reason: reasons.recovered, message: "the new instance runs" }
    : { status: "False", reason: reasons.notRecovering, message: phaseMessages[phase] }
}

/** The conditions for a status. The previous array is given back when nothing changed. */
export const project = (input: ConditionsInput): ReadonlyArray<Condition> => {
  const said: ReadonlyArray<readonly [string, Said | undefined]> = [
    ["Scheduled", scheduled(input)],
    ["Ready", ready(input)],
    ["Expired", expired(input)],
    ["Recovering", recovering(input)]
  ]
  return said.reduce(
    (conditions, [type, update]) =>
      update === undefined
        ? conditions
        : setCondition(conditions, { type, ...update, observedGeneration: input.generation }, input.now),
    input.status.conditions ?? []
  )
}
