/**
 * The connections to one API server: a pool that keeps them alive between requests, and a new pool whenever the client
 * certificate changes.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Dispatcher, Pool, ProxyAgent } from "undici"
import type { Cluster, Credentials } from "../KubeConfig.ts"

/**
 * Connections at once. Each watch holds one, each other request borrows one for its duration; what is beyond waits in
 * the pool.
 */
const maxConnections = 256

/** An idle connection is closed after this time: below the 90 s after which API servers close them. */
const keepAliveMillis = 60_000

/** A connection that is not made (TCP and TLS) within this time is given up. */
const connectTimeoutMillis = 10_000

/** Gives the pool for the current client certificate. All pools close with the scope. */
export const make = Effect.fnUntraced(function*(
  cluster: Cluster
): Effect.fn.Return<(certificate: Credentials["certificate"]) => Dispatcher, never, Scope.Scope> {
  const url = new URL(cluster.server)
  const pools = new Set<Dispatcher>()
  let current: { readonly key: string; readonly dispatcher: Dispatcher } | undefined

  const open = (certificate: Credentials["certificate"]): Dispatcher => {
    const tls = {
      ...certificate,
      ...(cluster.ca === undefined ? {} : { ca: cluster.ca }),
      ...(cluster.tlsServerName === undefined ? {} : { servername: cluster.tlsServerName }),
      rejectUnauthorized: cluster.insecureSkipTlsVerify !== true,
      timeout: connectTimeoutMillis
    }
    const shared = {
      connections: maxConnections,
      keepAliveTimeout: keepAliveMillis,
      keepAliveMaxTimeout: keepAliveMillis,
      pipelining: 1,
      allowH2: false
    }
    return cluster.proxyUrl === undefined
      ? new Pool(url.origin, {
        ...shared,
        connect: cluster.socketPath === undefined ? tls : { ...tls, socketPath: cluster.socketPath }
      })
      : new ProxyAgent({ ...shared, uri: cluster.proxyUrl, requestTls: tls })
  }

  yield* Effect.addFinalizer(() => Effect.promise(() => Promise.all(Array.from(pools, (pool) => pool.destroy()))))

  return (certificate) => {
    const key = certificate === undefined ? "" : certificate.cert + certificate.key
    if (current === undefined || current.key !== key) {
      const before = current?.dispatcher
      current = { key, dispatcher: open(certificate) }
      pools.add(current.dispatcher)
      before?.close(() => pools.delete(before))
    }
    return current.dispatcher
  }
})
