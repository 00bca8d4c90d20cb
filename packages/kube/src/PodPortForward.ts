/**
 * A connection to a port of a Pod through the Kubernetes API, as `kubectl port-forward` makes one: a WebSocket to the
 * API server with two channels, bytes and errors.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { Duplex } from "node:stream"
import { Agent, type Dispatcher, ProxyAgent, WebSocket } from "undici"
import * as Connections from "./internal/Connections.ts"
import { pathOf } from "./internal/Paths.ts"
import { Pod } from "./Kinds.ts"
import type { Cluster, Credentials, KubeConfig } from "./KubeConfig.ts"

/** There is no such connection: the API server or the Pod refused, or it can't be reached. */
export class PortForwardError extends Schema.TaggedError<PortForwardError>()("PortForwardError", {
  pod: Schema.String,
  port: Schema.Int,
  problem: Schema.String
}) {
  override get message(): string {
    return `port ${this.port} of Pod ${this.pod}: ${this.problem}`
  }
}

/** What kubelets and API servers speak since Kubernetes 1.4, each message with the number of its channel before it. */
const PROTOCOL = "v4.channel.k8s.io"

const DATA_CHANNEL = 0
const ERROR_CHANNEL = 1

/** The first message of each channel names the port, in two bytes. */
const GREETING_BYTES = 2

/** The API server passes the call on to the node, which may have to be woken up. */
const CONNECT_LIMIT = "15 seconds"

/** Bytes that may wait in the WebSocket before the writer has to. */
const BUFFERED_LIMIT = 1024 * 1024

/** How often a full WebSocket is looked at; it has no event that says that it has drained. */
const DRAIN_INTERVAL_MILLIS = 5

/** Messages as a stream of bytes. */
const duplexOf = (socket: WebSocket): Duplex => {
  const greeted = new Set<number>()
  const whenDrained = (done: () => void) => {
    if (socket.bufferedAmount < BUFFERED_LIMIT) return done()
    setTimeout(whenDrained, DRAIN_INTERVAL_MILLIS, done)
  }
  const duplex = new Duplex({
    // a reader that is slow is told by HTTP/2's own flow control, which bounds what is under way
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      const message = Buffer.allocUnsafe(chunk.length + 1)
      message[0] = DATA_CHANNEL
      chunk.copy(message, 1)
      socket.send(message)
      whenDrained(done)
    },
    final: (done) => {
      socket.close()
      done()
    },
    destroy: (error, done) => {
      socket.close()
      done(error)
    }
  })
  socket.addEventListener("message", ({ data }) => {
    if (!(data instanceof ArrayBuffer) || data.byteLength === 0) return
    const [channel = DATA_CHANNEL] = new Uint8Array(data, 0, 1)
    let content = Buffer.from(data, 1)
    if (!greeted.has(channel)) {
      greeted.add(channel)
      content = content.subarray(GREETING_BYTES)
    }
    if (content.length === 0) return
    if (channel === ERROR_CHANNEL) duplex.destroy(new Error(content.toString().trim()))
    else duplex.push(content)
  })
  socket.addEventListener("close", () => duplex.push(null))
  socket.addEventListener("error", () => duplex.destroy(new Error("the connection to the Kubernetes API broke")))
  // an error that nobody listens to yet would end the process; it stays in `errored`
  duplex.on("error", () => {})
  return duplex
}

/** A connection of its own for each WebSocket, which none can be shared with. */
const dispatcherOf = (cluster: Cluster, certificate: Credentials["certificate"]): Dispatcher => {
  const tls = Connections.tlsOf(cluster, certificate)
  return cluster.proxyUrl === undefined
    ? new Agent({ connect: cluster.socketPath === undefined ? tls : { ...tls, socketPath: cluster.socketPath } })
    : new ProxyAgent({ uri: cluster.proxyUrl, requestTls: tls })
}

/** Makes connections to Pods of one cluster, over connections that close with the scope. */
export const make = Effect.fnUntraced(function*(config: KubeConfig["Service"]): Effect.fn.Return<
  (
    pod: { readonly namespace: string; readonly name: string },
    port: number
  ) => Effect.Effect<Duplex, PortForwardError, Scope.Scope>,
  never,
  Scope.Scope
> {
  const server = new URL(config.cluster.server)
  return Effect.fn("PodPortForward.open")(function*(pod, port) {
    const fail = (problem: string) => new PortForwardError({ pod: `${pod.namespace}/${pod.name}`, port, problem })
    const { certificate, headers } = yield* Effect.mapError(config.credentials, ({ message }) => fail(message))
    const url = new URL(server)
    url.protocol = server.protocol === "http:" ? "ws:" : "wss:"
    url.pathname = `${server.pathname.replace(/\/+$/, "")}${pathOf(Pod, pod.namespace, pod.name)}/portforward`
    url.searchParams.set("ports", String(port))
    const connect = Effect.callback<WebSocket, PortForwardError>((resume) => {
      const socket = new WebSocket(url, {
        protocols: [PROTOCOL],
        dispatcher: dispatcherOf(config.cluster, certificate),
        headers: { ...headers }
      })
      socket.binaryType = "arraybuffer"
      socket.addEventListener("open", () => resume(Effect.succeed(socket)))
      socket.addEventListener("error", ({ error }) => {
        const why = error instanceof Error && error.message !== "" ? `: ${error.message}` : ""
        resume(Effect.fail(fail(`the Kubernetes API did not connect it${why}`)))
      })
      return Effect.sync(() => socket.close())
    }).pipe(
      Effect.timeoutOrElse({
        duration: CONNECT_LIMIT,
        orElse: () => Effect.fail(fail(`the Kubernetes API did not connect it within ${CONNECT_LIMIT}`))
      })
    )
    return yield* Effect.acquireRelease(
      Effect.map(connect, duplexOf),
      (duplex) => Effect.sync(() => duplex.destroy()),
      { interruptible: true }
    )
  })
})
