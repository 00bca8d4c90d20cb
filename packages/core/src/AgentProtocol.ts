/**
 * What an agent and those who watch it have agreed on, beyond the messages themselves.
 */
import * as Duration from "effect/Duration"

/**
 * How long a watcher of an agent hears nothing before it gets a heartbeat, so that silence means loss. Short enough to
 * notice a dead node in seconds, long enough to cost nothing with thousands of agents.
 */
export const heartbeatInterval: Duration.Duration = Duration.seconds(5)

/** The name in the certificate of the agent whose Pod has this uid: a controller that means this Pod reaches no other. */
export const agentServerName = (podUid: string): string => `${podUid}.agent.fast-sandbox`

/** The name in the certificates of controllers, by which agents know them. */
export const controllerUri = "spiffe://fast-sandbox/controller"

/** Whom the tokens are for that agents' Pods show to get a certificate. */
export const enrollmentAudience = "fast-sandbox-controller"
