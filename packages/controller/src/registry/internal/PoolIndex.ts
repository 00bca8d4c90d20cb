/**
 * Finds the best agent of a pool without looking at all of them. It is derived from the agents' transactional cells
 * after every commit and decides nothing: a reservation verifies the agent that the index proposes in its transaction,
 * and asks for the next one when the cell says otherwise.
 */
import * as ImageName from "@fast-sandbox/core/ImageName"
import * as Result from "effect/Result"
import type { AgentView } from "../../agents/Agents.ts"
import type { AgentSlots } from "./AgentSlots.ts"
import { IntegerSet } from "./IntegerSet.ts"
import { Ranking } from "./Ranking.ts"

/** What the index holds of one agent. */
interface Indexed<A> {
  readonly agent: A
  totals: Totals
  images: AgentView["images"]
  /** Under which the agent's images are asked for. */
  spellings: ReadonlySet<string>
  parked: AgentView["parked"]
  /** Images of which a parked slot is left. */
  ready: ReadonlySet<string>
  ports: AgentSlots["ports"]
  pendingPorts: AgentSlots["pendingPorts"]
}

/** What a pool has to give, for messages and for people. */
export interface Totals {
  /** Agents that answer and admit. */
  readonly ready: number
  readonly slots: number
  readonly free: number
}

/** What is looked for. `accepts` has the last word. */
export interface Wanted {
  /** As {@link ImageName} writes it; undefined when it does not matter. */
  readonly image: string | undefined
  readonly ports: ReadonlyArray<number>
  readonly accepts: (ordinal: number) => boolean
}

/** The agents that have an image, and those that have slots of it parked. */
interface ImageRankings {
  readonly parked: Ranking
  readonly holding: Ranking
}

/**
 * Images that agents are ranked by at a time. A node holds dozens of images and is asked for few, so that an image is
 * ranked from the first time that it is asked for, which looks at every agent once: a millisecond with ten thousand.
 */
const maxRankedImages = 256

/** The spellings under which a node's images are asked for: by tag and by digest. */
const spellingsOf = (images: AgentView["images"]): ReadonlySet<string> => {
  const names = new Set<string>()
  for (const { digest, name } of images.values()) {
    names.add(name)
    const parsed = ImageName.parse(name)
    if (digest !== "" && Result.isSuccess(parsed)) {
      names.add(ImageName.format({ ...parsed.success, digest }))
    }
  }
  return names
}

const readyOf = (parked: AgentView["parked"]): ReadonlySet<string> =>
  new Set([...parked.values()].filter(({ ready }) => ready > 0).map(({ image }) => image))

const nothing: Totals = { ready: 0, slots: 0, free: 0 }

const nobody: ReadonlySet<never> = new Set()
const none: ReadonlyMap<string, never> = new Map<string, never>()

/** A mutable index of the agents of one pool, which it knows by ordinal numbers. */
export class PoolIndex<A> {
  private readonly agents: Array<Indexed<A> | undefined> = []
  private readonly all = new Ranking()
  /** The one that was made first comes first. */
  private readonly byImage = new Map<string, ImageRankings>()
  private readonly byPort = new Map<number, IntegerSet>()
  private sums = nothing

  get totals(): Totals {
    return this.sums
  }

  get isEmpty(): boolean {
    return this.agents.every((agent) => agent === undefined)
  }

  /** Takes in an agent under the smallest number that is not in use, so that the index does not grow with time. */
  add<B extends A>(make: (ordinal: number) => B): B {
    const gap = this.agents.indexOf(undefined)
    const ordinal = gap === -1 ? this.agents.length : gap
    const agent = make(ordinal)
    this.agents[ordinal] = {
      agent,
      totals: nothing,
      images: none,
      spellings: nobody,
      parked: none,
      ready: nobody,
      ports: nobody,
      pendingPorts: nobody
    }
    return agent
  }

  remove(ordinal: number): void {
    const entry = this.agents[ordinal]
    if (entry !== undefined) {
      this.put(ordinal, entry, nothing)
      this.putPorts(ordinal, entry, nobody, nobody)
      this.agents[ordinal] = undefined
    }
  }

  /** Takes over what an agent's cell holds now. */
  refresh(ordinal: number, slots: AgentSlots): void {
    const entry = this.agents[ordinal]
    if (entry === undefined) {
      return
    }
    const { connection, draining, images, parked } = slots.view
    const ready = connection === "synced" && !draining
    this.putImages(ordinal, entry, images)
    this.putParked(ordinal, entry, parked)
    this.putPorts(ordinal, entry, slots.ports, slots.pendingPorts)
    this.put(ordinal, entry, { ready: ready ? 1 : 0, slots: ready ? slots.view.slots : 0, free: slots.free })
  }

