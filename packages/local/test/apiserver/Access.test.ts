/** Service accounts at the server: their tokens, what roles let them do, and reviews of both. */
import { assert, describe, layer } from "@effect/vitest"
import type { JsonObject } from "@fast-sandbox/local/apiserver/Json"
import * as ServiceAccountTokens from "@fast-sandbox/local/apiserver/ServiceAccountTokens"
import { Clock, Effect, Redacted } from "effect"
import { readFileSync } from "node:fs"
import { at, freshNamespace, objectAt, type RequestExtras, stringAt, TestServer } from "./TestServer.ts"

const post = Effect.fnUntraced(function*(path: string, body: JsonObject, extras: RequestExtras = {}) {
  const { request } = yield* TestServer
  return yield* request("POST", path, { ...extras, body })
})

const created = (path: string, body: JsonObject) =>
  Effect.tap(post(path, body), ({ code, text }) => Effect.sync(() => assert.strictEqual(code, 201, text)))

const accounts = (namespace: string) => `/api/v1/namespaces/${namespace}/serviceaccounts`

/** A namespace with a service account; gives a token of it. */
const account = Effect.fnUntraced(function*(name: string, spec: JsonObject = {}) {
  const namespace = yield* freshNamespace("access")
  const { body } = yield* created(accounts(namespace), { metadata: { name } })
  const issued = yield* created(`${accounts(namespace)}/${name}/token`, { spec })
  return {
    namespace,
    uid: stringAt(body, "metadata", "uid") ?? "",
    token: stringAt(issued.body, "status", "token") ?? ""
  }
})

const rbac = "/apis/rbac.authorization.k8s.io/v1"

const grant = Effect.fnUntraced(function*(namespace: string, name: string, rule: JsonObject) {
  yield* created(`${rbac}/namespaces/${namespace}/roles`, { metadata: { name: "r" }, rules: [rule] })
  yield* created(`${rbac}/namespaces/${namespace}/rolebindings`, {
    metadata: { name: "r" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "r" },
    subjects: [{ kind: "ServiceAccount", name, namespace }]
  })
})

const reviews = "/apis/authentication.k8s.io/v1/tokenreviews"

const review = (token: string, audiences: ReadonlyArray<string> = []) =>
  Effect.map(created(reviews, { spec: { token, audiences } }), ({ body }) => body)

const mayList = (token: string, namespace: string) =>
  Effect.map(
    TestServer.use(({ request }) => request("GET", `/api/v1/namespaces/${namespace}/configmaps`, { token })),
    ({ code }) => code
  )

