/**
 * What the controller shows to whoever watches it: its metrics, and whether it can serve: its caches are filled, calls are
 * taken, and the Kubernetes API answers. While that is away, what is known could still be read, but nobody new can prove who they are.
 */
import * as GrpcHealth from "@fast-sandbox/grpc/GrpcHealth"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { Store } from "@fast-sandbox/kube/Store"
import * as Probes from "@fast-sandbox/telemetry/Probes"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Caches } from "./Caches.ts"

const filled = (name: string, { health }: Pick<Store<never>, "health">): Probes.Check => ({
  name,
  problem: Effect.map(health, ({ synced }) => synced ? undefined : "the cache is not filled yet")
})

/** Serves until the scope closes. */
export const layer = (address: Probes.Address): Layer.Layer<never, Probes.ProbesError, Caches | KubeClient> =>
  Layer.unwrap(Effect.gen(function*() {
    const { pools, sandboxes } = yield* Caches
    const { request } = yield* KubeClient
    const health = yield* GrpcHealth.GrpcHealth
    return Probes.layer(address, [
      Probes.answers("Kubernetes API", request({ path: "/readyz" })),
      filled("sandboxes", sandboxes),
      filled("pools", pools),
      { name: "API", problem: GrpcHealth.problem(health) }
    ])
  })).pipe(Layer.provide(GrpcHealth.layer))
