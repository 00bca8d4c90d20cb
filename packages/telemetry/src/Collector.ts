/**
 * Whether the environment names a collector of traces, as OpenTelemetry defines it. Apart from `Tracing`, so that a
 * program which starts often loads that only when there is one.
 */

const endpoints = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]

/** Whether spans are to be sent. */
export const isNamed = (environment: NodeJS.ProcessEnv): boolean => endpoints.some((name) => !!environment[name])

/** The variables about it, for programs that are started with an environment of their own. */
export const variables = (environment: NodeJS.ProcessEnv): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(environment).flatMap(([name, value]) =>
      name.startsWith("OTEL_") && value !== undefined ? [[name, value]] : []
    )
  )
