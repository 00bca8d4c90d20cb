/**
 * Opens the listeners of a gRPC server: TCP ports and unix sockets. Connections are accepted, counted and decrypted here
 * and handed on as they are ready for HTTP/2.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import * as Tls from "node:tls"
import type { Peer } from "../GrpcCaller.ts"
import type { Pem } from "../GrpcClient.ts"

/** The server can't listen at `address`. */
export class BindError extends Schema.TaggedError<BindError>()("BindError", {
  address: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `can't listen on ${this.address}: ${this.problem}`
  }
}

/** What a server shows to its callers, and whom it believes. */
export interface Certificates {
  readonly certificate: { readonly chain: Pem; readonly key: Redacted.Redacted<Pem> }
  /** When given, callers must show a certificate that one of these authorities signed. */
  readonly clientCa?: Pem | undefined
}

/** How a TCP listener encrypts. */
export interface ServerTls extends Certificates {
  /**
   * What replaces the certificates while the server runs, for handshakes from then on. Whether callers are asked for a
   * certificate stays as it was at the start.
   */
  readonly rotations?: Stream.Stream<Certificates> | undefined
}

/**
 * Connections that one listener has open at once: a thousand idle ones are no reason to turn anybody away, and each costs
 * some 50 KiB. What comes beyond is closed at once.
 */
export const MAX_CONNECTIONS = 4096

/** A TLS handshake that takes longer than this is a slow or silent peer's, in milliseconds. */
export const HANDSHAKE_TIMEOUT_MILLIS = 10_000

/** Where a server listens. */
export type Listener =
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number; readonly tls: ServerTls | undefined }
  | { readonly _tag: "Unix"; readonly path: string; readonly mode: number }

/** A listener that takes connections. */
export interface Open {
  /** As a client takes it: `unix:/path` or `host:port`. */
  readonly address: string
  /** Done when it takes no more and the last of its connections has ended. */
  readonly closed: Effect.Effect<void>
}

const pemBuffer = (pem: Pem): Buffer => typeof pem === "string" ? Buffer.from(pem) : Buffer.from(pem)

/** Takes a connection that is ready for HTTP/2. */
export type Ready = (socket: Net.Socket, peer: Peer) => void

const secureContext = ({ certificate, clientCa }: Certificates): Tls.SecureContextOptions => ({
  cert: pemBuffer(certificate.chain),
  key: pemBuffer(Redacted.value(certificate.key)),
  ...(clientCa === undefined ? {} : { ca: pemBuffer(clientCa) })
})

const problemOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

const attempt = <A>(address: string, work: () => A): Effect.Effect<A, BindError> =>
  Effect.try({ try: work, catch: (cause) => new BindError({ address, problem: problemOf(cause) }) })

/** Whether a process accepts connections at a socket file. */
const isAlive = (path: string): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    const socket = Net.connect({ path })
    const answer = (alive: boolean) => {
      socket.destroy()
      resume(Effect.succeed(alive))
    }
    socket.once("connect", () => answer(true))
    // any other answer than a refusal (no permission, backlog full) speaks for a living owner
    socket.once("error", (error: NodeJS.ErrnoException) => answer(error.code !== "ECONNREFUSED"))
    return Effect.sync(() => socket.destroy())
  })

/** Removes what a server that was killed left behind; refuses to touch anything else. */
const removeStale = Effect.fnUntraced(function*(address: string, path: string) {
  const found = yield* attempt(address, () => Fs.lstatSync(path, { throwIfNoEntry: false }))
  if (found === undefined) return
  if (!found.isSocket()) {
    return yield* new BindError({ address, problem: "a file that is no socket is in its place; remove it" })
  }
  if (yield* isAlive(path)) {
    return yield* new BindError({ address, problem: "another process listens there; stop it or choose another path" })
  }
  yield* attempt(address, () => Fs.rmSync(path, { force: true }))
})

/** An acceptor that listens, until the scope closes: then it takes no more connections. */
const start = (
  acceptor: Net.Server,
  address: string,
  options: Net.ListenOptions
): Effect.Effect<{ readonly port: number; readonly closed: Effect.Effect<void> }, BindError, Scope.Scope> => {
  const closed = Deferred.makeUnsafe<void>()
  acceptor.maxConnections = MAX_CONNECTIONS
  acceptor.once("close", () => Deferred.doneUnsafe(closed, Effect.void))
  return Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly closed: Effect.Effect<void> }, BindError>((resume) => {
      acceptor.once("error", (cause) => resume(Effect.fail(new BindError({ address, problem: problemOf(cause) }))))
      acceptor.listen(options, () => {
        const bound = acceptor.address()
        const port = typeof bound === "object" && bound !== null ? bound.port : 0
        resume(Effect.succeed({ port, closed: Deferred.await(closed) }))
      })
    }),
    () => Effect.sync(() => acceptor.close())
  )
}

