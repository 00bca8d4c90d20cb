/**
 * What was reported of sandboxes, pools and agents: the Kubernetes Events about them, through the Fast-Path API.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { type BoundaryError, InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Instant from "@fast-sandbox/core/Instant"
import * as Names from "@fast-sandbox/core/Names"
import type { EventInfoSchema, WatchEventsRequest } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { Event } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { toBoundary } from "../KubeFailure.ts"

/** What was reported. */
export class EventLog extends Context.Service<EventLog, {
  /** The oldest first; with `follow` it goes on. */
  watch(request: WatchEventsRequest): Stream.Stream<Event, BoundaryError>
}>()("@fast-sandbox/controller/fastpath/EventLog") {
  static get layer(): Layer.Layer<EventLog, never, KubeClient> {
    return Layer.effect(EventLog, make)
  }
}

const everything = "*"

/** Kinds whose events are told. */
const kinds = ["Sandbox", "SandboxPool", "Pod"] as const

/** The names that agent Pods get from the `generateName` of their pool. */
const agentPod = /-agent-[a-z0-9]+$/

/** API servers end watches after a while; the next one begins where the last one ended, but not in a rush. */
const renewal = Schedule.spaced("200 millis")

/** A namespace holds Pods of others too: of those nothing is told. */
const isOurs = ({ involvedObject: { apiVersion, kind, name = "" } }: Event): boolean =>
  kind === "Pod" ? agentPod.test(name) : apiVersion?.startsWith(`${Names.group}/`) === true

const lastOf = ({ firstTimestamp, lastTimestamp, metadata }: Event): number =>
  Option.getOrElse(Instant.parseMillis(lastTimestamp ?? firstTimestamp ?? metadata.creationTimestamp), () => 0)

const selectorOf = ({ kind, name }: WatchEventsRequest): string | undefined => {
  const fields = [
    ...(kind === "" ? [] : [`involvedObject.kind=${kind}`]),
    ...(name === "" ? [] : [`involvedObject.name=${name}`])
  ]
  return fields.length === 0 ? undefined : fields.join(",")
}

/** Makes the operations. */
export const make: Effect.Effect<EventLog["Service"], never, KubeClient> = Effect.gen(function*() {
  const kube = yield* KubeClient
  const failure = toBoundary("event")

  const watch = Effect.fnUntraced(function*(request: WatchEventsRequest) {
    const { follow, kind, name } = request
    if (kind !== "" && !kinds.some((known) => known === kind)) {
      return yield* new InvalidArgument({
        field: "kind",
        problem: `${JSON.stringify(kind)} is none of ${kinds.join(", ")}`
      })
    }
    // Names go into a selector, where a comma would begin another one.
    if (/[,=!]/.test(name)) {
      return yield* new InvalidArgument({ field: "name", problem: `${JSON.stringify(name)} is no name` })
    }
    const namespace = request.namespace === "" ? Names.defaultNamespace : request.namespace
    const selection = {
      namespace: namespace === everything ? undefined : namespace,
      fieldSelector: selectorOf(request)
    }
    const { items, resourceVersion } = yield* kube.list(Event, selection).pipe(Effect.mapError(failure))
    const told = Stream.fromIterable(items.filter(isOurs).toSorted((a, b) => lastOf(a) - lastOf(b)))
    if (!follow) {
      return told
    }
    let version = resourceVersion
    const coming = Stream.suspend(() => kube.watch(Event, { ...selection, resourceVersion: version })).pipe(
      Stream.mapError(failure),
      Stream.flatMap((change) => {
        version = change._tag === "Bookmark" ? change.resourceVersion : change.object.metadata.resourceVersion
        return change._tag === "Added" || change._tag === "Modified" ? Stream.succeed(change.object) : Stream.empty
      }),
      Stream.filter(isOurs),
      Stream.repeat(renewal)
    )
    return Stream.concat(told, coming)
  })

  return EventLog.of({ watch: (request) => Stream.unwrap(watch(request)) })
})

const timestampOf = (text: string | null | undefined) =>
  Option.getOrUndefined(Option.map(Instant.parseMillis(text), timestampFromMs))

/** An event as the API shows it. */
export const project = (event: Event): MessageInitShape<typeof EventInfoSchema> => {
  const { involvedObject, metadata, reportingComponent, source } = event
  const first = timestampOf(event.firstTimestamp ?? metadata.creationTimestamp)
  const last = timestampOf(event.lastTimestamp ?? event.firstTimestamp ?? metadata.creationTimestamp)
  return {
    namespace: involvedObject.namespace ?? metadata.namespace ?? "",
    kind: involvedObject.kind ?? "",
    name: involvedObject.name ?? "",
    uid: involvedObject.uid ?? "",
    type: event.type ?? "Normal",
    reason: event.reason ?? "",
    message: event.message ?? "",
    count: event.count ?? 1,
    ...(first === undefined ? {} : { first }),
    ...(last === undefined ? {} : { last }),
    source: source?.component || reportingComponent || ""
  }
}
