/**
 * The embedded API server of one-machine mode: the Kubernetes API on 127.0.0.1 (HTTPS) and, if wanted, on a unix socket,
 * stored in one SQLite file. Every request needs a bearer token, and roles decide what its user may do. Nothing else listens.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Http from "node:http"
import * as Https from "node:https"
import type { Server as NetServer } from "node:net"
import * as Access from "./Access.ts"
import * as ApiStatus from "./ApiStatus.ts"
import { Catalog } from "./Catalog.ts"
import * as GarbageCollector from "./GarbageCollector.ts"
import * as Identity from "./Identity.ts"
import type { Intent } from "./Intent.ts"
import { protectedNamespaces, Resources } from "./Resources.ts"
import * as Routes from "./Routes.ts"
import { Store, StoreError } from "./Store.ts"
import * as Watch from "./Watch.ts"

/** The server can't listen: the address is taken or not allowed. */
export class ListenError extends Schema.TaggedError<ListenError>()("ListenError", {
  address: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `can't listen on ${this.address}: check that nothing else does and that this user may`
  }
}

/** Why a server doesn't start. */
export class ApiServerError extends Schema.TaggedError<ApiServerError>()("ApiServerError", {
  reason: Schema.Union([StoreError, Identity.IdentityError, ListenError])
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** How a server is started. */
export interface ApiServerOptions {
  /** Where database, certificates, token and kubeconfig are kept; made if missing. */
  readonly dataDirectory: string
  /** The TCP port on 127.0.0.1; 0 or absent: any free one. */
  readonly port?: number | undefined
  /** A unix socket, for the owner only, that speaks plain HTTP (the token is still needed). */
  readonly socketPath?: string | undefined
}

/** What clients of the server need. */
export interface ApiServerShape {
  readonly url: string
  readonly kubeconfigPath: string
  readonly token: string
  /** PEM. */
  readonly caCertificate: string
}

/** Bodies of requests, in bytes; upstream's limit. */
const bodyLimit = 3 * 1024 * 1024

/** Requests that are carried out at the same time, watches aside; upstream allows as many reads. */
const requestLimit = 400

/** Watches that are open at the same time. One needs a few KiB. */
const watchLimit = 1_000

/** How long an idle connection is kept for its client's next request, in milliseconds. */
const keepAliveMillis = 120_000

/** Who may use the data directory. */
const directoryMode = 0o700
const socketMode = 0o600

/** The running server. */
export class ApiServer extends Context.Service<ApiServer, ApiServerShape>()("@fast-sandbox/local/apiserver/ApiServer") {
  /** Starts a server in a data directory; it stops, with all its watches, when the layer's scope closes. */
  static readonly layer = (
    options: ApiServerOptions
  ): Layer.Layer<ApiServer, ApiServerError, FileSystem.FileSystem> => {
    const store = Store.layer(`${options.dataDirectory}/state.db`)
    const verbs = Resources.layer.pipe(Layer.provideMerge(Catalog.layer), Layer.provideMerge(store))
    const server = Layer.effect(ApiServer, start(options)).pipe(
      Layer.provideMerge(GarbageCollector.layer),
      Layer.provide(verbs)
    )
    const directory = Layer.effectDiscard(
      Effect.gen(function*() {
        const files = yield* FileSystem.FileSystem
        const path = options.dataDirectory
        yield* files.makeDirectory(path, { recursive: true }).pipe(
          Effect.andThen(files.chmod(path, directoryMode)),
          Effect.mapError((cause) => new Identity.IdentityError({ path, cause }))
        )
      })
    )
    return Layer.provide(server, directory).pipe(
      Layer.catch((reason) => Layer.effect(ApiServer, Effect.fail(new ApiServerError({ reason }))))
    )
  }
}

/** The namespaces that every cluster has. */
const createNamespaces = Effect.gen(function*() {
  const catalog = yield* Catalog
  const resources = yield* Resources
  const store = yield* Store
  const nowMillis = yield* Clock.currentTimeMillis
  const type = catalog.find("", "v1", "namespaces")
  if (type === undefined) return
  const intent: Intent = {
    type,
    namespace: "",
    subresource: "",
    dryRun: false,
    fieldManager: "apiserver",
    fieldValidation: "Ignore",
    nowMillis,
    warn: () => undefined
  }
  for (const name of [...protectedNamespaces, "kube-node-lease"]) {
    if (store.get({ resource: "namespaces", namespace: "", name }) !== undefined) continue
    resources.create(intent, { apiVersion: "v1", kind: "Namespace", metadata: { name } })
  }
})

const readBody = (request: Http.IncomingMessage): Effect.Effect<Uint8Array, ApiStatus.ApiStatus> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    const onData = (chunk: Buffer) => {
      size += chunk.length
      if (size > bodyLimit) {
        request.off("data", onData)
        request.resume()
        resume(Effect.fail(ApiStatus.tooLarge(bodyLimit)))
      } else chunks.push(chunk)
    }
    request.on("data", onData)
    request.once("end", () => resume(Effect.succeed(Buffer.concat(chunks))))
    request.once("error", () => resume(Effect.fail(ApiStatus.badRequest("the request ended early"))))
  })

/** Waits until the reader took what was written, or is gone. */
const writeTo = (response: Http.ServerResponse) => (text: string): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (response.destroyed || response.write(text)) return Effect.void
    return Effect.callback<void>((resume) => {
      const done = () => {
        response.off("drain", done)
        response.off("close", done)
        resume(Effect.void)
      }
      response.once("drain", done)
      response.once("close", done)
      return Effect.sync(() => {
        response.off("drain", done)
        response.off("close", done)
      })
    })
  })

