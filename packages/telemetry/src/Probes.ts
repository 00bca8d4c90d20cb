/**
 * What a program shows to whoever watches it, over HTTP: `/metrics` in Prometheus' format, `/livez` as long as its event
 * loop turns, `/readyz` while everything that it needs to do its work is there. `/readyz` names each thing and its state.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import type { ServeError } from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import { createServer } from "node:http"
import * as ProcessMetrics from "./ProcessMetrics.ts"

/** Where {@link layer} listens. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** `host:port`, or `:port` for all addresses. */
export const parseAddress = (text: string): Address => {
  const colon = text.lastIndexOf(":")
  return { host: text.slice(0, Math.max(0, colon)) || "0.0.0.0", port: Number(text.slice(colon + 1)) }
}

/** A thing that the program needs. `problem` says what is wrong with it now; undefined when nothing is. */
export interface Check {
  readonly name: string
  readonly problem: Effect.Effect<string | undefined>
}

/** A check that stays silent this long has failed: the kubelet itself waits for one second. */
const checkWithin = Duration.millis(800)

const contentType = "text/plain; version=0.0.4; charset=utf-8"

const metrics = Effect.map(
  Effect.andThen(ProcessMetrics.sample, PrometheusMetrics.format()),
  (text) => HttpServerResponse.text(text, { contentType })
)

const readiness = (checks: ReadonlyArray<Check>) =>
  Effect.map(
    Effect.forEach(checks, ({ name, problem }) =>
      Effect.map(
        Effect.timeoutOrElse(problem, { duration: checkWithin, orElse: () => Effect.succeed("no answer") }),
        (found) => ({ name, problem: found })
      ), { concurrency: "unbounded" }),
    (results) => {
      const text = results.map(({ name, problem }) =>
        `${problem === undefined ? "ok" : "not ok"} ${name}: ${problem ?? "ok"}\n`
      )
      return HttpServerResponse.text(text.join("") || "ok\n", {
        status: results.every(({ problem }) => problem === undefined) ? 200 : 503
      })
    }
  )

/** Serves until the scope closes. */
export const layer = (address: Address, checks: ReadonlyArray<Check>): Layer.Layer<never, ServeError> =>
  HttpRouter.serve(
    Layer.mergeAll(
      HttpRouter.add("GET", "/metrics", metrics),
      HttpRouter.add("GET", "/livez", HttpServerResponse.text("ok\n")),
      HttpRouter.add("GET", "/readyz", readiness(checks))
    ),
    { disableLogger: true }
  ).pipe(Layer.provide(NodeHttpServer.layer(() => createServer(), address)), Layer.provide(ProcessMetrics.layer))
