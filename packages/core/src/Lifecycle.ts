/**
 * The legal moves between phases. `Decision` never proposes another one, whatever it is shown; the table is here to be
 * read, and to be held against it by tests.
 */
import type { Phase } from "./Sandbox.ts"

/** What ends an instance, however it ends. */
const endings = ["Succeeded", "Failed", "Stopped", "Expired", "Lost"] as const

/** A new start: of a reset or a recovery, or because no agent could take the last one. */
const starts = ["Pending", "Scheduled"] as const

/**
 * From each phase to those that may follow it. A resource without a phase may go anywhere, because a fast create's
 * instance has a life before the resource's first status.
 *
 * - Lost goes back to what the agent says when the agent returns before a recovery gave the sandbox a new instance.
 * - Stopping goes back to Starting or Running when its reason (an expiry) is taken back before the program heard of it.
 * - Failed and Lost expire while they wait for their recovery.
 */
export const transitions: { readonly [from in Phase]: ReadonlyArray<Phase> } = {
  Pending: ["Scheduled", "Expired", "Lost", "Deleting"],
  Scheduled: [...starts, "Starting", "Running", "Stopping", ...endings, "Deleting"],
  Starting: [...starts, "Running", "Stopping", ...endings, "Deleting"],
  Running: [...starts, "Stopping", ...endings, "Deleting"],
  Stopping: [...starts, "Starting", "Running", ...endings, "Deleting"],
  Succeeded: [...starts, "Deleting"],
  Failed: [...starts, "Expired", "Deleting"],
  Stopped: [...starts, "Expired", "Deleting"],
  Expired: [...starts, "Deleting"],
  Lost: [...starts, "Starting", "Running", "Stopping", "Failed", "Succeeded", "Stopped", "Expired", "Deleting"],
  Deleting: []
}

/** Whether a sandbox may go from one phase to the other; staying is always legal. */
export const isLegal = (from: Phase | undefined, to: Phase): boolean =>
  from === undefined || from === to || transitions[from].includes(to)
