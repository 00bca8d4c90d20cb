/**
 * The agent's table of instances. Every change goes through here: it must be legal, it is published in the same step,
 * and it is written to the instance's container, so that the next start of the agent knows it.
 */
import { type ContainerdError, ignoreNotFound } from "@fast-sandbox/containerd/ContainerdError"
import { Containers } from "@fast-sandbox/containerd/Containers"
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import type { Unavailable } from "@fast-sandbox/core/Errors"
import { type Instance, InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import { AgentConfig } from "./AgentConfig.ts"
import * as InstanceRecord from "./InstanceRecord.ts"
import { isLegal } from "./InstanceState.ts"
import * as Metrics from "./Metrics.ts"
import { SlotFiles } from "./parked/SlotFiles.ts"
import { defaultStopSignal } from "./StopSignal.ts"
import { WatchHub } from "./WatchHub.ts"

/**
 * How long a change that nobody waits for may stay unwritten. Most sandboxes that live shorter never cost the write;
 * an agent that is killed meanwhile finds the rest out from containerd.
 */
const settleDelay = "1 second"

/** containerd may be restarting; what can't be written after that is written with the next change. */
const savePolicy = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 5 }))

/** How a program ended. `exitCode` is absent when nobody saw it. */
export interface ProgramExit {
  readonly exitCode: number | undefined
  readonly atMillis: number
}

/** One instance. `instance` is replaced by `update`, never changed; the flags belong to those who end it. */
export interface Entry {
  readonly id: string
  /** Its container: of its own name, or a parked slot's. Log, snapshot and cgroup are named after the container. */
  readonly containerId: string
  /** What its container has become, where that was made as something else: a parked slot. */
  readonly spec: OciSpec.Spec | undefined
  readonly instance: Instance
  /** The signal by which the program is asked to end. */
  stopSignal: number
  /** Somebody asked for the end. */
  isStopRequested: boolean
  /** The stop signal was sent. */
  isSignalled: boolean
  /** The record goes too, so that there is no point in writing to it. */
  isDeleting: boolean
  oomKills: number
  /** It has written more than it may. */
  isOverDisk: boolean
  /** How the instance is recorded: as it is, or, once its program has ended, as what it is about to become. */
  asRecorded: (instance: Instance) => Instance
  /** The program's end. A container that could not serve takes its own with it, see `place`. */
  readonly exit: Deferred.Deferred<ProgramExit>
  /** Task, snapshot and cgroup are proven gone, and the slot is back. */
  readonly ended: Deferred.Deferred<void>
  /** Fails when something could not be removed; a new one then stands for the next attempt. */
  stuck: Deferred.Deferred<never, Unavailable>
  /** One removal or one write of the record at a time. */
  readonly record: Semaphore.Semaphore
}

interface MutableEntry extends Entry {
  containerId: string
  spec: OciSpec.Spec | undefined
  isSpecRecorded: boolean
  exit: Deferred.Deferred<ProgramExit>
  instance: Instance
}

/** Parts of an instance that change. */
export type Change = Partial<Omit<Instance, "$typeName" | "instanceId" | "spec">>

/**
 * - `ofContainer` gives the instance that a container serves.
 * - `add` takes a new or found instance up.
 * - `place` says in which container an instance is, before it is followed; `spec` where its record says something else.
 * - `update` changes and publishes. An illegal transition is a defect of this program.
 * - `save` writes the instance to its container; `saveLater` does so soon, in the background, together with the changes
 *   until then.
 * - `forget` drops the instance from the table; its container is the caller's.
 */
