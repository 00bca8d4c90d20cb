/**
 * Traces over OTLP/HTTP, when the environment names a collector as OpenTelemetry defines it
 * (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` and the others). Every span of
 * the program goes there, and the calls between our programs carry the trace's id, so that one request is one trace.
 */
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"

/** Whether the environment names a collector. */
export const isOn = (environment: NodeJS.ProcessEnv): boolean =>
  [environment["OTEL_EXPORTER_OTLP_ENDPOINT"], environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]]
    .some((endpoint) => endpoint !== undefined && endpoint !== "")

/** Sends spans for the life of the layer, the last ones when it closes. Does nothing where there is no collector. */
export const layer = (service: { readonly name: string; readonly version: string }): Layer.Layer<never> =>
  Layer.suspend(() =>
    isOn(process.env)
      ? OtlpTracer.layerFromConfig({ resource: { serviceName: service.name, serviceVersion: service.version } }).pipe(
        Layer.provide(OtlpSerialization.layerJson),
        Layer.provide(FetchHttpClient.layer)
      )
      : Layer.empty
  )
