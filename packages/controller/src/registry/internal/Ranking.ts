/**
 * Agents in the order in which they are offered sandboxes: most free slots first, among equals the one that the
 * controller has known longest. Moving an agent costs the same for ten agents as for ten thousand.
 */
import { IntegerSet } from "./IntegerSet.ts"

/** A SandboxPool allows no more slots to one agent; agents that claim more rank as if they had this many free. */
const mostSlots = 10_000

/** The position of a number of free slots among the others: the fuller the agent, the further back. */
const positionOf = (free: number): number => mostSlots - Math.min(free, mostSlots)

/** A mutable ranking of agents, which it knows by their ordinal numbers. Agents without a free slot are not in it. */
export class Ranking {
  private readonly positions = new IntegerSet()
  private readonly agents = new Map<number, IntegerSet>()

  /** Moves an agent from one number of free slots to another; 0 is outside of the ranking. */
  move(ordinal: number, from: number, to: number): void {
    if (from > 0) {
      const position = positionOf(from)
      const left = this.agents.get(position)
      left?.delete(ordinal)
      if (left?.size === 0) {
        this.agents.delete(position)
        this.positions.delete(position)
      }
    }
    if (to > 0) {
      const position = positionOf(to)
      let joined = this.agents.get(position)
      if (joined === undefined) {
        joined = new IntegerSet()
        this.agents.set(position, joined)
        this.positions.add(position)
      }
      joined.add(ordinal)
    }
  }

  /** The best agent that is accepted; -1 when there is none. */
  find(accepts: (ordinal: number) => boolean): number {
    for (let position = this.positions.next(0); position !== -1; position = this.positions.next(position + 1)) {
      const agents = this.agents.get(position)
      for (let at = agents?.next(0) ?? -1; at !== -1; at = agents?.next(at + 1) ?? -1) {
        if (accepts(at)) {
          return at
        }
      }
    }
    return -1
  }
}
