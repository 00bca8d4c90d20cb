/**
 * An ordered set of small non-negative integers: a tree of 32-bit words in which a bit says that the word below it is
 * not empty. Adding, removing and finding the next member take one step for every five bits of the largest member.
 */

const wordBits = 5
const wordMask = 31

/** The lowest bit that is set in a word that is not 0. */
const lowestBit = (word: number): number => 31 - Math.clz32(word & -word)

/** An ordered, mutable set of small non-negative integers. */
export class IntegerSet {
  /** levels[0] holds the members, each further level one bit for every word of the one below. */
  private readonly levels: Array<Array<number>> = [[]]
  private count = 0

  get size(): number {
    return this.count
  }

  has(member: number): boolean {
    return ((this.levels[0]?.[member >>> wordBits] ?? 0) & (1 << (member & wordMask))) !== 0
  }

  add(member: number): void {
    if (this.has(member)) {
      return
    }
    this.count++
    // A new top level covers what the old top, however far it grows, can't tell apart in one word.
    while (member >>> (wordBits * this.levels.length) !== 0) {
      const top = this.levels.at(-1)
      this.levels.push([(top?.[0] ?? 0) !== 0 ? 1 : 0])
    }
    let at = member
    for (const level of this.levels) {
      const word = at >>> wordBits
      while (level.length <= word) {
        level.push(0)
      }
      level[word] = (level[word] ?? 0) | (1 << (at & wordMask))
      at = word
    }
  }

  delete(member: number): void {
    if (!this.has(member)) {
      return
    }
    this.count--
    let at = member
    for (const level of this.levels) {
      const word = at >>> wordBits
      const left = (level[word] ?? 0) & ~(1 << (at & wordMask))
      level[word] = left
      if (left !== 0) {
        return
      }
      at = word
    }
  }

  /** The smallest member that is at least `from`; -1 when there is none. */
  next(from: number): number {
    let at = from
    for (let height = 0; height < this.levels.length; height++) {
      const word = at >>> wordBits
      const rest = (this.levels[height]?.[word] ?? 0) & (-1 << (at & wordMask))
      if (rest !== 0) {
        return this.descend((word << wordBits) | lowestBit(rest), height)
      }
      at = word + 1
    }
    return -1
  }

  /** The smallest member below the bit `at` of a level. */
  private descend(at: number, height: number): number {
    let member = at
    for (let level = height - 1; level >= 0; level--) {
      member = (member << wordBits) | lowestBit(this.levels[level]?.[member] ?? 0)
    }
    return member
  }
}