  agent(ordinal: number): A | undefined {
    return this.agents[ordinal]?.agent
  }

  /**
   * The best agent: one that has slots of the image parked, else one that holds it, else any; the one with most free
   * slots; -1 when none is left.
   */
  find({ accepts, image, ports }: Wanted): number {
    const holders = ports.map((port) => this.byPort.get(port)).filter((holder) => holder !== undefined)
    const suits = holders.length === 0
      ? accepts
      : (ordinal: number) => !holders.some((holder) => holder.has(ordinal)) && accepts(ordinal)
    if (image !== undefined) {
      const { holding, parked } = this.rankingsOf(image)
      const found = parked.find(suits)
      const next = found === -1 ? holding.find(suits) : found
      if (next !== -1) {
        return next
      }
    }
    return this.all.find(suits)
  }

  private rankingsOf(image: string): ImageRankings {
    const known = this.byImage.get(image)
    if (known !== undefined) {
      return known
    }
    const rankings: ImageRankings = { parked: new Ranking(), holding: new Ranking() }
    for (const [ordinal, entry] of this.agents.entries()) {
      const free = entry?.totals.free ?? 0
      if (entry?.spellings.has(image) === true) {
        rankings.holding.move(ordinal, 0, free)
      }
      if (entry?.ready.has(image) === true) {
        rankings.parked.move(ordinal, 0, free)
      }
    }
    const [oldest] = this.byImage.keys()
    if (oldest !== undefined && this.byImage.size >= maxRankedImages) {
      this.byImage.delete(oldest)
    }
    this.byImage.set(image, rankings)
    return rankings
  }

  private put(ordinal: number, entry: Indexed<A>, totals: Totals): void {
    const before = entry.totals
    entry.totals = totals
    this.sums = {
      ready: this.sums.ready + totals.ready - before.ready,
      slots: this.sums.slots + totals.slots - before.slots,
      free: this.sums.free + totals.free - before.free
    }
    if (before.free !== totals.free) {
      this.all.move(ordinal, before.free, totals.free)
      this.rank("holding", entry.spellings, ordinal, before.free, totals.free)
      this.rank("parked", entry.ready, ordinal, before.free, totals.free)
    }
  }

  private rank(
    which: keyof ImageRankings,
    names: ReadonlySet<string>,
    ordinal: number,
    from: number,
    to: number
  ): void {
    for (const name of names) {
      this.byImage.get(name)?.[which].move(ordinal, from, to)
    }
  }

  /** An agent is ranked under other names than before; gives these. */
  private rename(
    which: keyof ImageRankings,
    ordinal: number,
    { totals: { free } }: Indexed<A>,
    before: ReadonlySet<string>,
    after: ReadonlySet<string>
  ): ReadonlySet<string> {
    this.rank(which, before, ordinal, free, 0)
    this.rank(which, after, ordinal, 0, free)
    return after
  }

  private putImages(ordinal: number, entry: Indexed<A>, images: AgentView["images"]): void {
    if (entry.images !== images) {
      entry.images = images
      entry.spellings = this.rename("holding", ordinal, entry, entry.spellings, spellingsOf(images))
    }
  }

  private putParked(ordinal: number, entry: Indexed<A>, parked: AgentView["parked"]): void {
    if (entry.parked !== parked) {
      entry.parked = parked
      entry.ready = this.rename("parked", ordinal, entry, entry.ready, readyOf(parked))
    }
  }

  private putPorts(
    ordinal: number,
    entry: Indexed<A>,
    ports: AgentSlots["ports"],
    pendingPorts: AgentSlots["pendingPorts"]
  ): void {
    if (entry.ports === ports && entry.pendingPorts === pendingPorts) {
      return
    }
    for (const port of [...entry.ports, ...entry.pendingPorts]) {
      if (!ports.has(port) && !pendingPorts.has(port)) {
        this.byPort.get(port)?.delete(ordinal)
        if (this.byPort.get(port)?.size === 0) {
          this.byPort.delete(port)
        }
      }
    }
    for (const port of [...ports, ...pendingPorts]) {
      const holders = this.byPort.get(port)
      if (holders === undefined) {
        const first = new IntegerSet()
        first.add(ordinal)
        this.byPort.set(port, first)
      } else {
        holders.add(ordinal)
      }
    }
    entry.ports = ports
    entry.pendingPorts = pendingPorts
  }
}
