/**
 * Who gets which slot. The Registry holds the controller's view of the agents' slots and ports and reserves in it
 * optimistically: one transaction takes a name, a slot and ports. The agent has the last word, by its own admission.
 *
 * The truth of each agent is one transactional cell, the truth of the names one transactional map; what finds the best
 * agent quickly is an index that is derived from the cells after every commit. Nothing is stored: at the start the
 * Registry is empty and filled by what the agents show.
 */
import { AlreadyExists, NotFound, ResourceExhausted } from "@fast-sandbox/core/Errors"
import * as ImageName from "@fast-sandbox/core/ImageName"
import * as Sandbox from "@fast-sandbox/core/Sandbox"
import * as Instruments from "@fast-sandbox/telemetry/Instruments"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as TxRef from "effect/TxRef"
import type { AgentView } from "../agents/Agents.ts"
import * as AgentSlots from "./internal/AgentSlots.ts"
import { Names } from "./internal/Names.ts"
import { PoolIndex } from "./internal/PoolIndex.ts"

/** What is asked for. */
export interface ReserveRequest {
  /** The instance that will take the slot; by it the Registry recognises it in the agent's view. */
  readonly instanceId: string
  readonly namespace: string
  readonly name: string
  /** A pool of the same namespace. */
  readonly pool: string
  /** In any spelling. */
  readonly image: string
  readonly ports: ReadonlyArray<number>
  /** Uids of agents that are not to be offered, because they have refused already. */
  readonly excluding?: ReadonlySet<string> | undefined
  /** The instance whose place in the name the new one takes: a lost or ending one that the view may still show. */
  readonly replacing?: string | undefined
}

/** A slot, ports and a name that nobody else is given. */
export interface Reservation {
  readonly instanceId: string
  /** `namespace/name` of the sandbox. */
  readonly key: string
  readonly agent: Pick<AgentView, "uid" | "pod" | "namespace" | "pool" | "node">
}

/** What a pool's agents have to give now. */
export interface PoolUsage {
  /** Agents that answer and admit. */
  readonly ready: number
  readonly slots: number
  /** Neither taken nor reserved. */
  readonly free: number
}

/** Why a reservation was refused. */
export type ReserveError = AlreadyExists | NotFound | ResourceExhausted

/** Reserves slots. */
export class Registry extends Context.Service<Registry, {
  /**
   * Takes a name, a slot and ports in one transaction, on the best agent: one that holds the image, else any; the one
   * with most free slots; the one known longest. Given back when the scope closes, unless it was confirmed.
   */
  reserve(request: ReserveRequest): Effect.Effect<Reservation, ReserveError, Scope.Scope>
  /**
   * The agent has the instance: from now on the agent's view counts, and the scope gives nothing back. The name is held
   * until the agent shows that the instance has ended.
   */
  confirm(reservation: Reservation): Effect.Effect<void>
  /** Takes in what an agent shows. */
  upsertAgent(view: AgentView): Effect.Effect<void>
  /** The agent's Pod is gone, and with it what ran there. */
  removeAgent(uid: string): Effect.Effect<void>
  /** A pool exists, also when it has no agents. */
  addPool(namespace: string, pool: string): Effect.Effect<void>
  removePool(namespace: string, pool: string): Effect.Effect<void>
  /** None for an unknown pool. */
  usage(namespace: string, pool: string): Effect.Effect<Option.Option<PoolUsage>>
  /** The instance that holds a name: reserved, or shown by an agent as not ended. */
  holder(namespace: string, name: string): Effect.Effect<Option.Option<string>>
}>()("@fast-sandbox/controller/registry/Registry") {
  /** Knows nothing at first. */
  static get layer(): Layer.Layer<Registry> {
    return layer
  }
}

/** What callers that find no room are told to wait, in milliseconds: about as long as a pool needs to add an agent. */
export const retryAfterMillis = 1_000

const outcomes = Instruments.counter("fsb_registry_reservations_total", "Reservations of a slot, by outcome")
const reserved = Metric.withAttributes(outcomes, { outcome: "reserved" })
const refused = Metric.withAttributes(outcomes, { outcome: "refused" })

interface Pool {
  readonly index: PoolIndex<Agent>
  /** It exists by itself, not just through its agents. */
  declared: boolean
}

interface Agent {
  readonly pool: Pool
  readonly poolKey: string
  readonly ordinal: number
  readonly cell: TxRef.TxRef<AgentSlots.AgentSlots>
}

const noInstances: AgentView["instances"] = new Map()

