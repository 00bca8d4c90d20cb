/**
 * Slots that wait to become a sandbox: a started container of an image, whose first process waits for its orders (see
 * `native/init.c`). Whoever needs a sandbox of that image claims one; it serves once and is replaced in the background,
 * when nobody is waiting for the agent.
 *
 * A slot is alive as long as its init is connected. Nothing of it is to be found again by the next life of the agent,
 * because with the agent the connection ends, and with the connection the init; what is left of its container is cleared
 * up then. What is to be found again is a claimed slot: its claim is on record before it is given its orders.
 */
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type { KeptWarm } from "@fast-sandbox/core/SandboxPool"
import { Traffic } from "@fast-sandbox/core/Traffic"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { randomUUID } from "node:crypto"
import { freemem } from "node:os"
import { AgentConfig } from "../AgentConfig.ts"
import { ImageCatalog, type PreparedImage } from "../ImageCatalog.ts"
import { type Entry, Instances } from "../Instances.ts"
import { SandboxNetwork } from "../network/SandboxNetwork.ts"
import { type LeftBehind, SandboxContainer } from "../SandboxContainer.ts"
import { Slots } from "../Slots.ts"
import { fromReport } from "../StartFailure.ts"
import { WatchHub } from "../WatchHub.ts"
import { BlankSlots } from "./BlankSlots.ts"
import * as Orders from "./Orders.ts"
import * as SlotChannel from "./SlotChannel.ts"
import { SlotFiles } from "./SlotFiles.ts"
import * as Warmth from "./Warmth.ts"

/** How often it is looked whether slots are missing or too many, beside whenever that may have changed. */
const lookInterval = "1 second"

/** A folder that a claim leaves waits so long for creates that are under way, before it is cleared away beside them. */
const patience = "100 millis"

/** An image of which no slot could be parked is tried again after this. */
const retryMillis = 10_000

/** Less memory than this left on the machine is for those who are already there. */
const memoryReserveBytes = 256 * 1024 * 1024

/** Slots that one create tries: where several in a row can't serve, the next would not either. */
const maxTries = 3

/** 250 ms, 500 ms ... capped at 10 s, as for everything that could not be removed. */
const burialPolicy = Schedule.min([Schedule.exponential("250 millis"), Schedule.spaced("10 seconds")])

/** Slots that are cleared away at the same time: sandboxes are made meanwhile. */
const burialConcurrency = 2

/** At the end of the agent; what is left then is found by its next life or by the janitor. */
const closesWithin = "10 seconds"

/** Measures a step of a create under its name. */
export type Measure = (
  name: "claim" | "limits" | "network" | "exec" | "snapshot" | "rootfs"
) => <A, E>(self: Effect.Effect<A, E>) => Effect.Effect<A, E>

/** What served: a slot of the image, or one without an image. */
export type Served = "parked" | "blank"

/**
 * - `claim` makes a slot of the image an instance's container, or one without an image where none of the image's waits,
 *   and answers which when its program was executed; `undefined` when there was no slot that could serve. A failure is the
 *   program's: the instance's container is then to be unmade.
 * - `keepWarm` says what the pool wants ready from now on; what was parked for something else is given up.
 * - `expect` says that an image was brought here, which is done for those who will ask for it.
 * - `imagesChanged` says that an image that could not be parked may be another one now.
 * - `begin` clears away, in the background, the containers that an earlier life parked, and parks from then on. Before,
 *   nobody could tell its slots from those.
 * - `close` parks no more and clears all slots away.
 */
export class ParkedSlots extends Context.Service<ParkedSlots, {
  readonly claim: (
    entry: Entry,
    image: PreparedImage,
    measure: Measure
  ) => Effect.Effect<Served | undefined, BoundaryError>
  readonly keepWarm: (images: ReadonlyArray<KeptWarm>) => Effect.Effect<void>
  readonly expect: (image: string) => Effect.Effect<void>
  readonly imagesChanged: Effect.Effect<void>
  readonly begin: (leftovers: ReadonlyArray<string>) => Effect.Effect<void>
  readonly close: Effect.Effect<void>
}>()("@fast-sandbox/agent/parked/ParkedSlots") {
  static readonly layer: Layer.Layer<
    ParkedSlots,
    never,
    | AgentConfig
    | BlankSlots
    | ImageCatalog
    | Instances
    | SandboxContainer
    | SandboxNetwork
    | SlotFiles
    | Slots
    | Traffic
    | WatchHub
  > = Layer.effect(ParkedSlots, Effect.suspend(() => make))
}

