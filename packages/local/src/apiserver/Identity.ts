/**
 * Who the server is to its clients: a certificate authority of its own, the certificate that it signs for this machine's
 * loopback, the bearer token, and the kubeconfig that carries all of it. Files are made once, readable by their owner
 * only, and reused; a certificate near its end is renewed, by the same authority.
 */
import * as CertificateAuthority from "@fast-sandbox/grpc/CertificateAuthority"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { randomBytes } from "node:crypto"

/** The server's files can't be made or read: check that the data directory is writable and its files are intact. */
export class IdentityError extends Schema.TaggedError<IdentityError>()("IdentityError", {
  path: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `can't prepare ${this.path}: check that the directory is writable, or remove the file to have it made anew`
  }
}

/** The identity, as PEM texts and a token. */
export interface Identity {
  readonly caCertificate: string
  readonly certificate: string
  readonly key: string
  /** The administrator's. */
  readonly token: string
  /** What tokens of service accounts are signed with. */
  readonly tokenKey: Redacted.Redacted
}

/** Secrets are for the owner only. */
const secretMode = 0o600

const dayMillis = 24 * 60 * 60 * 1000
const authorityDays = 3650
const certificateDays = 365
/** A certificate with less life left than this is renewed at the next start. */
const renewBeforeDays = 30
const secretBytes = 32

/** What the server's certificate says. */
const serverCertificate = {
  commonName: "fast-sandbox-apiserver",
  names: [
    { type: "ip", value: "127.0.0.1" },
    { type: "dns", value: "localhost" },
    { type: "dns", value: "kubernetes.default.svc" }
  ],
  usages: ["server"],
  lifetimeMillis: certificateDays * dayMillis
} as const

/** The kubeconfig of the server's one user. */
export const kubeconfig = (identity: Identity, url: string): string =>
  JSON.stringify(
    {
      apiVersion: "v1",
      kind: "Config",
      "current-context": "fast-sandbox",
      clusters: [{
        name: "fast-sandbox",
        cluster: {
          server: url,
          "certificate-authority-data": Buffer.from(identity.caCertificate).toString("base64")
        }
      }],
      users: [{ name: "fast-sandbox", user: { token: identity.token } }],
      contexts: [{
        name: "fast-sandbox",
        context: { cluster: "fast-sandbox", user: "fast-sandbox", namespace: "default" }
      }]
    },
    null,
    2
  )

/** Writes a secret so that a crash leaves the old file or the new one, never a part. */
export const writeSecret = Effect.fn("Identity.writeSecret")(function*(path: string, text: string) {
  const files = yield* FileSystem.FileSystem
  const fresh = `${path}.new`
  yield* files.writeFileString(fresh, text, { mode: secretMode })
  yield* files.chmod(fresh, secretMode)
  yield* files.rename(fresh, path)
}, (effect, path) => Effect.mapError(effect, (cause) => new IdentityError({ path, cause })))

const reader = (directory: string) => (name: string) =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const path = `${directory}/${name}`
    return (yield* files.exists(path)) ? (yield* files.readFileString(path)).trim() : undefined
  }).pipe(Effect.mapError((cause) => new IdentityError({ path: `${directory}/${name}`, cause })))

const made = <A>(path: string, self: Effect.Effect<A, CertificateAuthority.CertificateError>) =>
  Effect.mapError(self, (cause) => new IdentityError({ path, cause }))

/** The authority in a directory, made if it is missing. Whatever it signed before it was made anew is worthless. */
export const authority = Effect.fn("Identity.authority")(function*(directory: string) {
  const read = reader(directory)
  const certificate = yield* read("ca.crt")
  const key = yield* read("ca.key")
  if (certificate !== undefined && key !== undefined) {
    return { certificate, key: Redacted.make(key), isNew: false }
  }
  const fresh = yield* made(
    `${directory}/ca.crt`,
    CertificateAuthority.make({ commonName: "fast-sandbox-ca", lifetimeMillis: authorityDays * dayMillis })
  )
  yield* writeSecret(`${directory}/ca.key`, Redacted.value(fresh.key))
  yield* writeSecret(`${directory}/ca.crt`, fresh.certificate)
  return { ...fresh, isNew: true }
})

/** A secret of random bytes in a directory, made if it is missing. */
const randomSecret = Effect.fnUntraced(function*(directory: string, name: string) {
  const known = yield* reader(directory)(name)
  if (known !== undefined && known !== "") return known
  const fresh = randomBytes(secretBytes).toString("base64url")
  yield* writeSecret(`${directory}/${name}`, fresh)
  return fresh
})

/** Reads the identity in a directory, making what is missing and renewing what ends soon. */
export const load = Effect.fn("Identity.load")(function*(directory: string) {
  const now = yield* Clock.currentTimeMillis
  const read = reader(directory)
  const issuer = yield* authority(directory)
  let certificate = yield* read("server.crt")
  let key = yield* read("server.key")
  const stale = issuer.isNew || certificate === undefined || key === undefined ||
    (yield* made(`${directory}/server.crt`, CertificateAuthority.endOf(certificate))) - now <
      renewBeforeDays * dayMillis
  if (stale) {
    const fresh = yield* made(`${directory}/server.crt`, CertificateAuthority.issue(issuer, serverCertificate))
    certificate = fresh.certificate
    key = Redacted.value(fresh.key)
    yield* writeSecret(`${directory}/server.key`, key)
    yield* writeSecret(`${directory}/server.crt`, certificate)
  }
  return {
    caCertificate: issuer.certificate,
    certificate: certificate ?? "",
    key: key ?? "",
    token: yield* randomSecret(directory, "token"),
    tokenKey: Redacted.make(yield* randomSecret(directory, "serviceaccounts.key"))
  } satisfies Identity
})
