/**
 * Logs on standard output: a line of JSON each, for collectors, or coloured text where a person looks at it. Each line
 * names the trace and the span in which it was written.
 */
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"

/** A record of {@link Logger.formatStructured} with the ids of the span, as W3C trace contexts write them. */
const traced = Logger.make((options) => {
  const { span } = options.fiber.cache
  const record = Logger.formatStructured.log(options)
  return JSON.stringify(
    span === undefined ? record : { ...record, traceId: span.traceId.padStart(32, "0"), spanId: span.spanId }
  )
})

/** Replaces the default logger. */
export const layer: Layer.Layer<never> = Layer.suspend(() =>
  Logger.layer([process.stdout.isTTY ? Logger.consolePretty() : Logger.withConsoleLog(traced)])
)
