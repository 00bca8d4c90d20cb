/**
 * Opens the listeners of a gRPC server: TCP ports and unix sockets.
 */
import * as Grpc from "@grpc/grpc-js"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
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

/** The certificate of a server, and whom it asks for one. */
export interface ServerTls {
  readonly certificate: { readonly chain: Pem; readonly key: Redacted.Redacted<Pem> }
  /** When given, callers must show a certificate that one of these authorities signed. */
  readonly clientCa?: Pem | undefined
}

/** Where a server listens. */
export type Listener =
  | { readonly _tag: "Tcp"; readonly host: string; readonly port: number; readonly tls: ServerTls | undefined }
  | { readonly _tag: "Unix"; readonly path: string; readonly mode: number }

const pemBuffer = (pem: Pem): Buffer => typeof pem === "string" ? Buffer.from(pem) : Buffer.from(pem)

const credentials = (tls: ServerTls | undefined): Grpc.ServerCredentials =>
  tls === undefined
    ? Grpc.ServerCredentials.createInsecure()
    : Grpc.ServerCredentials.createSsl(
      tls.clientCa === undefined ? null : pemBuffer(tls.clientCa),
      [{ private_key: pemBuffer(Redacted.value(tls.certificate.key)), cert_chain: pemBuffer(tls.certificate.chain) }],
      tls.clientCa !== undefined
    )

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
const listenUnix = Effect.fnUntraced(function*(server: Grpc.Server, path: string, mode: number) {
  const address = `unix:${path}`
  yield* removeStale(address, path)
  const place = Effect.acquireUseRelease(
    attempt(address, () => Fs.mkdtempSync(Path.join(Path.dirname(path), ".fsb-"))),
    (folder) => {
      const nascent = Path.join(folder, "s")
      return Effect.andThen(
        bind(server, `unix:${nascent}`, credentials(undefined)),
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
  return address
})

const listenTcp = Effect.fnUntraced(function*(
  server: Grpc.Server,
  { host, port, tls }: Extract<Listener, { readonly _tag: "Tcp" }>
) {
  const literal = Net.isIPv6(host) ? `[${host}]` : host
  const bound = yield* bind(server, `${literal}:${port}`, credentials(tls))
  return `${literal}:${bound}`
})

/** Opens a listener for the lifetime of the scope; gives the address that clients use. */
export const listen = (
  server: Grpc.Server,
  listener: Listener
): Effect.Effect<string, BindError, Scope.Scope> =>
  listener._tag === "Tcp" ? listenTcp(server, listener) : listenUnix(server, listener.path, listener.mode)
