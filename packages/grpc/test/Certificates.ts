/** Certificates for the tests of TLS, made afresh by two authorities. */
import "reflect-metadata"
import * as X509 from "@peculiar/x509"
import { Effect, Redacted } from "effect"

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const
const HOUR_MILLIS = 60 * 60 * 1000

X509.cryptoProvider.set(crypto)

const validity = () => ({
  notBefore: new Date(Date.now() - HOUR_MILLIS),
  notAfter: new Date(Date.now() + HOUR_MILLIS)
})

const generateKeys = () => crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"])

const makeAuthority = async (name: string) => {
  const keys = await generateKeys()
  const certificate = await X509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    ...validity(),
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [new X509.BasicConstraintsExtension(true, 1, true)]
  })
  return { name, keys, pem: certificate.toString("pem") }
}

const issue = async (authority: Awaited<ReturnType<typeof makeAuthority>>, name: string) => {
  const keys = await generateKeys()
  const certificate = await X509.X509CertificateGenerator.create({
    subject: `CN=${name}`,
    issuer: `CN=${authority.name}`,
    ...validity(),
    publicKey: keys.publicKey,
    signingKey: authority.keys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new X509.SubjectAlternativeNameExtension([
        { type: "ip", value: "127.0.0.1" },
        { type: "dns", value: "agent.fast-sandbox" }
      ])
    ]
  })
  const key = await crypto.subtle.exportKey("pkcs8", keys.privateKey)
  return { chain: certificate.toString("pem"), key: Redacted.make(X509.PemConverter.encode(key, "PRIVATE KEY")) }
}

/** A server's and a caller's certificate of one authority, and a stranger's of another. */
export const makeCertificates = Effect.promise(async () => {
  const [authority, other] = await Promise.all([makeAuthority("fsb"), makeAuthority("other")])
  const [server, client, strangerClient] = await Promise.all([
    issue(authority, "agent"),
    issue(authority, "controller"),
    issue(other, "stranger")
  ])
  return { ca: authority.pem, otherCa: other.pem, server, client, strangerClient }
})
