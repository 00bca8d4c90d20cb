/**
 * Admission: an agent never holds more sandboxes than it has slots, and gives no port twice. Every decision is one
 * synchronous step, so that any number of creates at the same moment are decided one after the other.
 *
 * A slot is held from admission until its instance is proven gone; its holder is the instance's id.
 */
import { create } from "@bufbuild/protobuf"
import { RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { FailedPrecondition, ResourceExhausted, Unavailable } from "@fast-sandbox/core/Errors"
import { type Capacity, CapacitySchema, type ParkedImage } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { AgentConfig } from "./AgentConfig.ts"
import * as Metrics from "./Metrics.ts"
import { WatchHub } from "./WatchHub.ts"

/** When a caller that found no room may ask the same agent again; another agent is the better choice. */
const retryAfterMillis = 1000

/**
 * - `admit` takes a slot and the ports, all or nothing, until `release`. RESOURCE_EXHAUSTED when there is no room,
 *   UNAVAILABLE when the agent is going away, FAILED_PRECONDITION `RuntimeMissing` on a node that can't run sandboxes: its
 *   agent has no slots.
 * - `restore` takes them for an instance that was found running; it always succeeds, because what runs, runs.
 * - `release` gives back what an instance holds; safe to repeat.
 * - `drain` refuses everybody from now on.
 * - `room` is how many more instances could be admitted.
 * - `park` shows what waits ready: slots of images, and how many without one. Parked slots are none of these slots.
 */
export class Slots extends Context.Service<Slots, {
  readonly admit: (
    instanceId: string,
    ports: ReadonlyArray<number>
  ) => Effect.Effect<void, FailedPrecondition | ResourceExhausted | Unavailable>
  readonly restore: (instanceId: string, ports: ReadonlyArray<number>) => Effect.Effect<void>
  readonly release: (instanceId: string) => Effect.Effect<void>
  readonly drain: Effect.Effect<void>
  readonly capacity: Effect.Effect<Capacity>
  readonly room: Effect.Effect<number>
  readonly park: (parked: ReadonlyArray<Omit<ParkedImage, "$typeName">>, blank: number) => Effect.Effect<void>
}>()("@fast-sandbox/agent/Slots") {
  static readonly layer: Layer.Layer<Slots, never, AgentConfig | RuntimeProfile | WatchHub> = Layer.effect(
    Slots,
    Effect.gen(function*() {
      const { runtime: { problem } } = yield* RuntimeProfile
      const slots = problem === undefined ? (yield* AgentConfig).slots : 0
      const hub = yield* WatchHub
      const context = yield* Effect.context<never>()
      const holders = new Map<string, ReadonlyArray<number>>()
      const ports = new Map<number, string>()
      let isDraining = false
      let parked: ReadonlyArray<Omit<ParkedImage, "$typeName">> = []
      let parkedBlank = 0
      let revision = 0n

      const capacity = (): Capacity =>
        create(CapacitySchema, {
          slots,
          slotsUsed: holders.size,
          portsUsed: [...ports.keys()].toSorted((a, b) => a - b),
          draining: isDraining,
          parked: [...parked],
          parkedBlank,
          revision: ++revision
        })

      const changed = (): void => {
        Metrics.slotsUsed.updateUnsafe(holders.size, context)
        Metrics.slotsParked.updateUnsafe(parked.reduce((sum, { ready }) => sum + ready, 0), context)
        Metrics.slotsBlank.updateUnsafe(parkedBlank, context)
        hub.publishUnsafe({ case: "capacityChanged", value: capacity() })
      }

      const take = (instanceId: string, wanted: ReadonlyArray<number>): void => {
        holders.set(instanceId, wanted)
        for (const port of wanted) {
          ports.set(port, instanceId)
        }
        changed()
      }

      const release = (instanceId: string): void => {
        const held = holders.get(instanceId)
        if (held !== undefined) {
          holders.delete(instanceId)
          for (const port of held) {
            ports.delete(port)
          }
          changed()
        }
      }

      const refusal = (
        instanceId: string,
        wanted: ReadonlyArray<number>
      ): FailedPrecondition | ResourceExhausted | Unavailable | undefined => {
        if (problem !== undefined) {
          return new FailedPrecondition({
            reason: "RuntimeMissing",
            problem: `no sandbox can be started here: ${problem}`
          })
        }
        if (isDraining) {
          return new Unavailable({ target: "agent", problem: "it is going away and admits nothing; use another agent" })
        }
        if (holders.size >= slots || holders.has(instanceId)) {
          return new ResourceExhausted({
            resource: "slot",
            problem: `${holders.size} of ${slots} slots are taken`,
            retryAfterMillis
          })
        }
        const taken = wanted.find((port, position) => ports.has(port) || wanted.indexOf(port) !== position)
        return taken === undefined
          ? undefined
          : new ResourceExhausted({ resource: "port", problem: `port ${taken} is taken`, retryAfterMillis })
      }

      Metrics.slots.updateUnsafe(slots, context)
      changed()

      return Slots.of({
        admit: (instanceId, wanted) =>
          Effect.suspend(() => {
            const refused = refusal(instanceId, wanted)
            if (refused !== undefined) {
              return Effect.fail(refused)
            }
            take(instanceId, wanted)
            return Effect.void
          }),
        restore: (instanceId, held) => Effect.sync(() => take(instanceId, held)),
        release: (instanceId) => Effect.sync(() => release(instanceId)),
        drain: Effect.sync(() => {
          isDraining = true
          changed()
        }),
        capacity: Effect.sync(capacity),
        room: Effect.sync(() => isDraining ? 0 : Math.max(0, slots - holders.size)),
        park: (images, blank) =>
          Effect.sync(() => {
            parked = images
            parkedBlank = blank
            changed()
          })
      })
    })
  )
}
