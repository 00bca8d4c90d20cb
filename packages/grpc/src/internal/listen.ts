/**
 * Opens the listeners of a gRPC server: TCP ports and unix sockets.
 *
 * TCP connections are accepted, counted and decrypted here and handed to grpc-js as they are ready for HTTP/2: it offers
 * neither a bound for connections nor one for handshakes.
 */
import * as Grpc from "@grpc/grpc-js"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import * as Tls from "node:tls"
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
 * TCP connections that are open at once: a thousand idle ones are no reason to turn anybody away, and each costs some
 * 50 KiB. What comes beyond is closed at once.
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
  /** Done when it takes no more and the last of its connections has ended, as far as grpc-js does not tell itself. */
  readonly closed: Effect.Effect<void>
}

const pemBuffer = (pem: Pem): Buffer => typeof pem === "string" ? Buffer.from(pem) : Buffer.from(pem)

/** Encryption, where there is any, is done before grpc-js sees a connection. */
const credentials = (interceptor: Grpc.ServerInterceptor | undefined): Grpc.ServerCredentials => {
  const plain = Grpc.ServerCredentials.createInsecure()
  return interceptor === undefined
    ? plain
    : Grpc.experimental.createServerCredentialsWithInterceptors(plain, [interceptor])
}

const secureContext = ({ certificate, clientCa }: Certificates): Tls.SecureContextOptions => ({
  cert: pemBuffer(certificate.chain),
  key: pemBuffer(Redacted.value(certificate.key)),
  ...(clientCa === undefined ? {} : { ca: pemBuffer(clientCa) })
})

const problemOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

const bind = (
  server: Grpc.Server,
  address: string,
  credentials: Grpc.ServerCredentials
): Effect.Effect<number, BindError> =>
  Effect.callback((resume) => {
    server.bindAsync(address, credentials, (cause, port) =>
      resume(
        cause === null
          ? Effect.succeed(port)
          : Effect.fail(new BindError({ address, problem: problemOf(cause) }))
      ))
  })

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

/**
 * A socket file has the mode of the process's umask until it is changed. So the socket is made in a folder that nobody
 * else can enter and moved to its place with the right mode.
 */
const listenUnix = Effect.fnUntraced(function*(
  server: Grpc.Server,
  { mode, path }: Extract<Listener, { readonly _tag: "Unix" }>,
  credentials: Grpc.ServerCredentials
) {
  const address = `unix:${path}`
  yield* removeStale(address, path)
  const place = Effect.acquireUseRelease(
    attempt(address, () => Fs.mkdtempSync(Path.join(Path.dirname(path), ".fsb-"))),
    (folder) => {
      const nascent = Path.join(folder, "s")
      return Effect.andThen(
        bind(server, `unix:${nascent}`, credentials),
        attempt(address, () => {
          Fs.chmodSync(nascent, mode)
          const { ino } = Fs.statSync(nascent)
          Fs.renameSync(nascent, path)
          return ino
        })
      )
    },
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true, force: true }))
  )
  yield* Effect.acquireRelease(place, (inode) =>
    Effect.sync(() => {
      // a successor may already listen at the same path
      if (Fs.lstatSync(path, { throwIfNoEntry: false })?.ino === inode) Fs.rmSync(path, { force: true })
    }))
  return { address, closed: Effect.void }
})

/** Accepts connections, encrypted ones after their handshake, and hands them on. */
const accept = (tls: ServerTls | undefined, ready: (socket: Net.Socket) => void): Net.Server =>
  tls === undefined
    ? Net.createServer({ noDelay: true }, ready)
    : Tls.createServer({
      ...secureContext(tls),
      ALPNProtocols: ["h2"],
      handshakeTimeout: HANDSHAKE_TIMEOUT_MILLIS,
      requestCert: tls.clientCa !== undefined,
      rejectUnauthorized: tls.clientCa !== undefined,
      noDelay: true
    }, ready)

const start = (acceptor: Net.Server, address: string, host: string, port: number): Effect.Effect<number, BindError> =>
  Effect.callback((resume) => {
    acceptor.once("error", (cause) => resume(Effect.fail(new BindError({ address, problem: problemOf(cause) }))))
    acceptor.listen({ host, port }, () => {
      const bound = acceptor.address()
      resume(Effect.succeed(typeof bound === "object" && bound !== null ? bound.port : port))
    })
  })

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
  server: Grpc.Server,
  { host, port, tls }: Extract<Listener, { readonly _tag: "Tcp" }>,
  credentials: Grpc.ServerCredentials
) {
  const literal = Net.isIPv6(host) ? `[${host}]` : host
  const address = `${literal}:${port}`
  const { injectConnection } = server.createConnectionInjector(credentials)
  /** Connections of which grpc-js does not know yet, by their other end. */
  const nascent = new Map<string, Net.Socket>()
  const acceptor = yield* attempt(address, () =>
    accept(tls, (socket) => {
      nascent.delete(endOf(socket))
      injectConnection(socket)
    }))
  acceptor.maxConnections = MAX_CONNECTIONS
  const closed = Deferred.makeUnsafe<void>()
  acceptor.once("close", () => Deferred.doneUnsafe(closed, Effect.void))
  if (acceptor instanceof Tls.Server) {
    acceptor.on("connection", (socket) => {
      const end = endOf(socket)
      nascent.set(end, socket)
      socket.once("close", () => nascent.delete(end))
    })
  }
  const bound = yield* Effect.acquireRelease(
    start(acceptor, address, host, port),
    () =>
      Effect.sync(() => {
        acceptor.close()
        for (const socket of nascent.values()) socket.destroy()
      })
  )
  if (tls?.rotations !== undefined) {
    yield* Effect.forkScoped(Stream.runForEach(tls.rotations, (certificates) => rotate(acceptor, certificates)))
  }
  return { address: `${literal}:${bound}`, closed: Deferred.await(closed) }
})

/** Opens a listener for the lifetime of the scope. */
export const listen = (
  server: Grpc.Server,
  listener: Listener,
  interceptor: Grpc.ServerInterceptor | undefined
): Effect.Effect<Open, BindError, Scope.Scope> =>
  listener._tag === "Tcp"
    ? listenTcp(server, listener, credentials(interceptor))
    : listenUnix(server, listener, credentials(interceptor))
