/**
 * How many slots a pool's agent has parked, as the agent itself tells it at once: the pool's status is a second behind.
 */
import { poolLabel } from "@fast-sandbox/core/Names"
import { AgentService, type WatchResponse } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Home from "@fast-sandbox/local/Home"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { ContenderFailed } from "./contenders/Contender.ts"

/** A hundred slots take some seconds; a machine that is busy with others longer. */
const parkedWithin = "1 minute"

/** Waits until so many slots of images are parked, or so many without an image. */
export interface ParkedGauge {
  readonly until: (count: number) => Effect.Effect<void, ContenderFailed>
  readonly untilBlank: (count: number) => Effect.Effect<void, ContenderFailed>
}

/** What waits ready. */
interface Ready {
  readonly parked: number
  readonly blank: number
}

const capacityOf = ({ event }: WatchResponse) =>
  event.case === "capacityChanged" ? event.value : event.case === "state" ? event.value.capacity : undefined

/** Watches the one agent of `pool` until the scope closes. */
export const make = Effect.fnUntraced(function*(home: Home.Home, pool: string) {
  const kube = yield* KubeClient
  const { items } = yield* kube.list(Kinds.Pod, { namespace: "default", labelSelector: `${poolLabel}=${pool}` })
  const ready = yield* SubscriptionRef.make<Ready>({ parked: 0, blank: 0 })
  yield* Effect.forEach(
    items,
    ({ metadata }) =>
      GrpcClient.makeBoundary(AgentService, { address: `unix:${Home.agentSocket(home, metadata.name)}` }).pipe(
        Effect.flatMap((agent) =>
          agent.watch({}).pipe(
            Stream.runForEach((response) => {
              const capacity = capacityOf(response)
              return capacity === undefined
                ? Effect.void
                : SubscriptionRef.set(ready, {
                  parked: capacity.parked.reduce((sum, { ready }) => sum + ready, 0),
                  blank: capacity.parkedBlank
                })
            }),
            Effect.forkScoped
          )
        )
      ),
    { discard: true }
  )
  const until = (kind: keyof Ready) => (count: number) =>
    SubscriptionRef.changes(ready).pipe(
      Stream.filter((now) => now[kind] >= count),
      Stream.take(1),
      Stream.runDrain,
      Effect.timeoutOrElse({
        duration: parkedWithin,
        orElse: () =>
          Effect.fail(
            new ContenderFailed({
              contender: pool,
              problem: `${SubscriptionRef.getUnsafe(ready)[kind]} of ${count} slots were ${kind} within ${parkedWithin}`
            })
          )
      })
    )
  return { until: until("parked"), untilBlank: until("blank") } satisfies ParkedGauge
})
