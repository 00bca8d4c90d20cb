/**
 * Traces over OTLP/HTTP, when the environment names a collector as OpenTelemetry defines it
 * (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` and the others). Every span of
 * the program goes there, and the calls between our programs carry the trace's id, so that one request is one trace.
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import * as Collector from "./Collector.ts"

/** OpenTelemetry's default exporter is OTLP; Effect's is none. */
const environment = Layer.suspend(() =>
  ConfigProvider.layer(ConfigProvider.fromEnv({ env: { OTEL_TRACES_EXPORTER: "otlp", ...process.env } }))
)

/** Sends spans for the life of the layer, the last ones when it closes. Does nothing where there is no collector. */
export const layer = (service: { readonly name: string; readonly version: string }): Layer.Layer<never> =>
  Layer.suspend(() =>
    Collector.isNamed(process.env)
      ? OtlpTracer.layerFromConfig({ resource: { serviceName: service.name, serviceVersion: service.version } }).pipe(
        Layer.provide(OtlpSerialization.layerJson),
        Layer.provide(FetchHttpClient.layer),
        Layer.provide(environment)
      )
      : Layer.empty
  )
