/** What roles and bindings allow, as a table. */
import { assert, describe, it } from "@effect/vitest"
import type { JsonObject } from "@fast-sandbox/local/apiserver/Json"
import * as Rbac from "@fast-sandbox/local/apiserver/Rbac"

const alice: Rbac.User = { username: "alice", uid: "1", groups: ["devs"], extra: {} }
const robot: Rbac.User = { username: "system:serviceaccount:one:robot", uid: "2", groups: [], extra: {} }

const role = (name: string, rules: ReadonlyArray<JsonObject>, namespace?: string): JsonObject => ({
  metadata: namespace === undefined ? { name } : { name, namespace },
  rules
})

const binding = (kind: string, name: string, subjects: ReadonlyArray<JsonObject>, namespace?: string): JsonObject => ({
  metadata: namespace === undefined ? { name } : { name, namespace },
  roleRef: { kind, name },
  subjects
})

const group = "sandbox.fast.io"

const policy: Rbac.Policy = {
  clusterRoles: new Map([
    ["reader", role("reader", [{ verbs: ["get", "list"], apiGroups: [group], resources: ["sandboxes", "*/log"] }])],
    ["paths", role("paths", [{ verbs: ["get"], nonResourceURLs: ["/metrics", "/debug/*"] }])]
  ]),
  roles: new Map([
    ["one/editor", role("editor", [{ verbs: ["*"], apiGroups: ["*"], resources: ["*"] }], "one")],
    [
      "two/one-name",
      role("one-name", [
        { verbs: ["get"], apiGroups: [group], resources: ["sandboxes"], resourceNames: ["mine"] }
      ], "two")
    ]
  ]),
  clusterRoleBindings: [
    binding("ClusterRole", "paths", [{ kind: "Group", name: "devs" }]),
    // a Role can't be bound for the whole cluster
    binding("Role", "editor", [{ kind: "User", name: "alice" }])
  ],
  roleBindings: [
    binding("ClusterRole", "reader", [{ kind: "User", name: "alice" }], "one"),
    binding("Role", "editor", [{ kind: "ServiceAccount", name: "robot" }], "one"),
    binding("Role", "one-name", [{ kind: "User", name: "alice" }], "two")
  ]
}

const on = (verb: string, resource: string, namespace: string, name = "", of = group): Rbac.Attributes => {
  const [plural = "", subresource = ""] = resource.split("/")
  return { _tag: "Resource", verb, group: of, resource: plural, subresource, namespace, name }
}

const at = (path: string): Rbac.Attributes => ({ _tag: "Path", verb: "get", path })

const table: ReadonlyArray<readonly [string, Rbac.User, Rbac.Attributes, boolean]> = [
  ["a ClusterRole, in the namespace of its RoleBinding", alice, on("get", "sandboxes", "one"), true],
  ["the same in another namespace", alice, on("get", "sandboxes", "two"), false],
  ["the same in all namespaces", alice, on("list", "sandboxes", ""), false],
  ["a verb that is not in the rule", alice, on("create", "sandboxes", "one"), false],
  ["a subresource by `*/log`", alice, on("get", "sandboxes/log", "one"), true],
  ["a subresource that the resource does not include", alice, on("get", "sandboxes/exec", "one"), false],
  ["everything in one namespace, by a service account", robot, on("delete", "sandboxes/exec", "one"), true],
  ["the same in another one", robot, on("get", "sandboxes", "two"), false],
  ["an object by its name", alice, on("get", "sandboxes", "two", "mine"), true],
  ["another object", alice, on("get", "sandboxes", "two", "yours"), false],
  ["no object, where only a name is allowed", alice, on("get", "sandboxes", "two"), false],
  ["another group", alice, on("get", "sandboxes", "one", "", ""), false],
  ["a path", alice, at("/metrics"), true],
  ["a path below", alice, at("/debug/heap"), true],
  ["another path", alice, at("/metricsandmore"), false],
  ["a path for who is not bound", robot, at("/metrics"), false]
]

describe("roles and bindings", () => {
  for (const [what, user, wanted, expected] of table) {
    it(`${expected ? "allow" : "deny"} ${what}`, () =>
      assert.strictEqual(Rbac.isAllowed(policy, user, wanted), expected))
  }
})
