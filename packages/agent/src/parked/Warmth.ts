/**
 * Which images are kept parked, and how many slots of each: a decision without effects.
 */
import type { KeptWarm } from "@fast-sandbox/core/SandboxPool"

/** When an image was asked for, in milliseconds of one clock, oldest first; at most {@link maxParkedLately} times. */
export type Asked = ReadonlyMap<string, ReadonlyArray<number>>

/** What was asked for keeps its slots parked this long. */
const lastingMillis = 10 * 60_000

/** So many slots of an image are parked as it was asked for in this time. */
const rateMillis = 60_000

/** Of what was asked for lately at least this many, so that the second request finds one while a third is being made. */
const minParkedLately = 2

/** And at most this many: about a MiB each. */
export const maxParkedLately = 16

/** Images that were asked for lately and are kept parked, the latest first. */
const maxLately = 4

/** The name under which slots without an image are counted among the others; no image has it. */
export const blank = ""

/** Remembers that an image was asked for, and forgets what is too old to matter. */
export const ask = (asked: Asked, image: string, nowMillis: number): Asked => {
  const times = [...(asked.get(image) ?? []), nowMillis].slice(-maxParkedLately)
  const others = [...asked].filter(([name, all]) => name !== image && (all.at(-1) ?? 0) > nowMillis - lastingMillis)
  return new Map([...others, [image, times] as const].slice(-maxLately))
}

const lately = (asked: Asked, nowMillis: number): ReadonlyArray<KeptWarm> =>
  [...asked].toReversed()
    .filter(([, times]) => (times.at(-1) ?? 0) > nowMillis - lastingMillis)
    .map(([image, times]) => ({
      image,
      parked: Math.max(minParkedLately, times.filter((time) => time > nowMillis - rateMillis).length)
    }))

/**
 * How many slots of which image should be parked: what the pool names, and when it names nothing, what was asked for
 * lately; no more in all than there is room for further instances. What is left of that room is for slots without an
 * image, up to `blanks`.
 */
export const wanted = ({ asked, blanks, nowMillis, room, warmImages }: {
  readonly warmImages: ReadonlyArray<KeptWarm>
  readonly asked: Asked
  readonly nowMillis: number
  readonly room: number
  readonly blanks: number
}): ReadonlyMap<string, number> => {
  const all = new Map<string, number>()
  let left = room
  for (const { image, parked } of warmImages.length > 0 ? warmImages : lately(asked, nowMillis)) {
    const count = Math.min(parked, left)
    all.set(image, (all.get(image) ?? 0) + count)
    left -= count
  }
  if (blanks > 0 && left > 0) {
    all.set(blank, Math.min(blanks, left))
  }
  return all
}

/**
 * What to do next so that `ready` becomes `wanted`: give a slot up before one is parked, and park first where most are
 * missing in proportion.
 */
export const next = (
  wanted: ReadonlyMap<string, number>,
  ready: ReadonlyMap<string, number>
): { readonly _tag: "Park" | "GiveUp"; readonly image: string } | undefined => {
  for (const [image, count] of ready) {
    if (count > (wanted.get(image) ?? 0)) {
      return { _tag: "GiveUp", image }
    }
  }
  const missing = [...wanted]
    .map(([image, count]) => ({ image, share: count === 0 ? 1 : (ready.get(image) ?? 0) / count }))
    .filter(({ share }) => share < 1)
    .toSorted((one, other) => one.share - other.share)
  return missing[0] === undefined ? undefined : { _tag: "Park", image: missing[0].image }
}
