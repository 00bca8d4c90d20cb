/**
 * Metrics and health over HTTP, for whoever watches the controller: `/metrics` in Prometheus' format, `/healthz` while
 * the process lives, `/readyz` once the caches are filled.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type { ServeError } from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import { createServer } from "node:http"
import { Caches } from "./Caches.ts"

/** Where {@link layer} listens. */
export interface TelemetryOptions {
  readonly host: string
  readonly port: number
}

const ready = Effect.gen(function*() {
  const { pools, sandboxes } = yield* Caches
  const healths = yield* Effect.all([sandboxes.health, pools.health])
  return healths.every(({ synced }) => synced)
    ? HttpServerResponse.text("ok\n")
    : HttpServerResponse.text("the caches are not filled yet\n", { status: 503 })
})

/** Serves until the scope closes. */
export const layer = (options: TelemetryOptions): Layer.Layer<never, ServeError, Caches> =>
  HttpRouter.serve(
    Layer.mergeAll(
      PrometheusMetrics.layerHttp({ path: "/metrics" }),
      HttpRouter.add("GET", "/healthz", HttpServerResponse.text("ok\n")),
      HttpRouter.add("GET", "/readyz", ready)
    ),
    { disableLogger: true }
  ).pipe(Layer.provide(NodeHttpServer.layer(() => createServer(), options)))
