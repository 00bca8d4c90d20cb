/**
 * The way to the Kubernetes API for one of its callers: calls over a network that fails, watches that are late, break,
 * and find their version forgotten, and times when the API does not answer at all. The API behind it is another
 * KubeClient.
 */
import { KubeClient, type WatchEvent } from "@fast-sandbox/kube/KubeClient"
import * as KubeError from "@fast-sandbox/kube/KubeError"
import type { KubeKind, KubeObject } from "@fast-sandbox/kube/KubeObject"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { FaultPlan, Network, Rates } from "./Faults.ts"
import type { Seed } from "./Seed.ts"

/** Whether the API answers at the moment. */
export interface Outage {
  isDown: boolean
}

/** Options of {@link make}. */
export interface FaultyKubeOptions {
  readonly network: Network
  readonly plan: FaultPlan
  readonly seed: Seed
  readonly outage: Outage
}

const failure = (verb: string, kind: string, name: string | undefined, reason: KubeError.KubeErrorReason) =>
  new KubeError.KubeError({
    method: verb,
    path: `/${kind}`,
    kind,
    ...(name === undefined ? {} : { name }),
    reason
  })

/** How often an API that is asked too much says so, of the calls that fail. */
const throttled = 0.2

/** How an API that is down says so, in milliseconds. */
const refusalMillis = 20

/** A client that fails as clients of a real API do. */
export const make = (
  api: KubeClient["Service"],
  { network, outage, plan, seed }: FaultyKubeOptions
): KubeClient["Service"] => {
  const lost = (verb: string, kind: string, name: string | undefined) => (arrived: boolean): KubeError.KubeError =>
    failure(
      verb,
      kind,
      name,
      arrived
        ? seed.chance(0.5)
          ? new KubeError.Timeout({ problem: "no answer in time" })
          : new KubeError.Unavailable({ problem: "the connection broke", sent: true })
        : seed.chance(throttled)
        ? new KubeError.TooManyRequests({ problem: "slow down", retryAfterMillis: 1_000 })
        : seed.chance(0.5)
        ? new KubeError.ServerError({ problem: "etcdserver: leader changed", status: 500 })
        : new KubeError.Unavailable({ problem: "connection refused", sent: false })
    )

  const over = <A>(
    verb: string,
    kind: string,
    name: string | undefined,
    work: Effect.Effect<A, KubeError.KubeError>,
    rates: Rates = plan.kube
  ): Effect.Effect<A, KubeError.KubeError> =>
    Effect.suspend(() =>
      outage.isDown
        ? Effect.flatMap(Effect.sleep(refusalMillis), () => Effect.fail(lost(verb, kind, name)(false)))
        : network.call(rates, { work, lost: lost(verb, kind, name) })
    )

  /** An event that a slow watch holds back holds back all after it. */
  const late = <A extends KubeObject>(events: Stream.Stream<WatchEvent<A>, KubeError.KubeError>) =>
    events.pipe(
      Stream.chunks,
      Stream.mapEffect((batch) => Effect.as(Effect.suspend(() => Effect.sleep(network.way(plan.watchMillis))), batch)),
      Stream.flattenArray
    )

  const breaking = <A extends KubeObject>(
    kind: KubeKind<A>,
    events: Stream.Stream<WatchEvent<A>, KubeError.KubeError>
  ) => {
    const broken = failure("watch", kind.kind, undefined, new KubeError.Unavailable({ problem: "broken", sent: true }))
    const life = network.isHealed ? Infinity : seed.exponential(plan.watchBreakMillis)
    return Number.isFinite(life)
      ? Stream.interruptWhen(
        events,
        Effect.flatMap(
          Effect.sleep(life),
          () => network.isHealed ? Effect.never : Effect.fail(broken)
        )
      )
      : events
  }

  return KubeClient.of({
    get: (kind, ref) => over("get", kind.kind, ref.name, api.get(kind, ref)),
    getStatus: (kind, ref) => over("getStatus", kind.kind, ref.name, api.getStatus(kind, ref)),
    list: (kind, options) => over("list", kind.kind, undefined, api.list(kind, options)),
    create: (kind, object, options) =>
      over("create", kind.kind, object.metadata.name, api.create(kind, object, options)),
    update: (kind, object, options) =>
      over("update", kind.kind, object.metadata.name, api.update(kind, object, options)),
    updateStatus: (kind, object, options) =>
      over("updateStatus", kind.kind, object.metadata.name, api.updateStatus(kind, object, options)),
    patch: (kind, ref, patch, options) => over("patch", kind.kind, ref.name, api.patch(kind, ref, patch, options)),
    patchStatus: (kind, ref, patch, options) =>
      over("patchStatus", kind.kind, ref.name, api.patchStatus(kind, ref, patch, options)),
    apply: (kind, object, options) => over("apply", kind.kind, object.metadata.name, api.apply(kind, object, options)),
    applyStatus: (kind, object, options) =>
      over("applyStatus", kind.kind, object.metadata.name, api.applyStatus(kind, object, options)),
    delete: (kind, ref, options) => over("delete", kind.kind, ref.name, api.delete(kind, ref, options)),
    deleteCollection: (kind, selection, options) =>
      over("deleteCollection", kind.kind, undefined, api.deleteCollection(kind, selection, options)),
    getScale: (kind, ref) => over("getScale", kind.kind, ref.name, api.getScale(kind, ref)),
    setScale: (kind, ref, replicas) => over("setScale", kind.kind, ref.name, api.setScale(kind, ref, replicas)),
    watch: (kind, options) =>
      Stream.unwrap(
        over("watch", kind.kind, undefined, Effect.void).pipe(
          Effect.flatMap(() =>
            !network.isHealed && options?.resourceVersion !== undefined && seed.chance(plan.watchGone)
              ? Effect.fail(failure("watch", kind.kind, undefined, new KubeError.Gone({ problem: "compacted" })))
              : Effect.succeed(breaking(kind, late(api.watch(kind, options))))
          )
        )
      ),
    request: (request) => over("request", request.path, undefined, api.request(request))
  })
}
