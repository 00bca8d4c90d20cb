/**
 * Which authority signs, which are believed, and when there has to be a new one. An authority is believed everywhere
 * before it signs anything, and stays believed until what it signed has ended: no connection fails on the way.
 */

/** An authority as it is kept, with its time, in milliseconds since the epoch. */
export interface Kept {
  readonly certificate: string
  /** PEM, PKCS #8. */
  readonly key: string
  readonly madeAt: number
  readonly endsAt: number
}

const hourMillis = 60 * 60 * 1000
const dayMillis = 24 * hourMillis

/** How long a certificate of an agent or a controller is good for. */
export const leafMillis = dayMillis

/** How often it is replaced: two replacements may fail before one ends. */
export const renewMillis = 8 * hourMillis

/** How long an authority lives. */
export const authorityMillis = 365 * dayMillis

/** Half of its life before its end, an authority gets a successor. */
const succeedMillis = authorityMillis / 2

/** After this time everybody has renewed at least once, and so has heard of a new authority. */
export const settleMillis = 2 * leafMillis

/** What follows from the authorities that are kept, of which the oldest stands first. */
export interface Plan {
  /** Those that are still believed. */
  readonly believed: ReadonlyArray<Kept>
  /** The one that signs; none when there is none yet. */
  readonly signer: Kept | undefined
  readonly needsNew: boolean
}

/** The plan at a time. */
export const make = (kept: ReadonlyArray<Kept>, now: number): Plan => {
  const believed = kept.filter(({ endsAt }) => endsAt > now)
  const newest = believed.at(-1)
  return {
    believed,
    signer: believed.findLast(({ endsAt, madeAt }) => madeAt + settleMillis <= now && endsAt > now + leafMillis) ??
      believed.find(({ endsAt }) => endsAt > now + leafMillis) ?? newest,
    needsNew: newest === undefined || newest.endsAt - now < succeedMillis
  }
}
