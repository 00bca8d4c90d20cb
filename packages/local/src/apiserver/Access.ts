/**
 * Who makes a request, and whether they may: the administrator by the server's own token, service accounts by tokens
 * that the server signed, and what roles and bindings allow them. Asked for every request, and by reviews.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import { createHash, timingSafeEqual } from "node:crypto"
import * as ApiStatus from "./ApiStatus.ts"
import type { Identity } from "./Identity.ts"
import type { Outcome } from "./Intent.ts"
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import * as Rbac from "./Rbac.ts"
import { keyOf } from "./ResourceType.ts"
import * as ServiceAccountTokens from "./ServiceAccountTokens.ts"
import { Store, type StoreShape, unlimited } from "./Store.ts"

/** Who may do everything, and alone may change roles and bindings: nobody can give more than they have. */
const masters = "system:masters"

/** Everybody who proved who they are. */
const authenticated = "system:authenticated"

/** The user behind the server's own token. */
export const administrator: Rbac.User = {
  username: "fast-sandbox:administrator",
  uid: "fast-sandbox-administrator",
  groups: [masters, authenticated],
  extra: {}
}

/** What upstream lets everybody do who proved who they are: look at what is served, and ask about oneself. */
const basics: ReadonlyArray<JsonObject> = [
  {
    verbs: ["get"],
    nonResourceURLs: [
      "/",
      "/api",
      "/api/*",
      "/apis",
      "/apis/*",
      "/healthz",
      "/livez",
      "/readyz",
      "/openapi/*",
      "/version"
    ]
  },
  {
    verbs: ["create"],
    apiGroups: ["authorization.k8s.io", "authentication.k8s.io"],
    resources: ["selfsubjectaccessreviews", "selfsubjectreviews"]
  }
]

/** Tokens live at least this long, an hour when nobody says, and a day at most, in seconds. */
const lifetimes = { min: 600, usual: 3600, max: 86_400 } as const

/** What a bearer is. */
export interface Bearer {
  readonly user: Rbac.User
  /** Whom the token is for; absent: for everybody. */
  readonly audiences: ReadonlyArray<string> | undefined
}

/** The decisions of one server. */
export interface Access {
  /** Who a token stands for; none for strangers and for what has ended. */
  readonly bearer: (token: string) => Option.Option<Bearer>
  /** Who makes a request with this `authorization` header. */
  readonly authenticate: (header: string | undefined) => Outcome<Rbac.User>
  readonly isAllowed: (user: Rbac.User, wanted: Rbac.Attributes) => boolean
  readonly authorize: (user: Rbac.User, wanted: Rbac.Attributes) => Outcome<void>
  /** Answers a TokenRequest for an account. */
  readonly issue: (namespace: string, account: string, request: JsonObject) => Outcome<JsonObject>
}

const bearerPrefix = "Bearer "

const digest = (text: string): Buffer => createHash("sha256").update(text).digest()

const rbacKinds = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"].map((plural) =>
  keyOf(Rbac.group, plural)
)

const readPolicy = (store: StoreShape): Rbac.Policy => {
  const [clusterRoles = [], roles = [], clusterRoleBindings = [], roleBindings = []] = rbacKinds.map((resource) =>
    store.list({ resource, limit: unlimited }).map(({ body }) => Json.parseTrusted(body))
  )
  const name = (object: JsonObject) => Json.stringAt(object, "metadata", "name") ?? ""
  return {
    clusterRoles: new Map(clusterRoles.map((role) => [name(role), role])),
    roles: new Map(roles.map((role) => [`${Json.stringAt(role, "metadata", "namespace") ?? ""}/${name(role)}`, role])),
    clusterRoleBindings,
    roleBindings
  }
}

const describe = ({ username }: Rbac.User, wanted: Rbac.Attributes): ApiStatus.ApiStatus => {
  if (wanted._tag === "Path") {
    const subject = { group: "", kind: "", plural: wanted.path }
    return ApiStatus.forbidden(subject, "", `User "${username}" cannot ${wanted.verb} path "${wanted.path}"`)
  }
  const { group, name, namespace, resource, subresource, verb } = wanted
  const scope = namespace === "" ? "at the cluster scope" : `in the namespace "${namespace}"`
  const full = subresource === "" ? resource : `${resource}/${subresource}`
  return ApiStatus.forbidden(
    { group, kind: resource, plural: full },
    name,
    `User "${username}" cannot ${verb} resource "${full}" in API group "${group}" ${scope}`
  )
}

