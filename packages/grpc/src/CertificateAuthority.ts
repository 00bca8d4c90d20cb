/**
 * A certificate authority of our own, and what it signs: ECDSA P-256, as PEM texts. It signs public keys, so that a
 * private key never leaves the process that made it.
 */
import "reflect-metadata"
import * as X509 from "@peculiar/x509"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { createPublicKey, randomBytes, webcrypto } from "node:crypto"

/** A key or certificate can't be read or made. `what` says which. */
export class CertificateError extends Schema.TaggedError<CertificateError>()("CertificateError", {
  what: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `${this.what} can't be used: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/** A key and its public half, as PEM texts (PKCS #8 and SPKI). */
export interface KeyPair {
  readonly key: Redacted.Redacted<string>
  readonly publicKey: string
}

/** A certificate and its key, as PEM texts. */
export interface Identity {
  readonly certificate: string
  readonly key: Redacted.Redacted<string>
}

/** A name that a certificate stands for. */
export interface SubjectName {
  readonly type: "dns" | "ip" | "url"
  readonly value: string
}

/** What is to be signed. */
export interface Request {
  /** PEM, SPKI. */
  readonly publicKey: string
  readonly commonName: string
  readonly names: ReadonlyArray<SubjectName>
  /** Which ends of a connection its owner may be; a peer refuses the certificate for any other. */
  readonly usages: ReadonlyArray<"server" | "client">
  readonly lifetimeMillis: number
}

/** Clocks that run behind still accept a fresh certificate. */
export const BACKDATE_MILLIS = 5 * 60_000

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const

/** Bytes of randomness in a serial number: RFC 5280 allows 20, a leading zero keeps it positive. */
const SERIAL_BYTES = 15

/** Longest PEM text of a public key that is looked at: ten times a P-256 key. */
const MAX_PUBLIC_KEY_LENGTH = 2048

const USAGES = { server: X509.ExtendedKeyUsage.serverAuth, client: X509.ExtendedKeyUsage.clientAuth } as const

const pem = (label: string, data: ArrayBuffer): string => X509.PemConverter.encode(data, label)

const serial = (): string => `00${randomBytes(SERIAL_BYTES).toString("hex")}`

const attempt = <A>(what: string, make: () => Promise<A>): Effect.Effect<A, CertificateError> =>
  Effect.tryPromise({ try: make, catch: (cause) => new CertificateError({ what, cause }) })

const exportKey = async ({ privateKey }: webcrypto.CryptoKeyPair): Promise<Redacted.Redacted<string>> =>
  Redacted.make(pem("PRIVATE KEY", await webcrypto.subtle.exportKey("pkcs8", privateKey)))

const importKey = (key: Redacted.Redacted<string>) => {
  const [data] = X509.PemConverter.decode(Redacted.value(key))
  if (data === undefined) throw new Error("it holds no key")
  return webcrypto.subtle.importKey("pkcs8", data, ALGORITHM, true, ["sign"])
}

const importPublicKey = async (text: string) => {
  // Node reads it first: it refuses what is no key, and keys that are none of ours
  if (text.length > MAX_PUBLIC_KEY_LENGTH) throw new Error(`it is longer than ${MAX_PUBLIC_KEY_LENGTH} characters`)
  const key = createPublicKey(text)
  if (key.asymmetricKeyDetails?.namedCurve !== "prime256v1") throw new Error("it is no key of the curve P-256")
  const data = key.export({ type: "spki", format: "der" })
  return webcrypto.subtle.importKey("spki", data, ALGORITHM, true, ["verify"])
}

const generate = () => webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"])

/** A fresh key. */
export const newKeyPair: Effect.Effect<KeyPair, CertificateError> = attempt("a new key", async () => {
  const keys = await generate()
  return {
    key: await exportKey(keys),
    publicKey: pem("PUBLIC KEY", await webcrypto.subtle.exportKey("spki", keys.publicKey))
  }
})

/** A fresh authority that signs certificates of others, and no further authorities. */
export const make = Effect.fn("CertificateAuthority.make")(function*(options: {
  readonly commonName: string
  readonly lifetimeMillis: number
}): Effect.fn.Return<Identity, CertificateError> {
  const now = yield* Clock.currentTimeMillis
  return yield* attempt("a new authority", async () => {
    const keys = await generate()
    const certificate = await X509.X509CertificateGenerator.createSelfSigned({
      serialNumber: serial(),
      name: `CN=${options.commonName}`,
      notBefore: new Date(now - BACKDATE_MILLIS),
      notAfter: new Date(now + options.lifetimeMillis),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new X509.BasicConstraintsExtension(true, 0, true),
        new X509.KeyUsagesExtension(X509.KeyUsageFlags.keyCertSign | X509.KeyUsageFlags.cRLSign, true),
        await X509.SubjectKeyIdentifierExtension.create(keys.publicKey)
      ]
    })
    return { certificate: certificate.toString("pem"), key: await exportKey(keys) }
  })
})

/** Signs; gives the certificate. Fails when the public key is none or the authority's own parts don't fit. */
export const sign = Effect.fn("CertificateAuthority.sign")(function*(
  authority: Identity,
  request: Request
): Effect.fn.Return<string, CertificateError> {
  const now = yield* Clock.currentTimeMillis
  const publicKey = yield* attempt("the public key", () => importPublicKey(request.publicKey))
  return yield* attempt("the authority", async () => {
    const issuer = new X509.X509Certificate(authority.certificate)
    const certificate = await X509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: `CN=${request.commonName}`,
      issuer: issuer.subject,
      notBefore: new Date(now - BACKDATE_MILLIS),
      notAfter: new Date(now + request.lifetimeMillis),
      signingAlgorithm: ALGORITHM,
      publicKey,
      signingKey: await importKey(authority.key),
      extensions: [
        new X509.BasicConstraintsExtension(false, undefined, true),
        new X509.KeyUsagesExtension(X509.KeyUsageFlags.digitalSignature, true),
        new X509.ExtendedKeyUsageExtension(request.usages.map((usage) => USAGES[usage])),
        new X509.SubjectAlternativeNameExtension([...request.names]),
        await X509.AuthorityKeyIdentifierExtension.create(issuer)
      ]
    })
    return certificate.toString("pem")
  })
})

/** A fresh key with a certificate for it. */
export const issue = Effect.fn("CertificateAuthority.issue")(function*(
  authority: Identity,
  request: Omit<Request, "publicKey">
): Effect.fn.Return<Identity, CertificateError> {
  const { key, publicKey } = yield* newKeyPair
  return { certificate: yield* sign(authority, { ...request, publicKey }), key }
})

/** Milliseconds since the epoch at which a certificate ends. */
export const endOf = (certificate: string): Effect.Effect<number, CertificateError> =>
  Effect.try({
    try: () => new X509.X509Certificate(certificate).notAfter.getTime(),
    catch: (cause) => new CertificateError({ what: "the certificate", cause })
  })
