/**
 * What an agent and those who watch it have agreed on, beyond the messages themselves.
 */
import * as Duration from "effect/Duration"

/**
 * How long a watcher of an agent hears nothing before it gets a heartbeat, so that silence means loss. Short enough to
 * notice a dead node in seconds, long enough to cost nothing with thousands of agents.
 */
export const heartbeatInterval: Duration.Duration = Duration.seconds(5)