/** The decisions over what is stored. */
export const make = Effect.fnUntraced(function*(identity: Identity) {
  const store = yield* Store
  const clock = yield* Clock.Clock
  const expected = digest(identity.token)
  let policy: Rbac.Policy | undefined
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      store.subscribe(({ resources }) => {
        if (rbacKinds.some((kind) => resources.has(kind))) policy = undefined
      })
    ),
    (stop) => Effect.sync(stop)
  )

  const uidOf = (resource: string, namespace: string, name: string): string | undefined => {
    const stored = store.get({ resource, namespace, name })
    return stored === undefined ? undefined : Json.stringAt(Json.parseTrusted(stored.body), "metadata", "uid")
  }

  /** Whether an object is still the one that a token names. */
  const isThere = (resource: string, namespace: string, { name, uid }: ServiceAccountTokens.Bound) =>
    uidOf(resource, namespace, name) === uid

  const bearer: Access["bearer"] = (token) => {
    if (timingSafeEqual(digest(token), expected)) return Option.some({ user: administrator, audiences: undefined })
    return Option.map(
      Option.filter(
        ServiceAccountTokens.read(identity.tokenKey, token, clock.currentTimeMillisUnsafe()),
        ({ "kubernetes.io": { namespace, pod, serviceaccount } }) =>
          isThere("serviceaccounts", namespace, serviceaccount) &&
          (pod === undefined || isThere("pods", namespace, pod))
      ),
      ({ aud, "kubernetes.io": { namespace, pod, serviceaccount }, sub }) => ({
        audiences: aud,
        user: {
          username: sub,
          uid: serviceaccount.uid,
          groups: ["system:serviceaccounts", `system:serviceaccounts:${namespace}`, authenticated],
          extra: pod === undefined ? {} : {
            "authentication.kubernetes.io/pod-name": [pod.name],
            "authentication.kubernetes.io/pod-uid": [pod.uid]
          }
        }
      })
    )
  }

  const isAllowed: Access["isAllowed"] = (user, wanted) => {
    if (user.groups.includes(masters)) return true
    if (wanted._tag === "Resource" && wanted.group === Rbac.group && !["get", "list", "watch"].includes(wanted.verb)) {
      return false
    }
    if (user.groups.includes(authenticated) && basics.some((rule) => Rbac.allows(rule, wanted))) return true
    policy ??= readPolicy(store)
    return Rbac.isAllowed(policy, user, wanted)
  }

  const issue: Access["issue"] = (namespace, account, request) =>
    Result.gen(function*() {
      const subject = { group: "", kind: "ServiceAccount", plural: "serviceaccounts" }
      const uid = uidOf("serviceaccounts", namespace, account)
      if (uid === undefined) return yield* Result.fail(ApiStatus.notFound(subject, account))
      const seconds = Json.numberAt(request, "spec", "expirationSeconds") ?? lifetimes.usual
      if (!Number.isInteger(seconds) || seconds < lifetimes.min) {
        return yield* Result.fail(ApiStatus.invalid(subject, account, [
          ApiStatus.invalidValue("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
        ]))
      }
      const pod = Json.stringAt(request, "spec", "boundObjectRef", "name")
      const podUid = pod === undefined ? undefined : uidOf("pods", namespace, pod)
      if (pod !== undefined && podUid === undefined) {
        return yield* Result.fail(ApiStatus.notFound({ group: "", kind: "Pod", plural: "pods" }, pod))
      }
      const nowMillis = clock.currentTimeMillisUnsafe()
      const expirationSeconds = Math.min(seconds, lifetimes.max)
      const audiences = Json.arrayAt(request, "spec", "audiences").filter((value) => typeof value === "string")
      const token = ServiceAccountTokens.sign(identity.tokenKey, {
        namespace,
        account: { name: account, uid },
        pod: pod === undefined || podUid === undefined ? undefined : { name: pod, uid: podUid },
        audiences: audiences.length === 0 ? [ServiceAccountTokens.issuer] : audiences,
        nowMillis,
        expirationSeconds
      })
      return {
        ...request,
        kind: "TokenRequest",
        apiVersion: "authentication.k8s.io/v1",
        metadata: { name: account, namespace },
        status: { token, expirationTimestamp: new Date(nowMillis + expirationSeconds * 1000).toISOString() }
      }
    })

  return {
    bearer,
    authenticate: (header) => {
      const found = header?.startsWith(bearerPrefix) === true
        ? bearer(header.slice(bearerPrefix.length).trim())
        : Option.none()
      return Option.match(
        // a token for another program is none for this server
        Option.filter(
          found,
          ({ audiences }) => audiences === undefined || audiences.includes(ServiceAccountTokens.issuer)
        ),
        { onNone: () => Result.fail(ApiStatus.unauthorized), onSome: ({ user }) => Result.succeed(user) }
      )
    },
    isAllowed,
    authorize: (user, wanted) =>
      isAllowed(user, wanted) ? Result.succeed(undefined) : Result.fail(describe(user, wanted)),
    issue
  } satisfies Access
})
