/**
 * What the roles and bindings of `rbac.authorization.k8s.io` allow: a pure decision over the four kinds. Aggregated
 * ClusterRoles are not resolved: their rules are what their `rules` say.
 */
import * as Json from "./Json.ts"
import type { JsonObject } from "./Json.ts"
import { usernameOf } from "./ServiceAccountTokens.ts"

/** Who asks. */
export interface User {
  readonly username: string
  readonly uid: string
  readonly groups: ReadonlyArray<string>
  readonly extra: Readonly<Record<string, ReadonlyArray<string>>>
}

/** What is asked for: a verb on a resource, or on a path that is none. */
export type Attributes =
  | {
    readonly _tag: "Resource"
    readonly verb: string
    readonly group: string
    readonly resource: string
    readonly subresource: string
    /** Empty: all namespaces, or a cluster-scoped kind. */
    readonly namespace: string
    /** Empty: no object in particular. */
    readonly name: string
  }
  | { readonly _tag: "Path"; readonly verb: string; readonly path: string }

/** The roles and bindings of a cluster; the namespaced ones by `namespace/name`. */
export interface Policy {
  readonly clusterRoles: ReadonlyMap<string, JsonObject>
  readonly roles: ReadonlyMap<string, JsonObject>
  readonly clusterRoleBindings: ReadonlyArray<JsonObject>
  readonly roleBindings: ReadonlyArray<JsonObject>
}

/** The API group of the four kinds. */
export const group = "rbac.authorization.k8s.io"

const all = "*"

const strings = (rule: Json.Json, field: string): ReadonlyArray<string> =>
  Json.arrayAt(rule, field).filter((value) => typeof value === "string")

const includes = (list: ReadonlyArray<string>, value: string): boolean => list.includes(all) || list.includes(value)

const coversPath = (pattern: string, path: string): boolean =>
  pattern === all || pattern === path || (pattern.endsWith(all) && path.startsWith(pattern.slice(0, -1)))

const coversResource = (rule: Json.Json, { resource, subresource }: Attributes & { readonly _tag: "Resource" }) => {
  const resources = strings(rule, "resources")
  return subresource === ""
    ? includes(resources, resource)
    : includes(resources, `${resource}/${subresource}`) || resources.includes(`*/${subresource}`)
}

/** Whether one rule allows it. */
export const allows = (rule: Json.Json, wanted: Attributes): boolean => {
  if (!includes(strings(rule, "verbs"), wanted.verb)) return false
  if (wanted._tag === "Path") return strings(rule, "nonResourceURLs").some((url) => coversPath(url, wanted.path))
  const names = strings(rule, "resourceNames")
  return includes(strings(rule, "apiGroups"), wanted.group) && coversResource(rule, wanted) &&
    (names.length === 0 || names.includes(wanted.name))
}

const isBoundTo = (binding: JsonObject, { groups, username }: User): boolean =>
  Json.arrayAt(binding, "subjects").some((subject) => {
    const name = Json.stringAt(subject, "name") ?? ""
    switch (Json.stringAt(subject, "kind")) {
      case "User":
        return name === username
      case "Group":
        return groups.includes(name)
      case "ServiceAccount":
        return usernameOf(
          Json.stringAt(subject, "namespace") ?? Json.stringAt(binding, "metadata", "namespace") ?? "",
          name
        ) === username
      default:
        return false
    }
  })

const rulesOf = (policy: Policy, binding: JsonObject): ReadonlyArray<Json.Json> => {
  const name = Json.stringAt(binding, "roleRef", "name") ?? ""
  const namespace = Json.stringAt(binding, "metadata", "namespace")
  switch (Json.stringAt(binding, "roleRef", "kind")) {
    case "ClusterRole":
      return Json.arrayAt(policy.clusterRoles.get(name), "rules")
    case "Role":
      return namespace === undefined ? [] : Json.arrayAt(policy.roles.get(`${namespace}/${name}`), "rules")
    default:
      return []
  }
}

/** Whether any binding of the user allows it. What nothing allows is denied. */
export const isAllowed = (policy: Policy, user: User, wanted: Attributes): boolean => {
  const grants = (binding: JsonObject): boolean =>
    isBoundTo(binding, user) && rulesOf(policy, binding).some((rule) => allows(rule, wanted))
  return policy.clusterRoleBindings.some(grants) ||
    (wanted._tag === "Resource" && wanted.namespace !== "" &&
      policy.roleBindings.some((binding) =>
        Json.stringAt(binding, "metadata", "namespace") === wanted.namespace && grants(binding)
      ))
}