export class Instances extends Context.Service<Instances, {
  readonly get: (instanceId: string) => Entry | undefined
  readonly ofContainer: (containerId: string) => Entry | undefined
  readonly all: () => ReadonlyArray<Entry>
  readonly add: (instance: Instance, containerId?: string) => Entry
  readonly place: (entry: Entry, containerId: string, spec?: OciSpec.Spec) => void
  readonly update: (entry: Entry, change: Change) => Instance
  readonly save: (entry: Entry) => Effect.Effect<void, ContainerdError>
  readonly saveLater: (entry: Entry) => Effect.Effect<void>
  readonly forget: (entry: Entry) => void
}>()("@fast-sandbox/agent/Instances") {
  static readonly layer: Layer.Layer<Instances, never, AgentConfig | Containers | SlotFiles | WatchHub> = Layer.effect(
    Instances,
    Effect.gen(function*() {
      const settings = yield* AgentConfig
      const containers = yield* Containers
      const hub = yield* WatchHub
      const slotFiles = yield* SlotFiles
      const context = yield* Effect.context<never>()
      const scope = yield* Effect.scope
      const table = new Map<string, MutableEntry>()
      const byContainer = new Map<string, MutableEntry>()
      const unsaved = new Set<string>()

      const gauges = new Map(stateNames.map(([state, name]) => [
        state,
        Metric.withAttributes(Metrics.instances, { state: name })
      ]))
      const counts = new Map<InstanceState, number>()
      const count = (state: InstanceState, by: number): void => {
        const now = (counts.get(state) ?? 0) + by
        counts.set(state, now)
        gauges.get(state)?.updateUnsafe(now, context)
      }

      const save = (entry: Entry) =>
        Effect.suspend(() => {
          unsaved.delete(entry.id)
          const instance = entry.asRecorded(entry.instance)
          const known = table.get(entry.id)
          const record = {
            ...InstanceRecord.recordOf(settings, { instance, stopSignal: entry.stopSignal }),
            ...(entry.spec === undefined || known?.isSpecRecorded === true ? {} : { spec: entry.spec })
          }
          return Effect.tap(
            containers.update(entry.containerId, record),
            // The container tells it from now on.
            () => {
              if (known !== undefined) {
                known.isSpecRecorded = true
              }
              return slotFiles.settle(entry.containerId)
            }
          )
        }).pipe(ignoreNotFound, entry.record.withPermits(1), Effect.asVoid)

      const saveSoon = (entry: Entry) =>
        Effect.sleep(settleDelay).pipe(
          Effect.andThen(Effect.suspend(() =>
            unsaved.has(entry.id) && table.get(entry.id) === entry && !entry.isDeleting ? save(entry) : Effect.void
          )),
          // What changes meanwhile is written by the next try.
          Effect.tapError(() =>
            Effect.sync(() => unsaved.add(entry.id))
          ),
          Effect.retry(savePolicy),
          Effect.catch((error) => {
            unsaved.delete(entry.id)
            return Effect.logWarning("an instance's record could not be written", { instance: entry.id }, error.message)
          })
        )

      return Instances.of({
        get: (instanceId) => table.get(instanceId),
        ofContainer: (containerId) => byContainer.get(containerId),
        all: () => [...table.values()],
        add: (instance, containerId = instance.instanceId) => {
          const entry: MutableEntry = {
            id: instance.instanceId,
            containerId,
            spec: undefined,
            isSpecRecorded: false,
            instance,
            stopSignal: defaultStopSignal,
            isStopRequested: false,
            isSignalled: false,
            isDeleting: false,
            oomKills: 0,
            isOverDisk: false,
            asRecorded: (instance) => instance,
            exit: Deferred.makeUnsafe(),
            ended: Deferred.makeUnsafe(),
            stuck: Deferred.makeUnsafe(),
            record: Semaphore.makeUnsafe(1)
          }
          table.set(entry.id, entry)
          byContainer.set(containerId, entry)
          count(instance.state, 1)
          hub.publishUnsafe({ case: "instanceChanged", value: instance })
          return entry
        },
        place: ({ containerId: before, id }, containerId, spec) => {
          const entry = table.get(id)
          if (entry !== undefined) {
            byContainer.delete(before)
            byContainer.set(containerId, entry)
            entry.containerId = containerId
            entry.spec = spec
            // What was heard until now was about the other one.
            entry.exit = Deferred.makeUnsafe()
          }
        },
        update: ({ id, instance: { state } }, change) => {
          const entry = table.get(id)
          const next = change.state ?? state
          if (entry === undefined || !isLegal(state, next)) {
            throw new Error(`instance ${id} can't go from state ${state} to ${next}`)
          }
          entry.instance = { ...entry.instance, ...change }
          count(state, -1)
          count(next, 1)
          hub.publishUnsafe({ case: "instanceChanged", value: entry.instance })
          return entry.instance
        },
        save,
        saveLater: (entry) =>
          Effect.suspend(() => {
            if (unsaved.has(entry.id)) {
              return Effect.void
            }
            unsaved.add(entry.id)
            return Effect.asVoid(Effect.forkIn(saveSoon(entry), scope))
          }),
        forget: (entry) => {
          if (table.delete(entry.id)) {
            byContainer.delete(entry.containerId)
            unsaved.delete(entry.id)
            count(entry.instance.state, -1)
            hub.publishUnsafe({ case: "instanceRemoved", value: { instanceId: entry.id } })
          }
        }
      })
    })
  )
}

const stateNames: ReadonlyArray<readonly [InstanceState, string]> = [
  [InstanceState.CREATING, "creating"],
  [InstanceState.RUNNING, "running"],
  [InstanceState.STOPPING, "stopping"],
  [InstanceState.EXITED, "exited"]
]
