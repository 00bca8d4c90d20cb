/**
 * Randomness that a number determines: the same seed gives the same draws on every machine. A simulation gives each of
 * its parts a stream of its own, so that one more draw in one part does not change what all the others do.
 */
import type * as Random from "effect/Random"

/** Scrambles 32 bits so that neighbouring seeds give unrelated streams (the finalizer of MurmurHash3). */
const scramble = (bits: number): number => {
  let mixed = bits | 0
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

const hashOf = (text: string): number => {
  let hash = 0
  for (let at = 0; at < text.length; at++) {
    hash = scramble(hash ^ (text.charCodeAt(at) + 0x9e3779b9))
  }
  return hash
}

const bitsOf32 = 2 ** 32

/** One stream of draws. */
export class Seed {
  private state: number
  private readonly origin: number

  constructor(seed: number) {
    this.origin = scramble(seed ^ 0x5bd1e995)
    this.state = this.origin
  }

  /** A stream of its own for a part with this name; the same whatever was drawn here before. */
  fork(name: string): Seed {
    return new Seed(scramble(this.origin ^ hashOf(name)))
  }

  /** From 0 up to but not including 1 (the Weyl sequence of SplitMix32, scrambled). */
  next(): number {
    this.state = (this.state + 0x9e3779b9) | 0
    return scramble(this.state) / bitsOf32
  }

  /** An integer from 0 up to but not including `count`. */
  below(count: number): number {
    return Math.floor(this.next() * count)
  }

  /** An integer from `least` to `most`, both included. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1)
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.next() < probability
  }

  /** One of the items; none of an empty list. */
  pick<A>(items: ReadonlyArray<A>): A | undefined {
    return items[this.below(items.length)]
  }

  /** A waiting time with this mean: mostly short, sometimes several times as long, as on networks. */
  exponential(mean: number): number {
    return -Math.log(1 - this.next()) * mean
  }

  /** In the form of a version 4 UUID. */
  uuid(): `${string}-${string}-${string}-${string}-${string}` {
    const hex = Array.from({ length: 4 }, () => Math.floor(this.next() * bitsOf32).toString(16).padStart(8, "0"))
      .join("")
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
  }

  /** As Effect's random numbers. */
  get random(): typeof Random.Random["Service"] {
    return {
      nextDoubleUnsafe: () => this.next(),
      nextIntUnsafe: () => Math.floor((this.next() * 2 - 1) * Number.MAX_SAFE_INTEGER)
    }
  }
}
