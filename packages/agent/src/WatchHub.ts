/**
 * What the agent shows to its watchers: the whole state once, then its changes. The hub keeps the last value of
 * everything that was published, so that a new subscriber's first message and the changes after it fit together.
 *
 * Publishing is synchronous: whoever changes something publishes it in the same step, so that no two changes of one
 * thing can be told in the wrong order.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { heartbeatInterval } from "@fast-sandbox/core/AgentProtocol"
import { ResourceExhausted } from "@fast-sandbox/core/Errors"
import type { KeptWarm } from "@fast-sandbox/core/SandboxPool"
import type { AgentStateSchema, Capacity, Image, Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { WatchResponseSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

/**
 * Changes that wait for one watcher. Every sandbox of the largest agent may change several times before a watcher that
 * has stopped reading is given up.
 */
export const subscriberCapacity = 4096

/**
 * Changes are told together with those that follow this closely, and of one thing only the last. A start from a parked
 * slot is over by then: it costs its watchers one message, and its caller none, because the answer goes first.
 */
const gatherTime = "5 millis"

/** When a watcher that was given up should come back. */
const resubscribeAfterMillis = 100

/** One message to a watcher. */
export type WatchEvent = NonNullable<MessageInitShape<typeof WatchResponseSchema>["event"]>

/** Who the agent is; does not change while it runs. */
export type Identity = Pick<
  MessageInitShape<typeof AgentStateSchema>,
  "agentUid" | "agentName" | "nodeName" | "version" | "runtimeNotes" | "runtimeProblem" | "address"
>

/** Changes that are told. Values are never changed after they were published. */
export type Change =
  | { readonly case: "instanceChanged"; readonly value: Instance }
  | { readonly case: "instanceRemoved"; readonly value: { readonly instanceId: string } }
  | { readonly case: "capacityChanged"; readonly value: Capacity }
  | { readonly case: "imageAdded"; readonly value: Image }
  | { readonly case: "imageRemoved"; readonly value: { readonly name: string } }
  | { readonly case: "warmChanged"; readonly value: { readonly images: Array<KeptWarm> } }

type Subscriber = Queue.Queue<WatchEvent, ResourceExhausted | Cause.Done>

const fallenBehind = new ResourceExhausted({
  resource: "watch buffer",
  problem: `the watcher is more than ${subscriberCapacity} changes behind; watch again`,
  retryAfterMillis: resubscribeAfterMillis
})

/** What a change is about. */
const subjectOf = (event: WatchEvent): string => {
  switch (event.case) {
    case "instanceChanged":
    case "instanceRemoved":
      return `instance ${event.value.instanceId}`
    case "imageAdded":
    case "imageRemoved":
      return `image ${event.value.name}`
    default:
      return event.case ?? ""
  }
}

/** The last change of each thing, in the order of these. */
const lastOfEach = (first: WatchEvent, rest: ReadonlyArray<WatchEvent>): Arr.NonEmptyReadonlyArray<WatchEvent> => {
  const last = new Map<string, WatchEvent>()
  for (const event of [first, ...rest]) {
    const subject = subjectOf(event)
    last.delete(subject)
    last.set(subject, event)
  }
  const [head = first, ...tail] = last.values()
  return [head, ...tail]
}

const heartbeat: WatchEvent = { case: "heartbeat", value: {} }

/**
 * - `publishUnsafe` is for the moment of the change itself, inside the step that makes it.
 * - `watch` begins with the whole state; fails with RESOURCE_EXHAUSTED when its reader falls behind.
 * - `end` ends all watchers in order, because the agent is going away.
 */
export class WatchHub extends Context.Service<WatchHub, {
  readonly publishUnsafe: (change: Change) => void
  readonly watch: (identity: Identity) => Stream.Stream<WatchEvent, ResourceExhausted>
  readonly images: Effect.Effect<ReadonlyArray<Image>>
  readonly end: Effect.Effect<void>
}>()("@fast-sandbox/agent/WatchHub") {
  static readonly layer: Layer.Layer<WatchHub> = Layer.sync(WatchHub, () => make())
}

const make = (): WatchHub["Service"] => {
  const subscribers = new Set<Subscriber>()
  const instances = new Map<string, Instance>()
  const images = new Map<string, Image>()
  let capacity: Capacity | undefined
  let warm: Extract<Change, { readonly case: "warmChanged" }>["value"] = { images: [] }
  let isEnded = false

  const keep = (change: Change): void => {
    switch (change.case) {
      case "instanceChanged":
        instances.set(change.value.instanceId, change.value)
        return
      case "instanceRemoved":
        instances.delete(change.value.instanceId)
        return
      case "capacityChanged":
        capacity = change.value
        return
      case "imageAdded":
        images.set(change.value.name, change.value)
        return
      case "imageRemoved":
        images.delete(change.value.name)
        return
      case "warmChanged":
        warm = change.value
    }
  }

  const publishUnsafe = (change: Change): void => {
    keep(change)
    for (const subscriber of subscribers) {
      if (!Queue.offerUnsafe(subscriber, change)) {
        subscribers.delete(subscriber)
        Queue.failCauseUnsafe(subscriber, Cause.fail(fallenBehind))
      }
    }
  }

  const state = (identity: Identity): WatchEvent => ({
    case: "state",
    value: {
      ...identity,
      ...(capacity === undefined ? {} : { capacity }),
      instances: [...instances.values()],
      images: [...images.values()],
      warm
    }
  })

  const subscribe = (identity: Identity) =>
    Effect.acquireRelease(
      Effect.gen(function*() {
        const queue: Subscriber = yield* Queue.dropping<WatchEvent, ResourceExhausted | Cause.Done>(subscriberCapacity)
        Queue.offerUnsafe(queue, state(identity))
        if (isEnded) {
          Queue.endUnsafe(queue)
        } else {
          subscribers.add(queue)
        }
        return queue
      }),
      (queue) => Effect.sync(() => subscribers.delete(queue)).pipe(Effect.andThen(Queue.shutdown(queue)))
    )

  /** What follows a first message soon, with it. */
  const gather = (queue: Subscriber) =>
  (
    first: WatchEvent
  ): Effect.Effect<Arr.NonEmptyReadonlyArray<WatchEvent>, ResourceExhausted> =>
    first.case === "state"
      ? Effect.succeed([first])
      : Effect.sleep(gatherTime).pipe(
        Effect.andThen(Queue.clear(queue)),
        Effect.map((rest) => lastOfEach(first, rest))
      )

  return WatchHub.of({
    publishUnsafe,
    watch: (identity) =>
      Stream.unwrap(Effect.map(subscribe(identity), (queue) =>
        Stream.fromPull(Effect.succeed(
          Queue.take(queue).pipe(
            Effect.timeoutOption(heartbeatInterval),
            Effect.flatMap(Option.match({ onNone: () => Effect.succeed([heartbeat] as const), onSome: gather(queue) }))
          )
        )))),
    images: Effect.sync(() => [...images.values()]),
    end: Effect.sync(() => {
      isEnded = true
      for (const subscriber of subscribers) {
        Queue.endUnsafe(subscriber)
      }
      subscribers.clear()
    })
  })
}
