/**
 * What happens in containerd, as a stream that never ends by itself. Events are not stored: what happens while nobody
 * listens is lost. The stream therefore says each time when it (again) hears everything, and the consumer looks for
 * itself at that moment.
 */
import { fromBinary } from "@bufbuild/protobuf"
import * as EventTypes from "@fast-sandbox/grpc/gen/containerd/event_types_pb"
import type { Envelope } from "@fast-sandbox/grpc/gen/containerd/types_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { randomUUID } from "node:crypto"
import { fromJson } from "./Any.ts"
import { ContainerdClient, named, namedStream } from "./ContainerdClient.ts"
import { ContainerdError } from "./ContainerdError.ts"
import { toMillis } from "./internal/time.ts"

/** From here on nothing is missed; look at the world now. The first element, and again after every lost connection. */
export interface Subscribed {
  readonly _tag: "Subscribed"
  /** 1 for the first subscription; a higher number means that events may have been missed. */
  readonly generation: number
}

/** A process ended. `execId` is empty for the container's init. */
export interface TaskExited {
  readonly _tag: "TaskExited"
  readonly containerId: string
  readonly execId: string
  readonly pid: number
  readonly exitCode: number
  readonly exitedAtMillis: number
}

/** The kernel killed a process of the container because its memory limit was reached. */
export interface TaskOutOfMemory {
  readonly _tag: "TaskOutOfMemory"
  readonly containerId: string
}

/** An image's name changed. */
export interface ImageChanged {
  readonly _tag: "ImageCreated" | "ImageUpdated" | "ImageDeleted"
  readonly name: string
}

/** Everything that is told: what happens without anybody having asked for it. */
export type ContainerdEvent =
  | Subscribed
  | TaskExited
  | TaskOutOfMemory
  | ImageChanged

/**
 * `all` reconnects for ever (capped, jittered pauses) and never fails; a lost connection is logged and shows as another
 * {@link Subscribed}. Each run of the stream is a subscription of its own.
 */
export class Events extends Context.Service<Events, {
  readonly all: Stream.Stream<ContainerdEvent>
}>()("@fast-sandbox/containerd/Events") {
  static readonly layer: Layer.Layer<Events, never, ContainerdClient> = Layer.effect(
    Events,
    Effect.gen(function*() {
      const { namespace, options, raw: { events } } = yield* ContainerdClient

      // A subscription is in force at some moment after the call: containerd answers nothing until the first event. So
      // an event of our own is published until it comes back; what comes after it can't have been missed.
      const subscribe = (nextGeneration: () => number): Stream.Stream<ContainerdEvent, ContainerdError> =>
        Stream.unwrap(Effect.gen(function*() {
          const token = yield* Effect.sync(() => randomUUID())
          let isInForce = false
          yield* events.publish({ topic: probeTopic, event: fromJson(token) }, options.call).pipe(
            Effect.repeat({ schedule: Schedule.spaced(probeInterval), until: () => isInForce }),
            named("Events.publish"),
            // The subscription fails for the same reason and is what reports it.
            Effect.ignore,
            Effect.forkScoped
          )
          return events.subscribe({
            filters: [`namespace==${namespace},topic~="${topics}"`]
          }, options.unbounded).pipe(
            Stream.flatMap((envelope): Stream.Stream<ContainerdEvent> => {
              if (envelope.topic === probeTopic) {
                const isFirst = !isInForce && isProbe(envelope, token)
                isInForce ||= isFirst
                return isFirst ? Stream.make({ _tag: "Subscribed", generation: nextGeneration() }) : Stream.empty
              }
              return isInForce ? Stream.fromIterable(decode(envelope)) : Stream.empty
            }),
            namedStream("Events.subscribe"),
            Stream.concat(Stream.fail(
              new ContainerdError({
                operation: "Events.subscribe",
                code: "UNAVAILABLE",
                details: "containerd closed the stream"
              })
            ))
          )
        }))

      return Events.of({
        all: Stream.suspend(() => {
          let generation = 0
          return Stream.suspend(() => subscribe(() => ++generation)).pipe(
            Stream.tapError((error) => Effect.logWarning("containerd's events are interrupted", error.message)),
            Stream.retry(reconnect),
            Stream.orDie
          )
        })
      })
    })
  )
}

/** How often the probe is repeated until it comes back; it nearly always does the first time. */
const probeInterval = "50 millis"

const probeTopic = "/fast-sandbox/probe"

/**
 * The topics that are listened to, as a regular expression of containerd's. No more than what somebody acts on: every
 * start and end of any sandbox on the node would otherwise cost each agent six messages instead of one.
 */
const topics = "^/(tasks/(exit|oom)$|images/|fast-sandbox/)"

/** 50 ms, 100 ms ... capped at 2 s, for ever: without containerd there is nothing else to do. */
const reconnect = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)

const textDecoder = new TextDecoder()

const isProbe = (envelope: Envelope, token: string): boolean =>
  textDecoder.decode(envelope.event?.value) === JSON.stringify(token)

const decode = ({ event, topic }: Envelope): ReadonlyArray<ContainerdEvent> => {
  const bytes = event?.value ?? new Uint8Array()
  switch (topic) {
    case "/tasks/exit": {
      const exit = fromBinary(EventTypes.TaskExitSchema, bytes)
      return [{
        _tag: "TaskExited",
        containerId: exit.containerId,
        execId: exit.id === exit.containerId ? "" : exit.id,
        pid: exit.pid,
        exitCode: exit.exitStatus,
        exitedAtMillis: toMillis(exit.exitedAt)
      }]
    }
    case "/tasks/oom":
      return [{ _tag: "TaskOutOfMemory", containerId: fromBinary(EventTypes.TaskOOMSchema, bytes).containerId }]
    case "/images/create":
      return [{ _tag: "ImageCreated", name: fromBinary(EventTypes.ImageCreateSchema, bytes).name }]
    case "/images/update":
      return [{ _tag: "ImageUpdated", name: fromBinary(EventTypes.ImageUpdateSchema, bytes).name }]
    case "/images/delete":
      return [{ _tag: "ImageDeleted", name: fromBinary(EventTypes.ImageDeleteSchema, bytes).name }]
    default:
      return []
  }
}
