import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import * as CertificateAuthority from "@fast-sandbox/grpc/CertificateAuthority"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { Clock, Effect, FileSystem, Redacted } from "effect"
import { createServer } from "node:https"

const lifetimeMillis = 60 * 60 * 1000

const segment = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url")

/** A token as an issuer makes it, but for the signature, which nobody here looks at: it came over TLS. */
const idToken = (issuer: string, serial: number, expiresAtMillis: number): string =>
  [
    segment({ alg: "RS256" }),
    segment({ iss: issuer, aud: "fsb", sub: "me", iat: 0, exp: Math.floor(expiresAtMillis / 1000), serial }),
    "c2ln"
  ].join(".")

/** An issuer behind TLS of its own authority; each refresh gives a new token and a new refresh token, once. */
const issuer = Effect.gen(function*() {
  const authority = yield* CertificateAuthority.make({ commonName: "authority", lifetimeMillis })
  const { certificate, key } = yield* CertificateAuthority.issue(authority, {
    commonName: "issuer",
    names: [{ type: "ip", value: "127.0.0.1" }],
    usages: ["server"],
    lifetimeMillis
  })
  const now = yield* Clock.currentTimeMillis
  let serial = 0
  let url = ""
  const server = createServer({ cert: certificate, key: Redacted.value(key) }, (request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
      response.setHeader("content-type", "application/json")
      const token = new URLSearchParams(Buffer.concat(chunks).toString()).get("refresh_token")
      if (request.method === "GET") {
        return response.end(JSON.stringify({ issuer: url, token_endpoint: `${url}/token` }))
      }
      if (token !== `refresh-${serial}`) {
        response.statusCode = 400
        return response.end(JSON.stringify({ error: "invalid_grant" }))
      }
      serial++
      return response.end(JSON.stringify({
        access_token: "unused",
        token_type: "bearer",
        refresh_token: `refresh-${serial}`,
        // The first one is as good as expired.
        id_token: idToken(url, serial, now + (serial === 1 ? 1_000 : lifetimeMillis))
      }))
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () => Effect.sync(() => server.close().closeAllConnections())
  )
  const address = server.address()
  url = `https://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`
  return { url, ca: authority.certificate, asked: () => serial }
})

const serialOf = (authorization = ""): unknown =>
  JSON.parse(Buffer.from(authorization.split(".")[1] ?? "", "base64url").toString()).serial

describe("users of an OpenID Connect issuer", () => {
  it.live("have the token that is there until it expires, and a renewed one then", () =>
    Effect.gen(function*() {
      const { asked, ca, url } = yield* issuer
      const files = yield* FileSystem.FileSystem
      const directory = yield* files.makeTempDirectoryScoped({ prefix: "oidc-" })
      yield* files.writeFileString(`${directory}/ca.crt`, ca)
      const load = (token: string, refresh: string) =>
        Effect.gen(function*() {
          const config = {
            "client-id": "fsb",
            "id-token": token,
            "refresh-token": refresh,
            "idp-issuer-url": url,
            "idp-certificate-authority": "ca.crt"
          }
          yield* files.writeFileString(
            `${directory}/config`,
            JSON.stringify({
              clusters: [{ name: "c", cluster: { server: "https://one:6443" } }],
              users: [{ name: "u", user: { "auth-provider": { name: "oidc", config } } }],
              contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
              "current-context": "x"
            })
          )
          return yield* KubeConfig.pipe(Effect.provide(KubeConfig.layerFile(`${directory}/config`), { local: true }))
        })
      const now = yield* Clock.currentTimeMillis

      const valid = yield* load(idToken(url, 0, now + lifetimeMillis), "refresh-0")
      assert.strictEqual(serialOf((yield* valid.credentials).headers["authorization"]), 0)
      assert.strictEqual(asked(), 0)

      const expired = yield* load(idToken(url, 0, now - 1_000), "refresh-0")
      const both = yield* Effect.all([expired.credentials, expired.credentials], { concurrency: 2 })
      assert.deepStrictEqual(both.map(({ headers }) => serialOf(headers["authorization"])), [1, 2])
      assert.strictEqual(serialOf((yield* expired.credentials).headers["authorization"]), 2)
      assert.strictEqual(asked(), 2)

      const refused = yield* load(idToken(url, 0, now - 1_000), "stolen")
      const error = yield* Effect.flip(refused.credentials)
      assert.strictEqual(error._tag, "KubeConfigError")
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