describe("service accounts", () => {
  layer(TestServer.layer, { excludeTestServices: true })((it) => {
    it.effect("may do what roles in their namespace allow, and nothing elsewhere", () =>
      Effect.gen(function*() {
        const { namespace, token } = yield* account("robot")
        const other = yield* freshNamespace("other")
        assert.strictEqual(yield* mayList(token, namespace), 403)
        yield* grant(namespace, "robot", { verbs: ["list"], apiGroups: [""], resources: ["configmaps"] })
        assert.strictEqual(yield* mayList(token, namespace), 200)
        assert.strictEqual(yield* mayList(token, other), 403)
        const denied = yield* post(`/api/v1/namespaces/${namespace}/configmaps`, { metadata: { name: "a" } }, { token })
        assert.strictEqual(denied.code, 403)
        assert.include(
          stringAt(denied.body, "message"),
          `User "system:serviceaccount:${namespace}:robot" cannot create resource "configmaps"`
        )
        // an apply that makes something is a create as well
        const { request } = yield* TestServer
        yield* grant(other, "robot", { verbs: ["patch"], apiGroups: [""], resources: ["configmaps"] })
        const applied = yield* request("PATCH", `/api/v1/namespaces/${other}/configmaps/a?fieldManager=t`, {
          token,
          contentType: "application/apply-patch+yaml",
          body: { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a" } }
        })
        assert.strictEqual(applied.code, 403)
        yield* request("DELETE", `${rbac}/namespaces/${namespace}/rolebindings/r`)
        assert.strictEqual(yield* mayList(token, namespace), 403)
      }))

    it.effect("can't give themselves more than they have", () =>
      Effect.gen(function*() {
        const { namespace, token } = yield* account("climber")
        yield* grant(namespace, "climber", { verbs: ["*"], apiGroups: ["*"], resources: ["*"] })
        const path = `${rbac}/namespaces/${namespace}/rolebindings`
        const { code } = yield* post(path, {
          metadata: { name: "more" },
          roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "any" },
          subjects: [{ kind: "ServiceAccount", name: "climber" }]
        }, { token })
        assert.strictEqual(code, 403)
        const { request } = yield* TestServer
        const changed = yield* request("PATCH", `${path}/r`, {
          contentType: "application/merge-patch+json",
          body: { roleRef: { name: "other" } }
        })
        assert.strictEqual(changed.code, 422)
        assert.strictEqual((yield* request("GET", path, { token })).code, 200)
      }))

    it.effect("are known by their tokens until those end", () =>
      Effect.gen(function*() {
        const { namespace, token, uid } = yield* account("known")
        const known = yield* review(token)
        assert.deepStrictEqual(objectAt(known, "status", "user"), {
          username: `system:serviceaccount:${namespace}:known`,
          uid,
          groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, "system:authenticated"]
        })
        assert.isUndefined(at(known, "spec", "token"))
        const { dataDirectory, request } = yield* TestServer
        const key = Redacted.make(readFileSync(`${dataDirectory}/serviceaccounts.key`, "utf8"))
        const nowMillis = yield* Clock.currentTimeMillis
        const forge = (changes: Partial<ServiceAccountTokens.TokenRequest>, signer = key) =>
          ServiceAccountTokens.sign(signer, {
            namespace,
            account: { name: "known", uid },
            audiences: [ServiceAccountTokens.issuer],
            nowMillis,
            expirationSeconds: 60,
            ...changes
          })
        const accepts = (token: string) => Effect.map(review(token), (body) => at(body, "status", "authenticated"))
        assert.isTrue(yield* accepts(forge({})))
        assert.isFalse(yield* accepts(forge({ nowMillis: nowMillis - 61_000 })))
        assert.isFalse(yield* accepts(forge({}, Redacted.make("another key"))))
        assert.isFalse(yield* accepts(forge({ account: { name: "known", uid: "an older one's" } })))
        assert.isFalse(yield* accepts(forge({ pod: { name: "gone", uid: "1" } })))
        assert.isFalse(yield* accepts(`${token}x`))
        assert.isFalse(yield* accepts(token.replace(/^[^.]*/, Buffer.from("{\"alg\":\"none\"}").toString("base64url"))))
        assert.isFalse(yield* accepts(""))
        yield* request("DELETE", `${accounts(namespace)}/known`)
        assert.isFalse(yield* accepts(token))
        assert.strictEqual((yield* request("GET", "/version", { token })).code, 401)
      }))

    it.effect("have tokens for some audiences only", () =>
      Effect.gen(function*() {
        const { namespace, token } = yield* account("guest", { audiences: ["fast-sandbox"], expirationSeconds: 600 })
        assert.isFalse(at(yield* review(token), "status", "authenticated"))
        const known = yield* review(token, ["fast-sandbox", "else"])
        assert.deepStrictEqual(at(known, "status", "audiences"), ["fast-sandbox"])
        // a token for somebody else opens nothing here
        assert.strictEqual(yield* mayList(token, namespace), 401)
        const short = yield* post(`${accounts(namespace)}/guest/token`, { spec: { expirationSeconds: 5 } })
        assert.strictEqual(short.code, 422)
        assert.strictEqual((yield* post(`${accounts(namespace)}/nobody/token`, {})).code, 404)
      }))

    it.effect("are told what they may do", () =>
      Effect.gen(function*() {
        const { namespace, token } = yield* account("asking")
        yield* grant(namespace, "asking", {
          verbs: ["create"],
          apiGroups: ["sandbox.fast.io"],
          resources: ["sandboxes/exec"]
        })
        const resourceAttributes = {
          verb: "create",
          group: "sandbox.fast.io",
          resource: "sandboxes",
          subresource: "exec",
          namespace
        }
        const path = "/apis/authorization.k8s.io/v1"
        const asked = (attributes: JsonObject) =>
          Effect.map(
            post(`${path}/selfsubjectaccessreviews`, { spec: { resourceAttributes: attributes } }, { token }),
            ({ body }) => at(body, "status", "allowed")
          )
        assert.isTrue(yield* asked(resourceAttributes))
        assert.isFalse(yield* asked({ ...resourceAttributes, subresource: "" }))
        const about = yield* created(`${path}/subjectaccessreviews`, {
          spec: { user: `system:serviceaccount:${namespace}:asking`, resourceAttributes }
        })
        assert.isTrue(at(about.body, "status", "allowed"))
        // to ask about others takes a right of its own
        assert.strictEqual((yield* post(`${path}/subjectaccessreviews`, { spec: {} }, { token })).code, 403)
        assert.strictEqual((yield* post(reviews, { spec: { token } }, { token })).code, 403)
      }))
  })
})