/** Why a pool has no room, in a sentence that says what is short. */
const exhausted = (poolKey: string, pool: Pool, { excluding, ports }: ReserveRequest): ResourceExhausted => {
  const { free, ready, slots } = pool.index.totals
  const agents = `${ready} ${ready === 1 ? "agent" : "agents"}`
  const port = ports.find((port) => pool.index.find({ image: undefined, ports: [port], accepts: () => true }) === -1)
  const [resource, problem] = ready === 0
    ? ["slots", `pool ${poolKey} has no agent that answers`]
    : free === 0
    ? ["slots", `all ${slots} slots of the ${agents} of pool ${poolKey} are taken`]
    : port !== undefined
    ? [`port ${port}`, `it is taken on every agent of pool ${poolKey} that has a free slot`]
    : ports.length > 0
    ? [`ports ${ports.join(", ")}`, `no agent of pool ${poolKey} with a free slot has all of them`]
    : ["slots", `${excluding?.size ?? 0} of the ${agents} of pool ${poolKey} refused, the others are full`]
  return new ResourceExhausted({ resource, problem, retryAfterMillis })
}

/** Makes an empty Registry. */
export const make: Effect.Effect<Registry["Service"]> = Effect.map(Effect.context<never>(), (context) => {
  const names = new Names()
  const agents = new Map<string, Agent>()
  const pools = new Map<string, Pool>()

  const poolOf = (key: string): Pool => {
    const known = pools.get(key)
    if (known !== undefined) {
      return known
    }
    const pool: Pool = { index: new PoolIndex(), declared: false }
    pools.set(key, pool)
    return pool
  }

  const forgetUnusedPool = (key: string, pool: Pool): void => {
    if (!pool.declared && pool.index.isEmpty) {
      pools.delete(key)
    }
  }

  /** The index follows whatever is committed by now, so that late followers can't undo later ones. */
  const follow = (agent: Agent): void => agent.pool.index.refresh(agent.ordinal, agent.cell.value)

  /** The agent that a slot and ports were taken on; undefined when none has them. */
  const takeSlot = (
    { index }: Pool,
    image: string,
    { excluding, instanceId, ports }: ReserveRequest,
    key: string
  ): Effect.Effect<Agent | undefined> => {
    // The index may be a moment behind the cells: what it proposes wrongly is left out in the next round.
    const full: Array<number> = []
    const accepts = (ordinal: number): boolean => {
      const agent = index.agent(ordinal)
      return agent !== undefined && !full.includes(ordinal) && excluding?.has(agent.cell.value.view.uid) !== true
    }
    const next: Effect.Effect<Agent | undefined> = Effect.suspend(() => {
      const ordinal = index.find({ image, ports, accepts })
      const agent = index.agent(ordinal)
      if (agent === undefined) {
        return Effect.undefined
      }
      const taken = TxRef.modify(agent.cell, (slots) =>
        AgentSlots.fits(slots, ports)
          ? [true, AgentSlots.reserve(slots, { instanceId, key, ports, confirmedAt: undefined })]
          : [false, slots])
      return Effect.flatMap(taken, (isTaken) => {
        full.push(ordinal)
        return isTaken ? Effect.succeed(agent) : next
      })
    })
    return next
  }

  /** A failure takes everything back, because nothing of a transaction that fails is committed. */
  const take = (request: ReserveRequest, key: string, image: string): Effect.Effect<Agent, ReserveError> => {
    const poolKey = Sandbox.key(request.namespace, request.pool)
    const pool = pools.get(poolKey)
    if (pool === undefined) {
      return Effect.fail(
        new NotFound({ kind: "pool", name: poolKey, hint: "create it, or name one of the same namespace" })
      )
    }
    return names.take(key, request.instanceId, request.replacing).pipe(
      Effect.flatMap((isTaken) =>
        isTaken
          ? takeSlot(pool, image, request, key)
          : Effect.fail(
            new AlreadyExists({ kind: "sandbox", name: key, hint: "choose another name, or delete it first" })
          )
      ),
      Effect.flatMap((agent) =>
        agent === undefined ? Effect.fail(exhausted(poolKey, pool, request)) : Effect.succeed(agent)
      ),
      Effect.tx
    )
  }

  /**
   * Changes what an agent has of an instance; a name that neither the agent nor a reservation holds comes back. Mostly
   * nothing is left to change, because the agent has shown the instance: one look at one cell tells that, and needs no
   * transaction.
   */
  const settle = (
    { agent: { uid }, instanceId, key }: Reservation,
    step: (slots: AgentSlots.AgentSlots) => AgentSlots.AgentSlots
  ): Effect.Effect<void> =>
    Effect.suspend(() => {
      const agent = agents.get(uid)
      if (agent === undefined) {
        return names.drop(key, instanceId)
      }
      const { value } = agent.cell
      if (step(value) === value && AgentSlots.holds(value, instanceId)) {
        return Effect.void
      }
      return TxRef.modify(agent.cell, (before) => {
        const after = step(before)
        return [AgentSlots.holds(after, instanceId), after]
      }).pipe(
        Effect.flatMap((isHeld) => isHeld ? Effect.void : names.drop(key, instanceId)),
        Effect.tx,
        Effect.map(() => follow(agent))
      )
    })

  const release = (reservation: Reservation): Effect.Effect<void> =>
    settle(reservation, (slots) => AgentSlots.release(slots, reservation.instanceId))

  const confirm = (reservation: Reservation): Effect.Effect<void> =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (now) => settle(reservation, (slots) => AgentSlots.confirm(slots, reservation.instanceId, now))
    )

  const reserve = (request: ReserveRequest): Effect.Effect<Reservation, ReserveError, Scope.Scope> => {
    const { image, instanceId, name, namespace } = request
    const key = Sandbox.key(namespace, name)
    return Effect.acquireRelease(
      Effect.suspend(() => take(request, key, ImageName.normalizeOrKeep(image))).pipe(
        Effect.map((agent): Reservation => {
          follow(agent)
          reserved.updateUnsafe(1, context)
          return { instanceId, key, agent: agent.cell.value.view }
        }),
        Effect.tapError(() => Effect.sync(() => refused.updateUnsafe(1, context)))
      ),
      release
    )
  }

  /**
   * The names follow an agent's cell: those of instances that are no longer there come back, those that nobody has are
   * held. One that comes back at this very moment is seen with the agent's next view.
   */
  const followNames = (before: AgentSlots.AgentSlots, after: AgentSlots.AgentSlots): Effect.Effect<void> => {
    const changes: Array<Effect.Effect<unknown>> = []
    for (const [instanceId, key] of AgentSlots.held(before)) {
      if (!AgentSlots.holds(after, instanceId)) {
        changes.push(names.drop(key, instanceId))
      }
    }
    for (const [instanceId, key] of after.live) {
      if (names.isFree(key)) {
        changes.push(names.take(key, instanceId))
      }
    }
    return changes.length === 0 ? Effect.void : Effect.all(changes, { discard: true })
  }

  /** A new agent is taken in empty, so that its first view arrives like every later one. */
  const join = (view: AgentView): Agent => {
    const poolKey = Sandbox.key(view.namespace, view.pool)
    const pool = poolOf(poolKey)
    const cell = TxRef.makeUnsafe(AgentSlots.ofView({ ...view, connection: "connecting", instances: noInstances }))
    const agent: Agent = pool.index.add((ordinal) => ({ pool, poolKey, ordinal, cell }))
    agents.set(view.uid, agent)
    return agent
  }

  const upsertAgent = (view: AgentView): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const agent = agents.get(view.uid) ?? join(view)
      return TxRef.modify(agent.cell, (before) => {
        const after = AgentSlots.observe(before, view, now)
        return [followNames(before, after), after]
      }).pipe(Effect.flatten, Effect.tx, Effect.map(() => follow(agent)))
    })

  const removeAgent = (uid: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      const agent = agents.get(uid)
      if (agent === undefined) {
        return Effect.void
      }
      agents.delete(uid)
      agent.pool.index.remove(agent.ordinal)
      forgetUnusedPool(agent.poolKey, agent.pool)
      // Written, so that a reservation that has read the cell and is not committed yet looks again.
      return TxRef.modify(agent.cell, (before) => {
        const after = AgentSlots.withoutAgent(before)
        return [followNames(before, after), after]
      }).pipe(Effect.flatten, Effect.tx)
    })

  return Registry.of({
    reserve,
    confirm,
    upsertAgent,
    removeAgent,
    addPool: (namespace, pool) =>
      Effect.sync(() => {
        poolOf(Sandbox.key(namespace, pool)).declared = true
      }),
    removePool: (namespace, name) =>
      Effect.sync(() => {
        const key = Sandbox.key(namespace, name)
        const pool = pools.get(key)
        if (pool !== undefined) {
          pool.declared = false
          forgetUnusedPool(key, pool)
        }
      }),
    usage: (namespace, pool) =>
      Effect.sync(() =>
        Option.map(Option.fromNullishOr(pools.get(Sandbox.key(namespace, pool))), ({ index }) => index.totals)
      ),
    holder: (namespace, name) => names.holder(Sandbox.key(namespace, name))
  })
})

const layer: Layer.Layer<Registry> = Layer.effect(Registry, make)
