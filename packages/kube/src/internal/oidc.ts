/**
 * Tokens of an OpenID Connect issuer, as users of kubeconfig files name them: the ID token that is there as long as it is
 * valid, then a new one for the refresh token. Loaded for such users only. client-node can do this as well, but its
 * module brings all of the Kubernetes API along, which every program would carry in its bundle.
 */
import * as Https from "node:https"
import * as Oidc from "openid-client"

/** What the user's `auth-provider` says. `ca` is PEM encoded. */
export interface OidcUser {
  readonly idToken: string
  readonly refreshToken: string | undefined
  readonly clientId: string | undefined
  readonly clientSecret: string | undefined
  readonly issuer: string | undefined
  readonly ca: string | undefined
}

/** A token is renewed this long before it expires, in seconds: a request takes a while to arrive. */
const renewBeforeSeconds = 10

const millisPerSecond = 1000

/** Silence after which an issuer is taken for gone. */
const timeoutMillis = 10_000

/** The instant at which a token expires, in milliseconds since the epoch; 0 when it does not say. */
const expiryOf = (token: string): number => {
  const [, payload = ""] = token.split(".")
  try {
    const { exp }: { readonly exp?: unknown } = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"))
    return typeof exp === "number" ? exp * millisPerSecond : 0
  } catch {
    return 0
  }
}

/** Trusts the issuer's own authority only, for discovery and for tokens. */
const fetchWith = (ca: string): Oidc.CustomFetch => (url, { body, headers, method }) =>
  new Promise((resolve, reject) => {
    const request = Https.request(url, { method, headers, ca, timeout: timeoutMillis }, (answer) => {
      const chunks: Array<Buffer> = []
      answer.on("data", (chunk: Buffer) => chunks.push(chunk)).on("error", reject).on("end", () =>
        resolve(
          new Response(Buffer.concat(chunks), {
            status: answer.statusCode ?? 0,
            headers: { "content-type": answer.headers["content-type"] ?? "" }
          })
        ))
    })
    request.on("timeout", () => request.destroy(new Error(`${url} does not answer`)))
    request.on("error", reject).end(body === undefined || body === null ? undefined : String(body))
  })

const discover = (user: OidcUser, issuer: string, clientId: string): Promise<Oidc.Configuration> =>
  Oidc.discovery(
    new URL(issuer),
    clientId,
    undefined,
    user.clientSecret === undefined ? Oidc.None() : Oidc.ClientSecretPost(user.clientSecret),
    user.ca === undefined ? {} : { [Oidc.customFetch]: fetchWith(user.ca) }
  )

/** Gives the current token; to be called once at a time. */
export const make = (user: OidcUser): () => Promise<string> => {
  let { idToken, refreshToken } = user
  let configuration: Oidc.Configuration | undefined
  return async () => {
    const { clientId, issuer } = user
    if (Date.now() < expiryOf(idToken) - renewBeforeSeconds * millisPerSecond) return idToken
    if (refreshToken === undefined || clientId === undefined || issuer === undefined) {
      throw new Error(
        "the ID token has expired, and there is no refresh-token, client-id or idp-issuer-url to renew it"
      )
    }
    configuration ??= await discover(user, issuer, clientId)
    const renewed = await Oidc.refreshTokenGrant(configuration, refreshToken)
    if (renewed.id_token === undefined) throw new Error(`${issuer} gave no ID token for the refresh token`)
    idToken = renewed.id_token
    refreshToken = renewed.refresh_token ?? refreshToken
    return idToken
  }
}
