/**
 * Kubernetes Events: what `kubectl describe` tells a user about an object. Recording never fails and never waits for
 * the API: repeated events are counted instead of repeated, and what is too much is dropped and counted.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { Event, type ObjectReference } from "./Kinds.ts"
import { KubeClient } from "./KubeClient.ts"
import type { KubeError } from "./KubeError.ts"
import { apiVersion, type KubeKind, type KubeObject } from "./KubeObject.ts"

/** What happened. `reason` is one CamelCase word, `message` a sentence. */
export interface EventInput {
  readonly type: "Normal" | "Warning"
  readonly reason: string
  readonly message: string
}

/** Who reports. `instance` is the Pod or host. */
export interface EventSource {
  readonly component: string
  readonly instance?: string | undefined
}

/** Records Kubernetes Events. */
export class EventRecorder extends Context.Service<EventRecorder, {
  /** Reports something about an object. */
  record<A extends KubeObject>(kind: KubeKind<A>, object: A, event: EventInput): Effect.Effect<void>
}>()("@fast-sandbox/kube/EventRecorder") {
  /** Writes Events to the API. What was recorded is written before the scope closes, if the API answers in time. */
  static readonly layer = (source: EventSource): Layer.Layer<EventRecorder, never, KubeClient> =>
    Layer.effect(EventRecorder, make(source))

  /** Forgets everything. */
  static readonly layerNoop: Layer.Layer<EventRecorder> = Layer.succeed(EventRecorder, { record: () => Effect.void })
}

/** Different events that are remembered to be counted, and objects whose rate is known: client-go's cache size. */
const maxRemembered = 4096

/** Events that may wait for the API: those of a thousand objects that are created at once, with some room. */
const maxPending = 4096

/**
 * When more events than this wait, many objects change at once, and the writes that change them come first: the events
 * are written with pauses, about as many in a second as client-go's default limits allow in a burst.
 */
const crowd = 32
const crowdPause = "10 millis"

/** client-go's spam filter: so many events about one object at once, then one more for every five minutes. */
const burst = 25
const refillMillis = 5 * 60 * 1000

/** The API's own limit. */
const maxMessageLength = 1024

/** The rest of the 253 characters of a name is for the time. */
const maxNamePrefix = 230

/** How long the end of the scope waits for the events that are not written yet. */
const flushLimit = "2 seconds"

const dropped = Metric.counter("fsb_events_dropped_total", {
  description: "Kubernetes Events that were not recorded, by cause",
  incremental: true
})

const drop = (cause: "rate" | "queue" | "api") => Metric.update(Metric.withAttributes(dropped, { cause }), 1)

/** One event and how often it happened. */
interface Entry {
  readonly object: ObjectReference
  readonly input: EventInput
  readonly firstTimestamp: string
  lastTimestamp: string
  count: number
  /** Its name in the API, once it is there. */
  name: string | undefined
}

/** The right of one object to be talked about. */
interface Allowance {
  tokens: number
  refilledAt: number
}

/** Remembers the most recently used, and no more than fit. */
const remember = <A>(map: Map<string, A>, key: string, value: A): void => {
  map.delete(key)
  map.set(key, value)
  if (map.size > maxRemembered) {
    for (const oldest of map.keys()) {
      map.delete(oldest)
      break
    }
  }
}

