/**
 * Where the Kubernetes API is and who we are to it. Reads kubeconfig files as kubectl does, with the parts of
 * `@kubernetes/client-node` that do it: the whole of that library takes a third of a second to load, so its parser and
 * its authenticators are taken one by one, the latter only when the configuration asks for them.
 */
import * as NodeFileSystem from "@effect/platform-node/NodeFileSystem"
import * as NodePath from "@effect/platform-node/NodePath"
import {
  type Cluster as FileCluster,
  type Context as FileContext,
  newClusters,
  newContexts,
  newUsers,
  type User
} from "@kubernetes/client-node/dist/config_types.js"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import type { RequestOptions } from "node:https"

/** The configuration can't be used. `source` is the file or the place it came from. */
export class KubeConfigError extends Schema.TaggedError<KubeConfigError>()("KubeConfigError", {
  source: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.source}: ${this.problem}`
  }
}

/** What proves to the server who we are, at this moment. */
export interface Credentials {
  /** Complete values of `authorization` and impersonation headers, by lower-case name. */
  readonly headers: { readonly [name: string]: string }
  /** A client certificate and its key, PEM encoded. */
  readonly certificate?: { readonly cert: string; readonly key: string } | undefined
}

/** How the server is reached. */
export interface Cluster {
  /** `https://host:port`, with a path where the API is behind one. For a unix socket: `http://localhost`. */
  readonly server: string
  /** The unix socket that the server listens on. */
  readonly socketPath?: string | undefined
  /** PEM encoded certificates that the server's is checked against; absent: the system's. */
  readonly ca?: string | undefined
  readonly insecureSkipTlsVerify?: boolean | undefined
  /** The name that the server's certificate is checked against, if it is not the host's. */
  readonly tlsServerName?: string | undefined
  readonly proxyUrl?: string | undefined
}

/** Options of {@link KubeConfig} `layer`. `server` may be `unix:///path/to/socket`. */
export interface KubeConfigOptions {
  readonly server: string
  readonly token?: Redacted.Redacted | string | undefined
  /** PEM encoded. */
  readonly ca?: string | undefined
  readonly namespace?: string | undefined
}

/** How long the content of a rotating token or certificate file is used; client-go rereads every minute too. */
const fileTimeToLive = "1 minute"

/** Where Kubernetes mounts the service account of a Pod. */
const serviceAccountRoot = "/var/run/secrets/kubernetes.io/serviceaccount"

/** Where the Kubernetes API is and who we are to it. */
export class KubeConfig extends Context.Service<KubeConfig, {
  readonly cluster: Cluster
  /** The namespace of the current context, `default` if it names none. */
  readonly namespace: string
  /** Current credentials: read again from rotating files, renewed through exec plugins and OIDC as they expire. */
  readonly credentials: Effect.Effect<Credentials, KubeConfigError>
}>()("@fast-sandbox/kube/KubeConfig") {
  /** `KUBECONFIG`, else `~/.kube/config`, else the Pod's service account: what kubectl does. */
  static get layerDefault(): Layer.Layer<KubeConfig, KubeConfigError> {
    return layerDefault
  }

  /** The Pod's service account. */
  static get layerInCluster(): Layer.Layer<KubeConfig, KubeConfigError> {
    return layerInCluster
  }

  /** A kubeconfig file, and one of its contexts instead of the current one. */
  static readonly layerFile = (
    path: string,
    context?: string | undefined
  ): Layer.Layer<KubeConfig, KubeConfigError> =>
    Layer.effect(KubeConfig, fromFiles([path], context)).pipe(Layer.provide(platform))

  /** A known server. */
  static readonly layer = (options: KubeConfigOptions): Layer.Layer<KubeConfig> => {
    const token = Redacted.isRedacted(options.token) ? Redacted.value(options.token) : options.token
    return Layer.succeed(KubeConfig, {
      cluster: { ...address(options.server), ca: options.ca },
      namespace: options.namespace ?? "default",
      credentials: Effect.succeed({ headers: token === undefined ? {} : bearer(token) })
    })
  }
}

const platform = Layer.merge(NodeFileSystem.layer, NodePath.layer)

