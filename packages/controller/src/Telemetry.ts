/**
 * What the controller shows to whoever watches it: its metrics, and whether it can serve, which it can once its caches
 * are filled. A Kubernetes API that is away later is no reason to be taken out of service: what is known can be read.
 */
import type { Store } from "@fast-sandbox/kube/Store"
import * as Probes from "@fast-sandbox/telemetry/Probes"
import * as Effect from "effect/Effect"
import type { ServeError } from "effect/http/HttpServerError"
import * as Layer from "effect/Layer"
import { Caches } from "./Caches.ts"

const filled = (name: string, { health }: Pick<Store<never>, "health">): Probes.Check => ({
  name,
  problem: Effect.map(health, ({ synced }) => synced ? undefined : "the cache is not filled yet")
})

/** Serves until the scope closes. */
export const layer = (address: Probes.Address): Layer.Layer<never, ServeError, Caches> =>
  Layer.unwrap(
    Effect.map(Caches, ({ pools, sandboxes }) =>
      Probes.layer(address, [filled("sandboxes", sandboxes), filled("pools", pools)]))
  )
