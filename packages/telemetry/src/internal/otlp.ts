/**
 * Sends spans over OTLP/HTTP as the environment says. Loaded only where a collector is named.
 */
import * as ConfigProvider from "effect/ConfigProvider"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as Layer from "effect/Layer"
import * as OtlpSerialization from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"

/** OpenTelemetry's default exporter is OTLP; Effect's is none. */
const environment = Layer.suspend(() =>
  ConfigProvider.layer(ConfigProvider.fromEnv({ env: { OTEL_TRACES_EXPORTER: "otlp", ...process.env } }))
)

/** For the life of the layer; the last spans go when it closes. */
export const layer = (
  resource: { readonly serviceName: string; readonly serviceVersion: string }
): Layer.Layer<never> =>
  OtlpTracer.layerFromConfig({ resource }).pipe(
    Layer.provide(OtlpSerialization.layerJson),
    Layer.provide(FetchHttpClient.layer),
    Layer.provide(environment)
  )
