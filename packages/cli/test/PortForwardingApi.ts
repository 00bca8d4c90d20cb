/**
 * As much of a Kubernetes API as leads to a Pod's port: a Service, its Pods, and the WebSocket of `portforward` in the
 * protocol `v4.channel.k8s.io`, byte by byte as RFC 6455 and the kubelet have it.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { createHash } from "node:crypto"
import * as Http from "node:http"
import * as Net from "node:net"
import type { Duplex } from "node:stream"

/** What the API holds. */
export interface Cluster {
  /** The port at which the Service's Pod listens; of the loopback device. */
  readonly podPort: number
  readonly token: string
  /** There is no such Service. */
  hasService: boolean
  /** The Pod is ready. */
  isReady: boolean
  /** The kubelet says so instead of connecting. */
  refusal: string | undefined
  /** Connections that were made. */
  connections: number
}

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
const BINARY = 0x2
const CLOSE = 0x8
const FINAL = 0x80

const frameOf = (opcode: number, payload: Buffer): Buffer => {
  const { length } = payload
  const head = length < 126
    ? Buffer.from([FINAL | opcode, length])
    : length < 65536
    ? Buffer.from([FINAL | opcode, 126, length >> 8, length & 0xff])
    : Buffer.concat([Buffer.from([FINAL | opcode, 127]), Buffer.alloc(8)])
  if (length >= 65536) head.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([head, payload])
}

/** Calls back with every whole frame of a client, unmasked. */
const readFrames = (socket: Duplex, onFrame: (opcode: number, payload: Buffer) => void) => {
  let rest: Buffer = Buffer.alloc(0)
  socket.on("data", (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 2) {
      const short = (rest[1] ?? 0) & 0x7f
      const maskAt = short === 126 ? 4 : short === 127 ? 10 : 2
      if (rest.length < maskAt + 4) return
      const length = short === 126 ? rest.readUInt16BE(2) : short === 127 ? Number(rest.readBigUInt64BE(2)) : short
      const end = maskAt + 4 + length
      if (rest.length < end) return
      const mask = rest.subarray(maskAt, maskAt + 4)
      const payload = Buffer.from(rest.subarray(maskAt + 4, end).map((byte, at) => byte ^ (mask[at % 4] ?? 0)))
      onFrame((rest[0] ?? 0) & 0x0f, payload)
      rest = rest.subarray(end)
    }
  })
}

const forward = (cluster: Cluster, request: Http.IncomingMessage, socket: Duplex) => {
  const { "sec-websocket-key": key, "sec-websocket-protocol": protocol } = request.headers
  const port = Number(new URL(request.url ?? "", "http://api").searchParams.get("ports"))
  const accept = createHash("sha1").update(`${key}${GUID}`).digest("base64")
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`
  )
  const send = (channel: number, content: Buffer) =>
    socket.write(frameOf(BINARY, Buffer.concat([Buffer.from([channel]), content])))
  // each channel begins with the port
  const greeting = Buffer.alloc(2)
  greeting.writeUInt16LE(port)
  send(0, greeting)
  send(1, greeting)
  if (cluster.refusal !== undefined) {
    send(1, Buffer.from(cluster.refusal))
    return socket.end(frameOf(CLOSE, Buffer.alloc(0)))
  }
  cluster.connections += 1
  const pod = Net.connect(port, "127.0.0.1")
  pod.on("data", (chunk) => send(0, chunk))
  pod.on("error", ({ message }) => send(1, Buffer.from(message)))
  pod.on("close", () => socket.end(frameOf(CLOSE, Buffer.alloc(0))))
  socket.on("close", () => pod.destroy())
  socket.on("error", () => pod.destroy())
  readFrames(socket, (opcode, payload) => {
    if (opcode === BINARY && payload[0] === 0) pod.write(payload.subarray(1))
    if (opcode === CLOSE) pod.end()
  })
}

const object = (kind: string, name: string, more: object) => ({
  apiVersion: "v1",
  kind,
  metadata: { name, namespace: "fast-sandbox-system", uid: `${name}-uid`, resourceVersion: "1" },
  ...more
})

const answer = (cluster: Cluster, request: Http.IncomingMessage): readonly [status: number, body: object] => {
  const url = new URL(request.url ?? "", "http://api")
  const failure = (code: number, reason: string) => [code, { kind: "Status", code, reason, message: reason }] as const
  if (request.headers.authorization !== `Bearer ${cluster.token}`) return failure(401, "Unauthorized")
  switch (url.pathname) {
    case "/api/v1/namespaces/fast-sandbox-system/services/fastpath":
      return cluster.hasService
        ? [
          200,
          object("Service", "fastpath", {
            spec: { selector: { app: "controller" }, ports: [{ port: 9090, targetPort: "grpc" }] }
          })
        ]
        : failure(404, "NotFound")
    case "/api/v1/namespaces/fast-sandbox-system/pods":
      return url.searchParams.get("labelSelector") !== "app=controller" ? failure(400, "BadRequest") : [200, {
        kind: "PodList",
        apiVersion: "v1",
        metadata: { resourceVersion: "1" },
        items: [object("Pod", "controller-0", {
          spec: { containers: [{ name: "c", ports: [{ name: "grpc", containerPort: cluster.podPort }] }] },
          status: { conditions: [{ type: "Ready", status: cluster.isReady ? "True" : "False" }] }
        })]
      }]
    default:
      return failure(404, "NotFound")
  }
}

/** Serves the cluster; gives the URL. */
export const serve = (cluster: Cluster): Effect.Effect<string, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<Http.Server>((resume) => {
        const server = Http.createServer((request, response) => {
          const [status, body] = answer(cluster, request)
          response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))
        })
        server.on("upgrade", (request, socket) => {
          const isRight =
            request.url?.startsWith("/api/v1/namespaces/fast-sandbox-system/pods/controller-0/portforward?") &&
            request.headers["sec-websocket-protocol"] === "v4.channel.k8s.io" &&
            request.headers.authorization === `Bearer ${cluster.token}`
          if (isRight) forward(cluster, request, socket)
          else socket.end("HTTP/1.1 403 Forbidden\r\n\r\n")
        })
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
      }),
      (server) =>
        Effect.sync(() => {
          server.closeAllConnections()
          server.close()
        })
    ),
    (server) => {
      const address = server.address()
      return `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}`
    }
  )