const bearer = (token: string) => ({ authorization: `Bearer ${token.trim()}` })

const address = (server: string): Pick<Cluster, "server" | "socketPath"> =>
  server.startsWith("unix://")
    ? { server: "http://localhost", socketPath: server.slice("unix://".length) }
    : { server: server.replace(/\/+$/, "") }

const readFile = (path: string): Effect.Effect<string, KubeConfigError, FileSystem.FileSystem> =>
  FileSystem.FileSystem.use((fs) => fs.readFileString(path)).pipe(
    Effect.mapError((error) => new KubeConfigError({ source: path, problem: error.message }))
  )

/** PEM text from a file, or from the base64 that kubeconfig files carry. */
const pem = (
  file: string | undefined,
  base64: string | undefined
): Effect.Effect<string | undefined, KubeConfigError, FileSystem.FileSystem> =>
  base64 !== undefined && base64 !== null
    ? Effect.succeed(Buffer.from(base64, "base64").toString("utf8"))
    : file !== undefined && file !== null
    ? readFile(file)
    : Effect.succeed(undefined)

const inCluster = Effect.gen(function*() {
  const source = "service account of the Pod"
  const environment = yield* Config.all({
    host: Config.NonEmptyString("KUBERNETES_SERVICE_HOST"),
    port: Config.NonEmptyString("KUBERNETES_SERVICE_PORT")
  }).pipe(
    Effect.mapError(() =>
      new KubeConfigError({ source, problem: "not in a Pod: KUBERNETES_SERVICE_HOST and _PORT are not set" })
    )
  )
  const services = yield* Effect.context<FileSystem.FileSystem>()
  const ca = yield* readFile(`${serviceAccountRoot}/ca.crt`)
  const namespace = yield* readFile(`${serviceAccountRoot}/namespace`)
  const host = environment.host.includes(":") ? `[${environment.host}]` : environment.host
  return KubeConfig.of({
    cluster: { server: `https://${host}:${environment.port}`, ca },
    namespace: namespace.trim(),
    credentials: yield* readFile(`${serviceAccountRoot}/token`).pipe(
      Effect.map((token) => ({ headers: bearer(token) })),
      Effect.provideContext(services),
      Effect.cachedWithTTL(fileTimeToLive)
    )
  })
})

const layerInCluster: Layer.Layer<KubeConfig, KubeConfigError> = Layer.effect(KubeConfig, inCluster).pipe(
  Layer.provide(platform)
)

const layerDefault: Layer.Layer<KubeConfig, KubeConfigError> = Layer.effect(
  KubeConfig,
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const environment = yield* Config.all({
      files: Config.option(Config.NonEmptyString("KUBECONFIG")),
      home: Config.option(Config.NonEmptyString("HOME"))
    }).pipe(
      Effect.mapError((error) => new KubeConfigError({ source: "environment", problem: error.message }))
    )
    if (Option.isSome(environment.files)) {
      const separator = path.sep === "\\" ? ";" : ":"
      return yield* fromFiles(environment.files.value.split(separator).filter((file) => file !== ""))
    }
    if (Option.isSome(environment.home)) {
      const file = path.join(environment.home.value, ".kube", "config")
      if (yield* Effect.orElseSucceed(fs.exists(file), () => false)) {
        return yield* fromFiles([file])
      }
    }
    return yield* inCluster
  })
).pipe(Layer.provide(platform))

interface Parsed {
  readonly clusters: ReadonlyArray<FileCluster>
  readonly contexts: ReadonlyArray<FileContext>
  readonly users: ReadonlyArray<{ readonly user: User; readonly raw: unknown; readonly directory: string }>
  readonly currentContext: string | undefined
}

const field = (value: unknown, name: string): unknown => Predicate.hasProperty(value, name) ? value[name] : undefined

const text = (value: unknown): string | undefined => typeof value === "string" && value !== "" ? value : undefined

