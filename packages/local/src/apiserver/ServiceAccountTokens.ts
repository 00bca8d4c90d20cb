/**
 * Tokens of service accounts: JSON Web Tokens that this server signs with a key of its own and nobody else reads, so
 * HMAC is enough. A token names one incarnation of an account, ends by itself, and is for the audiences that it names.
 */
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { createHmac, timingSafeEqual } from "node:crypto"

/** Who issues the tokens, and whom a token is for that names no audience. */
export const issuer = "https://kubernetes.default.svc"

const Bound = Schema.Struct({ name: Schema.String, uid: Schema.String })

/** One incarnation of an object that a token is bound to. */
export type Bound = typeof Bound.Type

/** What a token says. Times are in seconds since the epoch. */
const Claims = Schema.Struct({
  iss: Schema.Literal(issuer),
  sub: Schema.String,
  aud: Schema.Array(Schema.String),
  iat: Schema.Number,
  exp: Schema.Number,
  "kubernetes.io": Schema.Struct({
    namespace: Schema.String,
    serviceaccount: Bound,
    pod: Schema.optionalKey(Bound)
  })
})

/** What a token says. Times are in seconds since the epoch. */
export type Claims = typeof Claims.Type

const decodeClaims = Schema.decodeUnknownOption(Schema.fromJsonString(Claims))

/** Longest token that is looked at, in characters: ours have some 700. */
const maxLength = 8192

const millisPerSecond = 1000

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url")

const header = encode({ alg: "HS256", typ: "JWT" })

const signature = (key: Redacted.Redacted, text: string): Buffer =>
  createHmac("sha256", Redacted.value(key)).update(text).digest()

/** The name of an account's user. */
export const usernameOf = (namespace: string, name: string): string => `system:serviceaccount:${namespace}:${name}`

/** What is to be in a token. */
export interface TokenRequest {
  readonly namespace: string
  readonly account: Bound
  /** The token ends with it. */
  readonly pod?: Bound | undefined
  readonly audiences: ReadonlyArray<string>
  readonly nowMillis: number
  readonly expirationSeconds: number
}

/** A signed token. */
export const sign = (key: Redacted.Redacted, request: TokenRequest): string => {
  const now = Math.floor(request.nowMillis / millisPerSecond)
  const claims: Claims = {
    iss: issuer,
    sub: usernameOf(request.namespace, request.account.name),
    aud: request.audiences,
    iat: now,
    exp: now + request.expirationSeconds,
    "kubernetes.io": {
      namespace: request.namespace,
      serviceaccount: request.account,
      ...(request.pod === undefined ? {} : { pod: request.pod })
    }
  }
  const text = `${header}.${encode(claims)}`
  return `${text}.${signature(key, text).toString("base64url")}`
}

/** What a token says, if it was signed with the key and has not ended. */
export const read = (key: Redacted.Redacted, token: string, nowMillis: number): Option.Option<Claims> => {
  const [head, body, signed, ...more] = token.length > maxLength ? [] : token.split(".")
  if (head !== header || body === undefined || signed === undefined || more.length > 0) return Option.none()
  const given = Buffer.from(signed, "base64url")
  const expected = signature(key, `${head}.${body}`)
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return Option.none()
  return Option.filter(
    decodeClaims(Buffer.from(body, "base64url").toString()),
    ({ exp }) => exp * millisPerSecond > nowMillis
  )
}
