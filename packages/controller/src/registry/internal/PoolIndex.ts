/**
 * Finds the best agent of a pool without looking at all of them. It is derived from the agents' transactional cells
 * after every commit and decides nothing: a reservation verifies the agent that the index proposes in its transaction,
 * and asks for the next one when the cell says otherwise.
 */
import * as ImageName from "@fast-sandbox/core/ImageName"
import * as HashSet from "effect/HashSet"
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
  parked: string
  names: ReadonlyArray<string>
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
  /** As {@link ImageName} writes it. */
  readonly image: string
  readonly ports: ReadonlyArray<number>
  readonly accepts: (ordinal: number) => boolean
}

/** The spellings under which a node's image is asked for: by tag and by digest. */
const namesOf = (images: AgentView["images"]): ReadonlyArray<string> => {
  const names = new Set<string>()
  for (const { digest, name } of images.values()) {
    names.add(name)
    const parsed = ImageName.parse(name)
    if (digest !== "" && Result.isSuccess(parsed)) {
      names.add(ImageName.format({ ...parsed.success, digest }))
    }
  }
  return [...names]
}

/** Under this name an agent is ranked that has slots of an image parked. No image is called so. */
const parkedName = (image: string): string => `parked ${image}`

const parkedNames = ({ parked }: AgentView): string =>
  [...parked.values()].filter(({ ready }) => ready > 0).map(({ image }) => parkedName(image)).join(nameSeparator)

const nameSeparator = "\n"

const nothing: Totals = { ready: 0, slots: 0, free: 0 }

const none: AgentView["images"] = new Map()

/** A mutable index of the agents of one pool, which it knows by ordinal numbers. */
export class PoolIndex<A> {
  private readonly agents: Array<Indexed<A> | undefined> = []
  private readonly all = new Ranking()
  private readonly byImage = new Map<string, Ranking>()
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
      parked: "",
      names: [],
      ports: new Set(),
      pendingPorts: HashSet.empty()
    }
    return agent
  }

  remove(ordinal: number): void {
    const entry = this.agents[ordinal]
    if (entry !== undefined) {
      this.put(ordinal, entry, nothing)
      this.putImages(ordinal, entry, none, "")
      this.putPorts(ordinal, entry, new Set(), HashSet.empty())
      this.agents[ordinal] = undefined
    }
  }

  /** Takes over what an agent's cell holds now. */
  refresh(ordinal: number, slots: AgentSlots): void {
    const entry = this.agents[ordinal]
    if (entry === undefined) {
      return
    }
    const { connection, draining, images } = slots.view
    const ready = connection === "synced" && !draining
    this.putImages(ordinal, entry, images, parkedNames(slots.view))
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
    for (const ranking of [this.byImage.get(parkedName(image)), this.byImage.get(image)]) {
      const found = ranking?.find(suits) ?? -1
      if (found !== -1) {
        return found
      }
    }
    return this.all.find(suits)
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
      for (const name of entry.names) {
        this.rank(name, ordinal, before.free, totals.free)
      }
    }
  }

  /** Moves an agent in the ranking of an image; a ranking exists as long as somebody is in it. */
  private rank(name: string, ordinal: number, from: number, to: number): void {
    const ranking = this.byImage.get(name) ?? new Ranking()
    ranking.move(ordinal, from, to)
    if (ranking.isEmpty) {
      this.byImage.delete(name)
    } else {
      this.byImage.set(name, ranking)
    }
  }

  private putImages(ordinal: number, entry: Indexed<A>, images: AgentView["images"], parked: string): void {
    if (entry.images === images && entry.parked === parked) {
      return
    }
    const { free } = entry.totals
    for (const name of entry.names) {
      this.rank(name, ordinal, free, 0)
    }
    entry.images = images
    entry.parked = parked
    entry.names = [...namesOf(images), ...(parked === "" ? [] : parked.split(nameSeparator))]
    for (const name of entry.names) {
      this.rank(name, ordinal, 0, free)
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
      if (!ports.has(port) && !HashSet.has(pendingPorts, port)) {
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