const closed = (response: Http.ServerResponse): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (response.destroyed) return resume(Effect.void)
    const done = () => resume(Effect.void)
    response.once("close", done)
    return Effect.sync(() => response.off("close", done))
  })

const listen = (server: NetServer, address: string, where: Parameters<NetServer["listen"]>[0]) =>
  Effect.acquireRelease(
    Effect.callback<void, ListenError>((resume) => {
      server.once("error", (cause) => resume(Effect.fail(new ListenError({ address, cause }))))
      server.listen(where, () => resume(Effect.void))
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        if (server instanceof Http.Server || server instanceof Https.Server) server.closeAllConnections()
      })
  )

const send = (
  response: Http.ServerResponse,
  code: number,
  contentType: string,
  body: string,
  warnings: ReadonlyArray<string>
) => {
  response.statusCode = code
  response.setHeader("Content-Type", contentType)
  response.setHeader("Cache-Control", "no-cache, private")
  if (warnings.length > 0) response.setHeader("Warning", warnings.map((text) => `299 - ${JSON.stringify(text)}`))
  response.end(body)
}

const refuse = (response: Http.ServerResponse, status: ApiStatus.ApiStatus) => {
  if (response.headersSent) return void response.destroy()
  if (status.retryAfterSeconds !== undefined) response.setHeader("Retry-After", String(status.retryAfterSeconds))
  send(response, status.code, "application/json", JSON.stringify(status.toJson()), [])
}

const start = Effect.fn("ApiServer.start")(function*(options: ApiServerOptions) {
  const files = yield* FileSystem.FileSystem
  const store = yield* Store
  yield* createNamespaces
  const identity = yield* Identity.load(options.dataDirectory)
  const access = yield* Access.make(identity)
  const route = yield* Routes.make(access)
  const run = yield* FiberSet.makeRuntime<never>()
  let requests = 0
  let watches = 0

  const watch = (response: Http.ServerResponse, request: Watch.WatchRequest, contentType: string) =>
    Effect.gen(function*() {
      response.writeHead(200, { "Content-Type": contentType, "Cache-Control": "no-cache, private" })
      response.flushHeaders()
      yield* Effect.raceFirst(
        Effect.scoped(Watch.run(store, request, writeTo(response))),
        closed(response)
      )
      response.end()
    })

  const serve = (request: Http.IncomingMessage, response: Http.ServerResponse): Effect.Effect<void> =>
    Effect.gen(function*() {
      const user = yield* Effect.fromResult(access.authenticate(request.headers.authorization))
      const hasBody = request.method !== "GET" && request.method !== "HEAD"
      const body = hasBody ? yield* readBody(request) : new Uint8Array()
      const outcome = route({
        method: request.method ?? "GET",
        url: new URL(request.url ?? "/", "http://localhost"),
        accept: request.headers.accept,
        contentType: request.headers["content-type"],
        userAgent: request.headers["user-agent"] ?? "",
        body,
        address: request.headers.host ?? "",
        user
      })
      // Nobody hears of a write, not even by a read, before it is committed.
      yield* store.durable
      const answer = yield* Effect.fromResult(outcome)
      if (answer._tag === "Whole") return send(response, answer.code, answer.contentType, answer.body, answer.warnings)
      if (watches >= watchLimit) return yield* Effect.fail(ApiStatus.tooManyRequests)
      watches += 1
      requests -= 1
      yield* watch(response, answer.watch, answer.contentType).pipe(
        Effect.ensuring(Effect.sync(() => {
          watches -= 1
          requests += 1
        }))
      )
    }).pipe(
      Effect.catch((status) => Effect.sync(() => refuse(response, status))),
      Effect.catchDefect((defect) =>
        Effect.andThen(
          Effect.logError("a request failed", defect),
          Effect.sync(() => refuse(response, ApiStatus.internalError(String(defect))))
        )
      ),
      Effect.ensuring(Effect.sync(() => {
        requests -= 1
      }))
    )

  const handle = (request: Http.IncomingMessage, response: Http.ServerResponse): void => {
    if (requests >= requestLimit) {
      request.resume()
      return refuse(response, ApiStatus.tooManyRequests)
    }
    requests += 1
    run(serve(request, response))
  }

  const secure = Https.createServer({
    cert: identity.certificate,
    key: identity.key,
    ALPNProtocols: ["http/1.1"],
    keepAliveTimeout: keepAliveMillis
  }, handle)
  const port = options.port ?? 0
  yield* listen(secure, `127.0.0.1:${port}`, { host: "127.0.0.1", port })
  const address = secure.address()
  const url = `https://127.0.0.1:${typeof address === "object" && address !== null ? address.port : port}`
  if (options.socketPath !== undefined) {
    const path = options.socketPath
    const failed = (cause: unknown) => new ListenError({ address: path, cause })
    // A socket left behind by a killed server would be in the way; the database's lock says that it is not in use.
    yield* files.remove(path, { force: true }).pipe(Effect.mapError(failed))
    yield* listen(Http.createServer({ keepAliveTimeout: keepAliveMillis }, handle), path, { path })
    yield* files.chmod(path, socketMode).pipe(Effect.mapError(failed))
  }
  const kubeconfigPath = `${options.dataDirectory}/kubeconfig`
  yield* Identity.writeSecret(kubeconfigPath, Identity.kubeconfig(identity, url))
  return ApiServer.of({ url, kubeconfigPath, token: identity.token, caCertificate: identity.caCertificate })
})
