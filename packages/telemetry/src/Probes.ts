/**
 * What a program shows to whoever watches it, over HTTP: `/metrics` in Prometheus' format, `/livez` as long as its event
 * loop turns, `/readyz` while everything that it needs to do its work is there. `/readyz` names each thing and its state.
 *
 * Three paths need no router, and Node's own server no other: what would be loaded for them weighs on every idle program.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as PrometheusMetrics from "effect/observability/PrometheusMetrics"
import * as Schema from "effect/Schema"
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

/** That something answers: a question's error says what is wrong. */
export const answers = <E extends { readonly message: string }>(
  name: string,
  question: Effect.Effect<unknown, E>
): Check => ({
  name,
  problem: Effect.match(question, { onSuccess: () => undefined, onFailure: ({ message }) => message })
})

/** A check that stays silent this long has failed: the kubelet itself waits for one second. */
const checkWithin = Duration.millis(800)

/** The address can't be listened on. */
export class ProbesError extends Schema.TaggedError<ProbesError>()("ProbesError", {
  address: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `metrics and probes can't be served at ${this.address}: ${this.problem}`
  }
}

interface Answer {
  readonly status: number
  readonly contentType: string
  readonly text: string
}

const plain = (status: number, text: string): Answer => ({ status, contentType: "text/plain; charset=utf-8", text })

const metrics = Effect.map(
  Effect.andThen(ProcessMetrics.sample, PrometheusMetrics.format()),
  (text): Answer => ({ status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8", text })
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
      return plain(results.every(({ problem }) => problem === undefined) ? 200 : 503, text.join("") || "ok\n")
    }
  )

/** Connections at once: a scraper, the kubelet, and somebody who looks. */
const maxConnections = 32

/** Whoever has not sent the head of a request within this time wants none of the three answers. */
const headersWithinMillis = 5_000

/** Serves until the scope closes. */
export const layer = ({ host, port }: Address, checks: ReadonlyArray<Check>): Layer.Layer<never, ProbesError> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const run = yield* FiberSet.makeRuntime<never>()
    const answers = new Map<string, Effect.Effect<Answer>>([
      ["/metrics", metrics],
      ["/livez", Effect.succeed(plain(200, "ok\n"))],
      ["/readyz", readiness(checks)]
    ])
    const server = createServer({ headersTimeout: headersWithinMillis }, ({ method, url = "" }, response) => {
      const [path = ""] = url.split("?", 1)
      const answer = method === "GET" ? answers.get(path) : undefined
      run(Effect.map(answer ?? Effect.succeed(plain(404, "there is nothing\n")), ({ contentType, status, text }) => {
        response.writeHead(status, { "content-type": contentType }).end(text)
      }))
    })
    server.maxConnections = maxConnections
    yield* Effect.acquireRelease(
      Effect.callback<void, ProbesError>((resume) => {
        server.once(
          "error",
          ({ message }) => resume(Effect.fail(new ProbesError({ address: `${host}:${port}`, problem: message })))
        )
        server.listen(port, host, () => resume(Effect.void))
      }),
      () => Effect.sync(() => server.close().closeAllConnections())
    )
  })).pipe(Layer.provide(ProcessMetrics.layer))