interface Slot {
  readonly id: string
  /** The first process, as the agent sees it. */
  readonly pid: number
  /** Without one, it becomes a sandbox of any. */
  readonly image: PreparedImage | undefined
  readonly fixedPart: string
  readonly resources: OciSpec.LinuxResources
  /** What of the container's spec is its own, whomever it serves. */
  readonly own: Pick<OciSpec.Spec["linux"], "cgroupsPath" | "namespaces">
  readonly channel: SlotChannel.SlotChannel
  readonly scope: Scope.Closeable
}

/** Slots are kept by this name. */
const nameOf = (image: PreparedImage | undefined): string => image?.image.name ?? Warmth.blank

const make = Effect.gen(function*() {
  const blanks = yield* BlankSlots
  const catalog = yield* ImageCatalog
  const files = yield* SlotFiles
  const hub = yield* WatchHub
  const instances = yield* Instances
  const network = yield* SandboxNetwork
  const sandboxes = yield* SandboxContainer
  const slots = yield* Slots
  const traffic = yield* Traffic
  const scope = yield* Effect.scope

  // By the image's name, those without one by `Warmth.blank`; the oldest first.
  const parked = new Map<string, Array<Slot>>()
  const problems = new Map<string, { readonly problem: string; readonly retryAtMillis: number }>()
  const burials = yield* FiberSet.make()
  const undertakers = yield* Semaphore.make(burialConcurrency)
  const begun = yield* Deferred.make<void>()
  const wakes = yield* Queue.sliding<void>(1)
  let { warmImages } = yield* AgentConfig
  let asked: Warmth.Asked = new Map()
  let shown = ""

  const wake = Effect.asVoid(Queue.offer(wakes, undefined))

  const clearAway = (id: string): Effect.Effect<void, LeftBehind> =>
    Effect.andThen(sandboxes.reclaim(id), sandboxes.forget(id)).pipe(
      Effect.andThen(files.remove(id))
    )

  const bury = (id: string): Effect.Effect<void> =>
    clearAway(id).pipe(
      Effect.tapError((error) => Effect.logWarning("a parked slot leaves something behind", error.message)),
      Effect.retry(burialPolicy),
      Effect.orDie
    )

  const buryLater = (id: string) => Effect.asVoid(FiberSet.run(burials, undertakers.withPermits(1)(bury(id))))

  /** Takes the slot out of the pool. False when somebody else has. */
  const withdraw = (slot: Slot): boolean => {
    const all = parked.get(nameOf(slot.image)) ?? []
    const at = all.indexOf(slot)
    if (at >= 0) {
      all.splice(at, 1)
    }
    return at >= 0
  }

  const giveUp = (slot: Slot): Effect.Effect<void> =>
    Effect.suspend(() =>
      withdraw(slot) ? Effect.andThen(Scope.close(slot.scope, Exit.void), buryLater(slot.id)) : Effect.void
    ).pipe(Effect.uninterruptible)

  const watch = (slot: Slot) =>
    slot.channel.ended.pipe(
      Effect.andThen(giveUp(slot)),
      Effect.andThen(wake),
      Effect.forkIn(scope)
    )

  const park = Effect.fn("ParkedSlots.park")((image: PreparedImage | undefined) =>
    Effect.gen(function*() {
      const id = yield* Effect.sync(() => randomUUID())
      const slotScope = yield* Scope.make()
      const directory = yield* files.make(id)
      yield* Effect.gen(function*() {
        const init = yield* SlotChannel.listen(directory)
        const { namespaces, pid, served } = yield* sandboxes.makeSlot(id, image, (spec) =>
          Orders.parkedSpec(spec, directory))
        const slot: Slot = {
          id,
          pid,
          image,
          fixedPart: Orders.fixedPart(served),
          resources: served.linux.resources,
          own: { cgroupsPath: served.linux.cgroupsPath, namespaces },
          channel: yield* init,
          scope: slotScope
        }
        parked.set(nameOf(image), [...(parked.get(nameOf(image)) ?? []), slot])
        yield* watch(slot)
      }).pipe(
        Scope.provide(slotScope),
        Effect.onError(() =>
          Effect.andThen(Scope.close(slotScope, Exit.void), buryLater(id))
        )
      )
    }).pipe(Effect.uninterruptible)
  )

  /** The slots that are there, without those of what the image was before. */
  const ready = (): ReadonlyMap<string, number> => new Map([...parked].map(([image, all]) => [image, all.length]))

  const show = (wanted: ReadonlyMap<string, number>): Effect.Effect<void> => {
    const images = [...new Set([...wanted.keys(), ...parked.keys()])].map((image) => ({
      image,
      ready: parked.get(image)?.length ?? 0,
      wanted: wanted.get(image) ?? 0,
      problem: files.parking?.message ?? problems.get(image)?.problem ?? ""
    })).filter(({ image, ready, wanted }) => image !== Warmth.blank && (ready > 0 || wanted > 0))
    const blank = parked.get(Warmth.blank)?.length ?? 0
    const text = JSON.stringify([images, blank])
    if (text === shown) {
      return Effect.void
    }
    shown = text
    return slots.park(images, blank)
  }

  const showWarm = (): void => hub.publishUnsafe({ case: "warmChanged", value: { images: [...warmImages] } })
  showWarm()

  const ask = (image: string) =>
    Effect.map(Clock.currentTimeMillis, (nowMillis) => {
      asked = Warmth.ask(asked, image, nowMillis)
    })

  const wantedNow = Effect.gen(function*() {
    const nowMillis = yield* Clock.currentTimeMillis
    const room = freemem() < memoryReserveBytes ? 0 : yield* slots.room
    return Warmth.wanted({ warmImages, asked, nowMillis, room, blanks: blanks.wanted() })
  })

  const tryToPark = Effect.fnUntraced(function*(name: string) {
    yield* traffic.quiet
    const exit = yield* Effect.exit(
      name === Warmth.blank
        ? park(undefined)
        : Effect.flatMap(catalog.prepare(name), ({ prepared }) => park(prepared))
    )
    if (Exit.isSuccess(exit)) {
      problems.delete(name)
      return
    }
    const problem = Cause.pretty(exit.cause)
    problems.set(name, { problem, retryAtMillis: (yield* Clock.currentTimeMillis) + retryMillis })
    yield* Effect.logInfo("no slot could be parked", { image: name === Warmth.blank ? "none" : name }, problem)
  })

  /** Moves what is there one step towards what is wanted; false when nothing is to be done now. */
  const step = Effect.fnUntraced(function*() {
    const wanted = yield* wantedNow
    const nowMillis = yield* Clock.currentTimeMillis
    const possible = new Map(
      [...wanted].filter(([image]) => (problems.get(image)?.retryAtMillis ?? 0) <= nowMillis)
    )
    const there = ready()
    yield* show(wanted)
    const action = Warmth.next(possible, there)
    if (action?._tag === "GiveUp") {
      const slot = parked.get(action.image)?.[0]
      yield* slot === undefined ? Effect.void : giveUp(slot)
    } else if (action?._tag === "Park") {
      yield* tryToPark(action.image)
    }
    return action !== undefined
  })

  const keep = Effect.repeat(step(), { while: (isGoingOn) => isGoingOn }).pipe(
    Effect.catchDefect((defect) => Effect.logError("slots could not be looked after", defect)),
    Effect.andThen(Effect.timeoutOption(Queue.take(wakes), lookInterval)),
    Effect.forever
  )

  /** A slot that can be what the spec describes: one of the image, else one that can take its root. */
  const take = (image: PreparedImage, fixedPart: string): Slot | undefined => {
    const fits = (slot: Slot) =>
      slot.fixedPart === fixedPart &&
      (slot.image === undefined ? blanks.suits(image) : slot.image.image.chainId === image.image.chainId)
    const slot = parked.get(nameOf(image))?.find(fits) ?? parked.get(Warmth.blank)?.find(fits)
    return slot !== undefined && withdraw(slot) ? slot : undefined
  }

  const sameLimits = (one: OciSpec.LinuxResources, other: OciSpec.LinuxResources): boolean =>
    JSON.stringify(one) === JSON.stringify(other)

  /** Whether the slot became the instance's program. */
  const serve = Effect.fnUntraced(function*(
    slot: Slot,
    entry: Entry,
    image: PreparedImage,
    spec: OciSpec.Spec,
    measure: Measure
  ): Effect.fn.Return<boolean, BoundaryError> {
    // Before the claim: of a slot that nobody claimed nothing is taken up.
    const furnished = slot.image === undefined
      ? yield* Effect.forkChild(blanks.furnish(slot, image, measure), { startImmediately: true })
      : undefined
    const isConnected = yield* network.rename(slot.id, spec.hostname).pipe(
      Effect.andThen(network.publish(slot.id, entry.instance.spec?.exposedPorts ?? [])),
      Effect.isSuccess,
      measure("network")
    )
    const isFurnished = furnished === undefined || (yield* Fiber.join(furnished))
    if (!isConnected || !isFurnished) {
      return false
    }
    const { instance, stopSignal } = entry
    yield* files.claim(slot.id, { instance, stopSignal, spec: entry.spec ?? spec }).pipe(measure("claim"))
    if (!sameLimits(slot.resources, spec.linux.resources)) {
      const isSet = yield* Effect.isSuccess(sandboxes.limit(slot.id, spec.linux.resources)).pipe(measure("limits"))
      if (!isSet) {
        return false
      }
    }
    const report = yield* slot.channel.order(Orders.encode(spec)).pipe(measure("exec"))
    if (report._tag === "Silent") {
      // Whether it runs is not known, so that nothing else may.
      yield* Scope.close(slot.scope, Exit.void)
      yield* bury(slot.id)
      return false
    }
    if (report._tag === "Refused") {
      return yield* fromReport(spec.process.args[0] ?? "", report)
    }
    return report._tag === "Executed"
  })

  /** Clears away what a slot that has become a program does not need any more, when nobody waits. */
  const leave = (slot: Slot): Effect.Effect<void> =>
    Scope.close(slot.scope, Exit.void).pipe(
      Effect.andThen(Effect.timeoutOption(traffic.quiet, patience)),
      Effect.andThen(files.remove(slot.id))
    )

  const claim = Effect.fnUntraced(function*(
    entry: Entry,
    image: PreparedImage,
    measure: Measure
  ): Effect.fn.Return<Served | undefined, BoundaryError> {
    // a slot's init has no stdin to hand on
    if (entry.instance.spec?.stdin === true) return undefined
    yield* ask(image.image.name)
    const spec = yield* sandboxes.specOf(entry.instance, image)
    const fixedPart = Orders.fixedPart(spec)
    for (let tries = 0; tries < maxTries; tries++) {
      const slot = take(image, fixedPart)
      if (slot === undefined) {
        break
      }
      instances.place(entry, slot.id, { ...spec, linux: { ...spec.linux, ...slot.own } })
      if (yield* serve(slot, entry, image, spec, measure)) {
        yield* Effect.forkIn(leave(slot), scope)
        yield* wake
        return slot.image === undefined ? "blank" : "parked"
      }
      yield* Scope.close(slot.scope, Exit.void)
      instances.place(entry, entry.id)
      yield* Effect.logInfo("a parked slot could not serve; the next one is tried", { slot: slot.id })
      yield* buryLater(slot.id)
    }
    yield* wake
    return undefined
  })

  const keeper = yield* Effect.forkScoped(
    files.parking === undefined ? Effect.andThen(Deferred.await(begun), keep) : Effect.void
  )

  return ParkedSlots.of({
    claim,
    keepWarm: (images) =>
      Effect.sync(() => {
        warmImages = images
        showWarm()
      }).pipe(Effect.andThen(wake)),
    expect: (image) => Effect.andThen(ask(image), wake),
    imagesChanged: Effect.andThen(Effect.sync(() => problems.clear()), wake),
    begin: (leftovers) =>
      Effect.andThen(Effect.forEach(leftovers, buryLater, { discard: true }), Deferred.succeed(begun, undefined)).pipe(
        Effect.asVoid
      ),
    // What is just being parked is finished first.
    close: Fiber.interrupt(keeper).pipe(
      Effect.andThen(Effect.suspend(() => Effect.forEach([...parked.values()].flat(), giveUp, { discard: true }))),
      Effect.andThen(FiberSet.awaitEmpty(burials)),
      Effect.timeoutOption(closesWithin),
      Effect.asVoid
    )
  })
})
