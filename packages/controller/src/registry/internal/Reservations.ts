/**
 * Reservations on one agent that it does not show yet: an immutable list, the latest first. That one is added, confirmed or
 * given back mostly, which costs the same and shares the rest, however many there are.
 */

/** What was reserved on an agent and is not shown by it yet. */
export interface Reserved {
  readonly instanceId: string
  /** `namespace/name` of the sandbox. */
  readonly key: string
  readonly ports: ReadonlyArray<number>
  /** When the agent said that it has the instance, in milliseconds since the epoch. */
  readonly confirmedAt: number | undefined
}

/** The empty list is undefined. */
export type Reservations = {
  readonly latest: Reserved
  readonly earlier: Reservations
  readonly size: number
} | undefined

export const sizeOf = (self: Reservations): number => self?.size ?? 0

export const add = (self: Reservations, latest: Reserved): Reservations => ({
  latest,
  earlier: self,
  size: sizeOf(self) + 1
})

/** The latest first. */
export const toArray = (self: Reservations): ReadonlyArray<Reserved> => {
  const all: Array<Reserved> = []
  for (let at = self; at !== undefined; at = at.earlier) {
    all.push(at.latest)
  }
  return all
}

export const find = (self: Reservations, instanceId: string): Reserved | undefined => {
  let at = self
  while (at !== undefined && at.latest.instanceId !== instanceId) {
    at = at.earlier
  }
  return at?.latest
}

/** Those of `all` before the ones in `self`, in their order. */
const addAll = (self: Reservations, all: ReadonlyArray<Reserved>): Reservations => all.reduceRight(add, self)

/** With something else, or nothing, in the place of an instance's reservation; the same list when it has none. */
export const replace = (self: Reservations, instanceId: string, by: Reserved | undefined): Reservations => {
  const later: Array<Reserved> = []
  for (let at = self; at !== undefined; at = at.earlier) {
    if (at.latest.instanceId === instanceId) {
      return addAll(by === undefined ? at.earlier : add(at.earlier, by), later)
    }
    later.push(at.latest)
  }
  return self
}

/** Those for which it holds; the same list when it holds for all. */
export const filter = (self: Reservations, holds: (reserved: Reserved) => boolean): Reservations => {
  const all = toArray(self)
  return all.every(holds) ? self : addAll(undefined, all.filter(holds))
}
