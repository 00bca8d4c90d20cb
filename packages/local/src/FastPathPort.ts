/**
 * The Fast-Path API on a TCP port of this machine, for who asks for it: encrypted with a certificate of the API server's
 * authority, open to bearer tokens that the API server knows. A file tells clients all of it.
 */
import * as CertificateAuthority from "@fast-sandbox/grpc/CertificateAuthority"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { isIP } from "node:net"
import { hostname, networkInterfaces } from "node:os"
import { ApiServer } from "./apiserver/ApiServer.ts"
import * as Identity from "./apiserver/Identity.ts"
import type { Home } from "./Home.ts"

/** Where the port is. */
export interface Address {
  /** A name or an address of this machine; `0.0.0.0` or `::` for all of them. */
  readonly host: string
  readonly port: number
}

/** The two parts of `host:port`; IPv6 addresses stand in brackets. */
export const addressOf = (text: string): Address => {
  const colon = text.lastIndexOf(":")
  return { host: text.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(text.slice(colon + 1)) }
}

/** A certificate lives this long; a stack that runs longer gets new ones in time. */
const lifetimeMillis = 30 * 24 * 60 * 60 * 1000
const renewEvery = "7 days"

const everywhere: ReadonlySet<string> = new Set(["0.0.0.0", "::"])

/** Every name under which a client may reach the port. */
const namesOf = (host: string): ReadonlyArray<CertificateAuthority.SubjectName> => {
  const own = everywhere.has(host)
    ? Object.values(networkInterfaces()).flatMap((addresses) =>
      (addresses ?? []).filter(({ scopeid }) => !scopeid).map(({ address }) => address)
    )
    : [host]
  return [...new Set(["127.0.0.1", "localhost", hostname(), ...own])].map((value) => ({
    type: isIP(value) === 0 ? "dns" : "ip",
    value
  }))
}

/** The listener, and the file for its clients, which only its owner may read. */
export const listener = Effect.fn("FastPathPort.listener")(function*(home: Home, { host, port }: Address) {
  const { token } = yield* ApiServer
  const authority = yield* Identity.authority(home.apiServerDirectory)
  const issue = CertificateAuthority.issue(authority, {
    commonName: "fast-sandbox",
    names: namesOf(host),
    usages: ["server"],
    lifetimeMillis
  }).pipe(Effect.map(({ certificate, key }): GrpcServer.Certificates => ({ certificate: { chain: certificate, key } })))
  const reached = everywhere.has(host) ? hostname() : isIP(host) === 6 ? `[${host}]` : host
  yield* Identity.writeSecret(
    home.clientConfig,
    JSON.stringify({ endpoint: `${reached}:${port}`, token, tls: { ca: `${home.apiServerDirectory}/ca.crt` } }, null, 2)
  )
  const rotations = Stream.fromSchedule(Schedule.spaced(renewEvery)).pipe(
    Stream.mapEffect(() =>
      Effect.option(Effect.tapError(issue, (error) => Effect.logError("no new certificate", error)))
    ),
    Stream.flatMap((issued) => Stream.fromIterable(Option.toArray(issued)))
  )
  return GrpcServer.tcp(host, port, { tls: { ...(yield* issue), rotations } })
})
