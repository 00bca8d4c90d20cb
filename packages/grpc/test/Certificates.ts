/** Certificates for the tests of TLS, made afresh by two authorities. */
import * as CertificateAuthority from "@fast-sandbox/grpc/CertificateAuthority"
import { Effect } from "effect"

const HOUR_MILLIS = 60 * 60 * 1000

const issue = (authority: CertificateAuthority.Identity, commonName: string) =>
  Effect.map(
    CertificateAuthority.issue(authority, {
      commonName,
      names: [{ type: "ip", value: "127.0.0.1" }, { type: "dns", value: "agent.fast-sandbox" }],
      usages: ["server", "client"],
      lifetimeMillis: HOUR_MILLIS
    }),
    ({ certificate, key }) => ({ chain: certificate, key })
  )

/** A server's and a caller's certificate of one authority, and a stranger's of another. */
export const makeCertificates = Effect.gen(function*() {
  const authority = yield* CertificateAuthority.make({ commonName: "fsb", lifetimeMillis: HOUR_MILLIS })
  const other = yield* CertificateAuthority.make({ commonName: "other", lifetimeMillis: HOUR_MILLIS })
  return {
    ca: authority.certificate,
    otherCa: other.certificate,
    server: yield* issue(authority, "agent"),
    client: yield* issue(authority, "controller"),
    otherServer: yield* issue(other, "agent"),
    strangerClient: yield* issue(other, "stranger")
  }
})