const parseFile = Effect.fnUntraced(function*(file: string) {
  const path = yield* Path.Path
  const content = yield* readFile(file)
  // A CommonJS package: bundlers that split give its exports as the default one only.
  const { default: yaml } = yield* Effect.promise(() => import("yaml"))
  const directory = path.dirname(path.resolve(file))
  const absolute = (name: string | undefined) =>
    text(name) === undefined ? undefined : path.resolve(directory, name ?? "")
  return yield* Effect.try({
    try: (): Parsed => {
      const document: unknown = yaml.parse(content)
      const users = field(document, "users")
      return {
        clusters: newClusters(field(document, "clusters")).map((cluster) =>
          Object.assign(cluster, { caFile: absolute(cluster.caFile) })
        ),
        contexts: newContexts(field(document, "contexts")),
        users: newUsers(users).map((user, at) => ({
          user,
          raw: field(Array.isArray(users) ? users[at] : undefined, "user"),
          directory
        })),
        currentContext: text(field(document, "current-context"))
      }
    },
    catch: (error) =>
      new KubeConfigError({ source: file, problem: error instanceof Error ? error.message : String(error) })
  })
})

/** Of several files the first to define a name wins, as kubectl merges them. */
const fromFiles = Effect.fnUntraced(function*(files: ReadonlyArray<string>, wanted?: string | undefined) {
  const source = files.join(":")
  const parsed = yield* Effect.forEach(files, parseFile)
  const named = <A extends { readonly name: string }>(values: ReadonlyArray<A>, kind: string, name: string) => {
    const found = values.find((value) => value.name === name)
    return found === undefined
      ? Effect.fail(new KubeConfigError({ source, problem: `there is no ${kind} named ${JSON.stringify(name)}` }))
      : Effect.succeed(found)
  }
  const contextName = wanted ?? parsed.find((file) => file.currentContext !== undefined)?.currentContext
  if (contextName === undefined) {
    return yield* new KubeConfigError({ source, problem: "no current-context is set, and no context was asked for" })
  }
  const context = yield* named(parsed.flatMap((file) => file.contexts), "context", contextName)
  const cluster = yield* named(parsed.flatMap((file) => file.clusters), "cluster", context.cluster)
  const user = text(context.user) === undefined
    ? undefined
    : yield* named(
      parsed.flatMap((file) => file.users.map((entry) => ({ ...entry, name: entry.user.name }))),
      "user",
      context.user
    )
  const ca = yield* pem(cluster.caFile, cluster.caData)
  const settled: Cluster = {
    ...address(cluster.server),
    ca,
    insecureSkipTlsVerify: cluster.skipTLSVerify,
    tlsServerName: text(cluster.tlsServerName),
    proxyUrl: text(cluster.proxyUrl)
  }
  return KubeConfig.of({
    cluster: settled,
    namespace: text(context.namespace) ?? "default",
    credentials: user === undefined ? Effect.succeed({ headers: {} }) : yield* credentialsOf(source, user, settled)
  })
})

