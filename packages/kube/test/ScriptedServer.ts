/**
 * An HTTP server whose answers a test writes itself, on a free port of the loopback interface. It remembers what it was
 * asked and over how many connections.
 */
import { KubeClient, make } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { Effect, Layer } from "effect"
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http"
import type { Socket } from "node:net"

export interface Asked {
  readonly method: string
  readonly url: URL
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export type Answer = (asked: Asked, response: ServerResponse) => void

export interface ScriptedServer {
  readonly url: string
  readonly port: number
  readonly asked: ReadonlyArray<Asked>
  /** Connections that were ever opened. */
  readonly connections: () => number
  /** Connections that are open now. */
  readonly open: () => number
  /** Breaks all connections as a crash would. */
  readonly reset: () => void
}

/** A server that lives as long as the scope. */
export const scripted = (answer: Answer) =>
  Effect.acquireRelease(
    Effect.callback<ScriptedServer & { readonly close: () => Promise<void> }>((resume) => {
      const asked: Array<Asked> = []
      const sockets = new Set<Socket>()
      let connections = 0
      const reset = () => {
        for (const socket of sockets) {
          socket.resetAndDestroy()
        }
      }
      const server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
          const one: Asked = {
            method: request.method ?? "",
            url: new URL(request.url ?? "/", "http://server"),
            headers: request.headers,
            body: Buffer.concat(chunks).toString()
          }
          asked.push(one)
          answer(one, response)
        })
      })
      server.on("connection", (socket) => {
        connections++
        sockets.add(socket)
        socket.on("close", () => sockets.delete(socket))
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed({
          url: `http://127.0.0.1:${port}`,
          port,
          asked,
          connections: () => connections,
          open: () => sockets.size,
          reset,
          close: () =>
            new Promise<void>((resolve) => {
              server.close(() => resolve())
              reset()
            })
        }))
      })
    }),
    (server) => Effect.promise(server.close)
  )

/** Answers with JSON. */
export const reply = (response: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body))

/** A `Status` as API servers send it. */
export const status = (code: number, reason: string, message = reason, details?: unknown) => ({
  kind: "Status",
  apiVersion: "v1",
  status: "Failure",
  code,
  reason,
  message,
  details
})

/** A ConfigMap as API servers send it. */
export const configMap = (name: string, resourceVersion: string, data: Record<string, string> = {}) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: {
    name,
    namespace: "default",
    uid: `uid-${name}`,
    resourceVersion,
    creationTimestamp: "2026-01-01T00:00:00Z"
  },
  data
})

/** A client of the server. */
export const clientOf = (server: { readonly url: string }, options?: Parameters<typeof make>[0]) =>
  Layer.effect(KubeClient, make(options)).pipe(
    Layer.provide(KubeConfig.layer({ server: server.url, token: "secret" }))
  )

/** A client of a server that lives as long as the scope. */
export const served = Effect.fnUntraced(function*(answer: Answer, options?: Parameters<typeof make>[0]) {
  const server = yield* scripted(answer)
  const context = yield* Layer.build(clientOf(server, options))
  const client = yield* Effect.provide(KubeClient.use((client) => Effect.succeed(client)), context)
  return { client, context, server }
})

/** Waits, for five seconds at most, until the condition holds. */
export const eventually = (condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() =>
    condition() ? Effect.void : Effect.flatMap(Effect.sleep("5 millis"), () => eventually(condition))
  )
    .pipe(Effect.timeoutOrElse({
      duration: "5 seconds",
      orElse: () => Effect.die(new Error(`never: ${condition}`))
    }))
