/**
 * The connections to one API server, kept alive between requests; new ones whenever the client certificate changes. Node's
 * own HTTP, whose parser is part of the program anyway: undici's is compiled at run time, which costs an idle program 25 MB.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Http from "node:http"
import * as Https from "node:https"
import type { Cluster, Credentials } from "../KubeConfig.ts"

/**
 * Connections at once. Each watch holds one, each other request borrows one for its duration; what is beyond waits for
 * one of them.
 */
const maxConnections = 256

/** An idle connection is closed after this time: below the 90 s after which API servers close them. */
const keepAliveMillis = 60_000

/** What the server's certificate is checked against, and what we show it. */
export const tlsOf = (cluster: Cluster, certificate: Credentials["certificate"]) => ({
  ...certificate,
  ...(cluster.ca === undefined ? {} : { ca: cluster.ca }),
  ...(cluster.tlsServerName === undefined ? {} : { servername: cluster.tlsServerName }),
  rejectUnauthorized: cluster.insecureSkipTlsVerify !== true
})

/** Begins a request: method, path and headers are the caller's. */
export type Connect = (options: Http.RequestOptions) => Http.ClientRequest

/** Gives what makes requests with the current client certificate. All connections close with the scope. */
export const make = Effect.fnUntraced(function*(
  cluster: Cluster
): Effect.fn.Return<(certificate: Credentials["certificate"]) => Connect, never, Scope.Scope> {
  const { hostname, port, protocol } = new URL(cluster.server)
  const where: Http.RequestOptions = cluster.socketPath === undefined
    // Brackets belong into URLs only.
    ? { host: hostname.replace(/^\[|\]$/g, ""), ...(port === "" ? {} : { port }) }
    : { socketPath: cluster.socketPath }
  const shared = {
    keepAlive: true,
    maxSockets: maxConnections,
    timeout: keepAliveMillis,
    ...(cluster.proxyUrl === undefined
      ? {}
      : { proxyEnv: { HTTP_PROXY: cluster.proxyUrl, HTTPS_PROXY: cluster.proxyUrl } })
  }
  let current: { readonly key: string; readonly agent: Http.Agent; readonly connect: Connect } | undefined
  /** Requests that began with the last certificate end with it. */
  let retired: Http.Agent | undefined

  const open = (certificate: Credentials["certificate"]) => {
    if (protocol === "http:") {
      const agent = new Http.Agent(shared)
      const connect: Connect = (options) => Http.request({ ...where, ...options, agent })
      return { agent, connect }
    }
    const agent = new Https.Agent({ ...shared, ...tlsOf(cluster, certificate) })
    const connect: Connect = (options) => Https.request({ ...where, ...options, agent })
    return { agent, connect }
  }

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      current?.agent.destroy()
      retired?.destroy()
    })
  )

  return (certificate) => {
    const key = certificate === undefined ? "" : certificate.cert + certificate.key
    if (current === undefined || current.key !== key) {
      retired?.destroy()
      retired = current?.agent
      current = { key, ...open(certificate) }
    }
    return current.connect
  }
})