const credentialsOf = Effect.fnUntraced(function*(
  source: string,
  { directory, raw, user }: Parsed["users"][number],
  cluster: Cluster
) {
  const services = yield* Effect.context<FileSystem.FileSystem>()
  const path = yield* Path.Path
  const inDirectory = (name: string | undefined) => name === undefined ? undefined : path.resolve(directory, name)
  const impersonation = text(user.impersonateUser) === undefined
    ? {}
    : { "impersonate-user": user.impersonateUser ?? "" }
  const provider = text(field(user.authProvider, "name"))

  const exec: unknown = user.exec
  if (exec !== undefined && exec !== null) {
    const { ExecAuth } = yield* Effect.promise(() => import("@kubernetes/client-node/dist/exec_auth.js"))
    const authenticator = new ExecAuth()
    const prepared: User = { ...user, exec: withExecInfo(exec, cluster, inDirectory) }
    return yield* oneAtATime(source, () => {
      const headers: Record<string, string> = {}
      const options: RequestOptions = { headers }
      return authenticator.applyAuthentication(prepared, options).then((): Credentials => {
        const authorization = headers.Authorization
        return {
          headers: { ...(authorization === undefined ? {} : { authorization }), ...impersonation },
          certificate: options.cert === undefined || options.key === undefined
            ? undefined
            : { cert: String(options.cert), key: String(options.key) }
        }
      })
    })
  }
  if (provider === "oidc") {
    const oidc = yield* Effect.promise(() => import("./internal/oidc.ts"))
    const setting = (name: string) => text(field(field(user.authProvider, "config"), name))
    const token = oidc.make({
      idToken: setting("id-token") ?? "",
      refreshToken: setting("refresh-token"),
      clientId: setting("client-id"),
      clientSecret: setting("client-secret"),
      issuer: setting("idp-issuer-url"),
      ca: yield* pem(inDirectory(setting("idp-certificate-authority")), setting("idp-certificate-authority-data"))
    })
    return yield* oneAtATime(
      source,
      () => token().then((current) => ({ headers: { ...bearer(current), ...impersonation } }))
    )
  }
  if (provider !== undefined) {
    return yield* new KubeConfigError({
      source,
      problem: `the auth-provider ${provider} was removed from Kubernetes; use an exec plugin in its place`
    })
  }

  const tokenFile = inDirectory(text(field(raw, "tokenFile")))
  const certFile = inDirectory(text(user.certFile))
  const keyFile = inDirectory(text(user.keyFile))
  const current = Effect.gen(function*(): Effect.fn.Return<Credentials, KubeConfigError, FileSystem.FileSystem> {
    const token = tokenFile === undefined ? text(user.token) : yield* readFile(tokenFile)
    const cert = yield* pem(certFile, text(user.certData))
    const key = yield* pem(keyFile, text(user.keyData))
    const authorization = token !== undefined
      ? bearer(token)
      : text(user.username) !== undefined
      ? { authorization: `Basic ${Buffer.from(`${user.username}:${user.password ?? ""}`).toString("base64")}` }
      : {}
    return {
      headers: { ...authorization, ...impersonation },
      certificate: cert === undefined || key === undefined ? undefined : { cert, key }
    }
  }).pipe(Effect.provideContext(services))
  return yield* Effect.cachedWithTTL(current, fileTimeToLive)
})

/** The message of an error, and of what it hides. */
const problemOf = (error: unknown): string =>
  !(error instanceof Error)
    ? String(error)
    : error.cause === undefined
    ? error.message
    : `${error.message}: ${problemOf(error.cause)}`

/** Asks an authenticator, one call at a time: it keeps what it got, but not what it is still getting. */
const oneAtATime = Effect.fnUntraced(function*(
  source: string,
  credentials: () => Promise<Credentials>
): Effect.fn.Return<Effect.Effect<Credentials, KubeConfigError>> {
  const one = yield* Semaphore.make(1)
  return Effect.tryPromise({
    try: credentials,
    catch: (error) => new KubeConfigError({ source, problem: problemOf(error) })
  }).pipe(one.withPermits(1))
})

/**
 * What client-node leaves out of the contract with exec plugins: `KUBERNETES_EXEC_INFO`, and commands with a slash that
 * are relative to the kubeconfig file.
 */
const withExecInfo = (
  exec: unknown,
  cluster: Cluster,
  inDirectory: (name: string | undefined) => string | undefined
): unknown => {
  const env = field(exec, "env")
  const command = text(field(exec, "command"))
  const info = {
    apiVersion: field(exec, "apiVersion"),
    kind: "ExecCredential",
    spec: {
      interactive: false,
      ...(field(exec, "provideClusterInfo") === true
        ? {
          cluster: {
            server: cluster.server,
            ...(cluster.ca === undefined
              ? {}
              : { "certificate-authority-data": Buffer.from(cluster.ca).toString("base64") }),
            ...(cluster.tlsServerName === undefined ? {} : { "tls-server-name": cluster.tlsServerName }),
            ...(cluster.insecureSkipTlsVerify === true ? { "insecure-skip-tls-verify": true } : {})
          }
        }
        : {})
    }
  }
  return {
    ...(Predicate.isObject(exec) ? exec : {}),
    command: command?.includes("/") === true ? inDirectory(command) : command,
    env: [...(Array.isArray(env) ? env : []), { name: "KUBERNETES_EXEC_INFO", value: JSON.stringify(info) }]
  }
}