/** Whoever reaches a unix socket has no address. */
const unixPeer: Peer = { transport: "unix", address: "unknown", certificate: undefined }

/**
 * A socket file has the mode of the process's umask until it is changed. So the socket is made in a folder that nobody
 * else can enter and moved to its place with the right mode.
 */
const listenUnix = Effect.fnUntraced(function*(
  { mode, path }: Extract<Listener, { readonly _tag: "Unix" }>,
  ready: Ready
) {
  const address = `unix:${path}`
  yield* removeStale(address, path)
  const scope = yield* Effect.scope
  const acceptor = Net.createServer((socket) => ready(socket, unixPeer))
  const place = Effect.acquireUseRelease(
    attempt(address, () => Fs.mkdtempSync(Path.join(Path.dirname(path), ".fsb-"))),
    (folder) => {
      const nascent = Path.join(folder, "s")
      return Effect.flatMap(
        Scope.provide(start(acceptor, address, { path: nascent }), scope),
        ({ closed }) =>
          attempt(address, () => {
            Fs.chmodSync(nascent, mode)
            const { ino } = Fs.statSync(nascent)
            Fs.renameSync(nascent, path)
            return { inode: ino, closed }
          })
      )
    },
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  const { closed } = yield* Effect.acquireRelease(place, ({ inode }) =>
    Effect.sync(() => {
      // a successor may already listen at the same path
      if (Fs.lstatSync(path, { throwIfNoEntry: false })?.ino === inode) Fs.rmSync(path, { force: true })
    }))
  return { address, closed }
})

/** The certificate that a caller proved to own. */
const certificateOf = (socket: Net.Socket): Tls.PeerCertificate | undefined => {
  const shown = socket instanceof Tls.TLSSocket && socket.authorized ? socket.getPeerCertificate() : undefined
  return shown?.raw === undefined ? undefined : shown
}

/** Accepts connections, encrypted ones after their handshake, and hands them on. */
const accept = (tls: ServerTls | undefined, ready: Ready): Net.Server => {
  const hand = (socket: Net.Socket) =>
    ready(socket, {
      transport: "tcp",
      address: `${socket.remoteAddress}:${socket.remotePort}`,
      certificate: certificateOf(socket)
    })
  return tls === undefined
    ? Net.createServer({ noDelay: true }, hand)
    : Tls.createServer({
      ...secureContext(tls),
      ALPNProtocols: ["h2"],
      handshakeTimeout: HANDSHAKE_TIMEOUT_MILLIS,
      requestCert: tls.clientCa !== undefined,
      rejectUnauthorized: tls.clientCa !== undefined,
      noDelay: true
    }, hand)
}

const endOf = ({ remoteAddress, remotePort }: Net.Socket): string => `${remoteAddress} ${remotePort}`

/** A certificate that can't be used leaves the last one in place: the log says so, long before that one ends. */
const rotate = (acceptor: Net.Server, certificates: Certificates): Effect.Effect<void> =>
  acceptor instanceof Tls.Server
    ? Effect.try({
      try: () => acceptor.setSecureContext(secureContext(certificates)),
      catch: problemOf
    }).pipe(Effect.catch((problem) => Effect.logError("a rotated certificate can't be used", { problem })))
    : Effect.void

const listenTcp = Effect.fnUntraced(function*(
  { host, port, tls }: Extract<Listener, { readonly _tag: "Tcp" }>,
  ready: Ready
) {
  const literal = Net.isIPv6(host) ? `[${host}]` : host
  const address = `${literal}:${port}`
  /** Connections whose handshake goes on, by their other end: nobody else knows of them yet. */
  const nascent = new Map<string, Net.Socket>()
  const acceptor = yield* attempt(address, () =>
    accept(tls, (socket, peer) => {
      nascent.delete(endOf(socket))
      ready(socket, peer)
    }))
  if (acceptor instanceof Tls.Server) {
    acceptor.on("connection", (socket) => {
      const end = endOf(socket)
      nascent.set(end, socket)
      socket.once("close", () => nascent.delete(end))
    })
  }
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const socket of nascent.values()) socket.destroy()
    })
  )
  const { closed, port: bound } = yield* start(acceptor, address, { host, port })
  if (tls?.rotations !== undefined) {
    yield* Effect.forkScoped(Stream.runForEach(tls.rotations, (certificates) => rotate(acceptor, certificates)))
  }
  return { address: `${literal}:${bound}`, closed }
})

/** Opens a listener for the lifetime of the scope. */
export const listen = (listener: Listener, ready: Ready): Effect.Effect<Open, BindError, Scope.Scope> =>
  listener._tag === "Tcp" ? listenTcp(listener, ready) : listenUnix(listener, ready)
