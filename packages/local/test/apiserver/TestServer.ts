/**
 * An API server of the test's own, in a temporary directory, and the plain HTTP requests that tests send it.
 */
import { NodeServices } from "@effect/platform-node"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import type { Json, JsonObject } from "@fast-sandbox/local/apiserver/Json"
import * as JsonValue from "@fast-sandbox/local/apiserver/Json"
import { Context, Effect, FileSystem, Layer, Queue, type Scope } from "effect"
import type { IncomingHttpHeaders } from "node:http"
import { Agent, request as httpsRequest, type RequestOptions } from "node:https"

export interface Reply {
  readonly code: number
  readonly headers: IncomingHttpHeaders
  readonly body: JsonObject
  readonly text: string
}

export interface RequestExtras {
  readonly body?: Json | string | undefined
  readonly contentType?: string | undefined
  readonly accept?: string | undefined
  readonly token?: string | undefined
  readonly userAgent?: string | undefined
}

export interface WatchEvent {
  readonly type: string
  readonly object: JsonObject
}

export interface Shape {
  readonly dataDirectory: string
  readonly url: string
  readonly kubeconfigPath: string
  readonly token: string
  readonly request: (method: string, path: string, extras?: RequestExtras) => Effect.Effect<Reply>
  /** Opens a watch; `next` waits for one event, `undefined` once it has ended. */
  readonly watch: (
    path: string,
    extras?: RequestExtras
  ) => Effect.Effect<{ readonly next: Effect.Effect<WatchEvent | undefined> }, never, Scope.Scope>
}

const parsed = (text: string): JsonObject => {
  const value: Json = text.startsWith("{") ? JSON.parse(text) : null
  return JsonValue.isObject(value) ? value : {}
}

const payload = (body: RequestExtras["body"]): string | undefined =>
  body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body)

/** Requests to any server of which url, token and CA are known. */
export const client = (server: { readonly url: string; readonly token: string; readonly caCertificate: string }) => {
  const agent = new Agent({ keepAlive: true, ca: server.caCertificate, maxSockets: 64 })
  const options = (method: string, path: string, extras: RequestExtras): RequestOptions => ({
    ...(() => {
      const { hostname, pathname, port, search } = new URL(path, server.url)
      return { hostname, port, path: `${pathname}${search}` }
    })(),
    method,
    agent,
    headers: {
      accept: extras.accept ?? "application/json",
      "user-agent": extras.userAgent ?? "test/1.0",
      ...(extras.token === "" ? {} : { authorization: `Bearer ${extras.token ?? server.token}` }),
      ...(extras.body === undefined ? {} : {
        "content-type": extras.contentType ?? "application/json",
        "content-length": Buffer.byteLength(payload(extras.body) ?? "")
      })
    }
  })
  const send: Shape["request"] = (method, path, extras = {}) =>
    Effect.callback<Reply>((resume) => {
      const outgoing = httpsRequest(options(method, path, extras), (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString()
          resume(
            Effect.succeed({ code: response.statusCode ?? 0, headers: response.headers, body: parsed(text), text })
          )
        })
      })
      outgoing.on("error", (cause) => resume(Effect.die(cause)))
      outgoing.end(payload(extras.body))
      return Effect.sync(() => outgoing.destroy())
    })
  const watch: Shape["watch"] = (path, extras = {}) =>
    Effect.gen(function*() {
      const events = yield* Queue.unbounded<WatchEvent | undefined>()
      yield* Effect.acquireRelease(
        Effect.callback<ReturnType<typeof httpsRequest>>((resume) => {
          const outgoing = httpsRequest(options("GET", path, extras), (response) => {
            let rest = ""
            response.setEncoding("utf8")
            response.on("data", (chunk: string) => {
              const lines = `${rest}${chunk}`.split("\n")
              rest = lines.pop() ?? ""
              for (const line of lines) {
                const event = parsed(line)
                Queue.offerUnsafe(events, {
                  type: JsonValue.stringAt(event, "type") ?? "",
                  object: JsonValue.objectAt(event, "object")
                })
              }
            })
            response.on("end", () => Queue.offerUnsafe(events, undefined))
            response.on("error", () => Queue.offerUnsafe(events, undefined))
            resume(Effect.succeed(outgoing))
          })
          outgoing.on("error", () => Queue.offerUnsafe(events, undefined))
          outgoing.end()
        }),
        (outgoing) => Effect.sync(() => outgoing.destroy())
      )
      return { next: Queue.take(events).pipe(Effect.timeout("10 seconds"), Effect.orDie) }
    })
  return { request: send, watch, close: Effect.sync(() => agent.destroy()) }
}

/** The server under test. */
export class TestServer extends Context.Service<TestServer, Shape>()("test/TestServer") {
  static readonly layer: Layer.Layer<TestServer> = Layer.unwrap(
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      const dataDirectory = yield* files.makeTempDirectoryScoped({ prefix: "fast-sandbox-apiserver-" })
      return Layer.effect(
        TestServer,
        Effect.gen(function*() {
          const server = yield* ApiServer
          const { close, request, watch } = client(server)
          yield* Effect.addFinalizer(() => close)
          return TestServer.of({ ...server, dataDirectory, request, watch })
        })
      ).pipe(Layer.provide(ApiServer.layer({ dataDirectory })))
    })
  ).pipe(Layer.provide(NodeServices.layer), Layer.orDie)
}

/** Asks again until the condition holds, for at most 10 s. */
export const eventually = <A>(ask: Effect.Effect<A>, holds: (value: A) => boolean): Effect.Effect<A> =>
  Effect.gen(function*() {
    for (let attempt = 0; attempt < 200; attempt++) {
      const value = yield* ask
      if (holds(value)) return value
      yield* Effect.sleep("50 millis")
    }
    return yield* Effect.die(new Error("the condition was not reached in 10 s"))
  })

/** A namespace of the test's own. */
export const freshNamespace = Effect.fnUntraced(function*(prefix: string) {
  const { request } = yield* TestServer
  const reply = yield* request("POST", "/api/v1/namespaces", {
    body: { apiVersion: "v1", kind: "Namespace", metadata: { generateName: `${prefix}-` } }
  })
  return JsonValue.stringAt(reply.body, "metadata", "name") ?? ""
})

export const { arrayAt, at, numberAt, objectAt, stringAt } = JsonValue
