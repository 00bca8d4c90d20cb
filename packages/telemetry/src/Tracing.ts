/**
 * Traces over OTLP/HTTP, when the environment names a collector as OpenTelemetry defines it
 * (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` and the others). Every span of
 * the program goes there, and the calls between our programs carry the trace's id, so that one request is one trace.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Collector from "./Collector.ts"

/** Sends spans for the life of the layer, the last ones when it closes. Does nothing where there is no collector. */
export const layer = (service: { readonly name: string; readonly version: string }): Layer.Layer<never> =>
  Layer.suspend(() =>
    Collector.isNamed(process.env)
      ? Layer.unwrap(
        Effect.map(
          Effect.promise(() => import("./internal/otlp.ts")),
          (otlp) => otlp.layer({ serviceName: service.name, serviceVersion: service.version })
        )
      )
      : Layer.empty
  )
