/**
 * Who the server is to its clients: a certificate authority of its own, the certificate that it signs for this machine's
 * loopback, the bearer token, and the kubeconfig that carries all of it. Files are made once, readable by their owner
 * only, and reused; a certificate near its end is renewed, by the same authority.
 */
import "reflect-metadata"
import * as X509 from "@peculiar/x509"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { randomBytes, webcrypto } from "node:crypto"

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
  readonly token: string
}

/** Secrets are for the owner only. */
const secretMode = 0o600

const dayMillis = 24 * 60 * 60 * 1000
const authorityDays = 3650
const certificateDays = 365
/** A certificate with less life left than this is renewed at the next start. */
const renewBeforeDays = 30
/** Clocks that run behind still accept a fresh certificate. */
const backdateDays = 1
const tokenBytes = 32

const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const

const pem = (label: string, data: ArrayBuffer): string => X509.PemConverter.encode(data, label)

const importKey = (text: string) => {
  const data = X509.PemConverter.decode(text)[0]
  if (data === undefined) throw new Error("the file holds no key")
  return webcrypto.subtle.importKey("pkcs8", data, algorithm, true, ["sign"])
}

const serial = (): string => `00${randomBytes(15).toString("hex")}`

const newAuthority = async (now: number): Promise<{ readonly certificate: string; readonly key: string }> => {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"])
  const certificate = await X509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: "CN=fast-sandbox-ca",
    notBefore: new Date(now - backdateDays * dayMillis),
    notAfter: new Date(now + authorityDays * dayMillis),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new X509.BasicConstraintsExtension(true, 0, true),
      new X509.KeyUsagesExtension(X509.KeyUsageFlags.keyCertSign | X509.KeyUsageFlags.cRLSign, true),
      await X509.SubjectKeyIdentifierExtension.create(keys.publicKey)
    ]
  })
  return {
    certificate: certificate.toString("pem"),
    key: pem("PRIVATE KEY", await webcrypto.subtle.exportKey("pkcs8", keys.privateKey))
  }
}

const newCertificate = async (
  authority: { readonly certificate: string; readonly key: string },
  now: number
): Promise<{ readonly certificate: string; readonly key: string }> => {
  const issuer = new X509.X509Certificate(authority.certificate)
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"])
  const certificate = await X509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: "CN=fast-sandbox-apiserver",
    issuer: issuer.subject,
    notBefore: new Date(now - backdateDays * dayMillis),
    notAfter: new Date(now + certificateDays * dayMillis),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: await importKey(authority.key),
    extensions: [
      new X509.BasicConstraintsExtension(false, undefined, true),
      new X509.KeyUsagesExtension(X509.KeyUsageFlags.digitalSignature, true),
      new X509.ExtendedKeyUsageExtension([X509.ExtendedKeyUsage.serverAuth]),
      new X509.SubjectAlternativeNameExtension([
        { type: "ip", value: "127.0.0.1" },
        { type: "dns", value: "localhost" },
        { type: "dns", value: "kubernetes.default.svc" }
      ]),
      await X509.AuthorityKeyIdentifierExtension.create(issuer)
    ]
  })
  return {
    certificate: certificate.toString("pem"),
    key: pem("PRIVATE KEY", await webcrypto.subtle.exportKey("pkcs8", keys.privateKey))
  }
}

const endsSoon = (certificate: string, now: number): boolean =>
  new X509.X509Certificate(certificate).notAfter.getTime() - now < renewBeforeDays * dayMillis

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

/** Reads the identity in a directory, making what is missing and renewing what ends soon. */
export const load = Effect.fn("Identity.load")(function*(directory: string) {
  const files = yield* FileSystem.FileSystem
  const now = yield* Clock.currentTimeMillis
  const path = (name: string) => `${directory}/${name}`
  const read = (name: string) =>
    Effect.gen(function*() {
      return (yield* files.exists(path(name))) ? (yield* files.readFileString(path(name))).trim() : undefined
    }).pipe(Effect.mapError((cause) => new IdentityError({ path: path(name), cause })))
  const attempt = <A>(name: string, make: () => Promise<A>) =>
    Effect.tryPromise({ try: make, catch: (cause) => new IdentityError({ path: path(name), cause }) })

  let authority = { certificate: yield* read("ca.crt"), key: yield* read("ca.key") }
  let renewed = false
  if (authority.certificate === undefined || authority.key === undefined) {
    const fresh = yield* attempt("ca.crt", () => newAuthority(now))
    yield* writeSecret(path("ca.key"), fresh.key)
    yield* writeSecret(path("ca.crt"), fresh.certificate)
    authority = fresh
    renewed = true
  }
  const issuer = { certificate: authority.certificate ?? "", key: authority.key ?? "" }
  let certificate = yield* read("server.crt")
  let key = yield* read("server.key")
  const current = certificate
  const stale = current === undefined || key === undefined ||
    (yield* attempt("server.crt", () => Promise.resolve(endsSoon(current, now))))
  if (renewed || stale) {
    const fresh = yield* attempt("server.crt", () => newCertificate(issuer, now))
    yield* writeSecret(path("server.key"), fresh.key)
    yield* writeSecret(path("server.crt"), fresh.certificate)
    certificate = fresh.certificate
    key = fresh.key
  }
  let token = yield* read("token")
  if (token === undefined || token === "") {
    token = randomBytes(tokenBytes).toString("base64url")
    yield* writeSecret(path("token"), token)
  }
  return { caCertificate: issuer.certificate, certificate: certificate ?? "", key: key ?? "", token } satisfies Identity
})
