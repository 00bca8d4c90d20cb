/**
 * The least of an OpenTelemetry collector: takes spans over OTLP/HTTP in JSON and keeps them.
 */
import { Effect, Schema } from "effect"
import { createServer } from "node:http"

const Request = Schema.fromJsonString(Schema.Struct({
  resourceSpans: Schema.Array(Schema.Struct({
    resource: Schema.Struct({
      attributes: Schema.Array(Schema.Struct({ key: Schema.String, value: Schema.Unknown }))
    }),
    scopeSpans: Schema.Array(Schema.Struct({
      spans: Schema.Array(Schema.Struct({ traceId: Schema.String, name: Schema.String }))
    }))
  }))
}))

/** A span, and the program that it is from. */
export interface Span {
  readonly service: string
  readonly traceId: string
  readonly name: string
}

/** `environment` is what makes a program send its spans here, at once. */
export interface TraceCollector {
  readonly environment: Readonly<Record<string, string>>
  readonly spans: ReadonlyArray<Span>
}

const ServiceName = Schema.Struct({ stringValue: Schema.String })

const spansOf = (text: string): ReadonlyArray<Span> =>
  Schema.decodeUnknownSync(Request)(text).resourceSpans.flatMap(({ resource, scopeSpans }) => {
    const name = resource.attributes.find(({ key }) => key === "service.name")?.value
    const { stringValue: service } = Schema.decodeUnknownSync(ServiceName)(name)
    return scopeSpans.flatMap(({ spans }) => spans.map(({ name, traceId }) => ({ service, traceId, name })))
  })

/** Listens on the loopback interface until the scope closes. */
export const make = Effect.gen(function*() {
  const spans: Array<Span> = []
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
      spans.push(...spansOf(Buffer.concat(chunks).toString()))
      response.setHeader("content-type", "application/json").end("{}")
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () => Effect.sync(() => server.close().closeAllConnections())
  )
  const address = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  return {
    spans,
    environment: { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`, OTEL_BSP_SCHEDULE_DELAY: "100" }
  } satisfies TraceCollector
})
