/**
 * The latest members of a set that would grow for ever. What is forgotten in the end is taken for unknown, so it may only
 * hold what costs little to find out again.
 */
export class RecentSet<A> {
  private readonly members = new Set<A>()
  private readonly capacity: number

  /** Keeps so many members, the latest ones. */
  constructor(capacity: number) {
    this.capacity = capacity
  }

  add(member: A): void {
    this.members.add(member)
    const [oldest] = this.members
    if (this.members.size > this.capacity && oldest !== undefined) {
      this.members.delete(oldest)
    }
  }

  has(member: A): boolean {
    return this.members.has(member)
  }
}