const make = Effect.fnUntraced(function*(
  source: EventSource
): Effect.fn.Return<EventRecorder["Service"], never, KubeClient | Scope.Scope> {
  const client = yield* KubeClient
  const entries = new Map<string, Entry>()
  const allowances = new Map<string, Allowance>()
  const pending = new Set<Entry>()
  const wake = yield* Queue.sliding<void>(1)

  const isAllowed = (key: string, now: number): boolean => {
    const { refilledAt, tokens } = allowances.get(key) ?? { tokens: burst, refilledAt: now }
    const refilled = Math.floor((now - refilledAt) / refillMillis)
    const left = Math.min(burst, tokens + refilled)
    remember(allowances, key, {
      tokens: Math.max(0, left - 1),
      refilledAt: left === burst ? now : refilledAt + refilled * refillMillis
    })
    return left > 0
  }

  const record = Effect.fnUntraced(function*<A extends KubeObject>(kind: KubeKind<A>, object: A, event: EventInput) {
    const now = yield* Clock.currentTimeMillis
    const { name = "", namespace, resourceVersion, uid } = object.metadata
    const about = `${kind.kind}/${namespace ?? ""}/${name}/${uid ?? ""}`
    const input = { ...event, message: event.message.slice(0, maxMessageLength) }
    if (!isAllowed(about, now)) {
      return yield* drop("rate")
    }
    const key = JSON.stringify([about, input.type, input.reason, input.message])
    const time = timestamp(now)
    const entry: Entry = entries.get(key) ?? {
      object: { apiVersion: apiVersion(kind), kind: kind.kind, namespace, name, uid, resourceVersion },
      input,
      firstTimestamp: time,
      lastTimestamp: time,
      count: 0,
      name: undefined
    }
    if (pending.size >= maxPending && !pending.has(entry)) {
      return yield* drop("queue")
    }
    remember(entries, key, entry)
    entry.count++
    entry.lastTimestamp = time
    pending.add(entry)
    yield* Queue.offer(wake, undefined)
  })

  const write = Effect.fnUntraced(function*(entry: Entry) {
    const namespace = entry.object.namespace ?? "default"
    const { count, lastTimestamp } = entry
    if (entry.name !== undefined) {
      return yield* client.patch(Event, { name: entry.name, namespace }, {
        type: "merge",
        body: { count, lastTimestamp }
      })
    }
    const nanos = yield* Clock.currentTimeNanos
    const name = `${(entry.object.name ?? "").slice(0, maxNamePrefix)}.${nanos.toString(16)}`
    const stored = yield* client.create(Event, {
      metadata: { name, namespace },
      involvedObject: entry.object,
      ...entry.input,
      count,
      firstTimestamp: entry.firstTimestamp,
      lastTimestamp,
      source: { component: source.component, ...(source.instance === undefined ? {} : { host: source.instance }) },
      reportingComponent: source.component,
      reportingInstance: source.instance ?? ""
    })
    entry.name = stored.metadata.name
    return stored
  })

  /** An event that the API has forgotten after its hour is made anew. */
  const deliver = (entry: Entry): Effect.Effect<void> =>
    write(entry).pipe(
      Effect.catchReason("KubeError", "NotFound", (_, error) =>
        entry.name === undefined ? Effect.fail(error) : Effect.suspend(() => {
          entry.name = undefined
          return write(entry)
        })),
      Effect.catch((error: KubeError) =>
        Effect.andThen(drop("api"), Effect.logDebug(error.message))
      ),
      Effect.asVoid
    )

  const flush = Effect.fnUntraced(function*(pause: Effect.Effect<void>) {
    for (const entry of pending) {
      pending.delete(entry)
      yield* Effect.onInterrupt(deliver(entry), () => Effect.sync(() => pending.add(entry)))
      yield* pending.size > crowd ? pause : Effect.void
    }
  })

  const writer = yield* Effect.forever(Effect.andThen(Queue.take(wake), flush(Effect.sleep(crowdPause)))).pipe(
    Effect.forkScoped
  )
  yield* Effect.addFinalizer(() =>
    Fiber.interrupt(writer).pipe(
      Effect.andThen(flush(Effect.void)),
      Effect.timeoutOrElse({ duration: flushLimit, orElse: () => drop("api") })
    )
  )
  return { record }
})

/** RFC 3339 in whole seconds, as the API writes it. */
const timestamp = (millis: number): string =>
  DateTime.formatIso(DateTime.makeUnsafe(Math.floor(millis / 1000) * 1000)).replace(".000Z", "Z")
