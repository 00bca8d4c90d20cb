/** The table of what each call has to be allowed. */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import * as FastPath from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import {
  CopyFromRequestSchema,
  DirectCopyRequestSchema,
  ExecRequestSchema
} from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import * as AccessRules from "../../src/access/AccessRules.ts"

const asked = (method: string, request: Parameters<typeof AccessRules.wanted>[1]): string => {
  const wanted = AccessRules.wanted(method, request)
  if (wanted === undefined) return "refused"
  if (wanted === "nothing") return "open"
  const { name, namespace, resource, subresource, verb } = wanted
  return `${verb} ${resource}/${subresource} in ${namespace || "all"}: ${name || "any"}`
}

describe("access rules", () => {
  it("know every call of the API", () => {
    const missing = FastPath.FastPathService.methods.filter(({ localName }) =>
      !Object.hasOwn(AccessRules.rules, localName)
    )
    assert.deepStrictEqual(missing.map(({ name }) => name), [])
  })

  it("refuse calls and requests that they do not know", () => {
    assert.strictEqual(asked("toString", create(FastPath.GetRequestSchema)), "refused")
    assert.strictEqual(asked("execSomething", create(FastPath.GetRequestSchema)), "refused")
    assert.strictEqual(asked("getSandbox", create(FastPath.DeleteRequestSchema)), "refused")
    assert.strictEqual(asked("loadImage", create(FastPath.LoadImageRequestSchema)), "refused")
    const data = { case: "data" as const, value: new Uint8Array() }
    assert.strictEqual(asked("loadImage", create(FastPath.LoadImageRequestSchema, { part: data })), "refused")
  })

  it("take an empty namespace for the default one", () => {
    assert.strictEqual(
      asked("deleteSandbox", create(FastPath.DeleteRequestSchema, { sandboxName: "a" })),
      "delete sandboxes/ in default: a"
    )
    assert.strictEqual(
      asked("logs", create(FastPath.LogsRequestSchema, { sandboxName: "a", namespace: "one" })),
      "get sandboxes/log in one: a"
    )
  })

  it("want the right to all namespaces from who names all", () => {
    assert.strictEqual(
      asked("listSandboxes", create(FastPath.ListRequestSchema, { namespace: "*" })),
      "list sandboxes/ in all: any"
    )
    assert.strictEqual(
      asked("watchSandboxes", create(FastPath.WatchRequestSchema, { namespace: "*" })),
      "watch sandboxes/ in all: any"
    )
    // one sandbox is in one namespace; "*" is the name of none, so no role of a namespace allows it
    assert.strictEqual(
      asked("getSandbox", create(FastPath.GetRequestSchema, { namespace: "*", sandboxName: "a" })),
      "get sandboxes/ in *: a"
    )
  })

  it("find the sandbox of a session in its header", () => {
    const sandbox = { sandboxName: "a", namespace: "one" }
    const exec = (part: MessageInitShape<typeof ExecRequestSchema>["part"]) =>
      asked("exec", create(ExecRequestSchema, part === undefined ? {} : { part }))
    assert.strictEqual(exec({ case: "header", value: { sandbox } }), "create sandboxes/exec in one: a")
    assert.strictEqual(exec({ case: "header", value: {} }), "refused")
    assert.strictEqual(exec({ case: "stdin", value: new Uint8Array() }), "refused")
    assert.strictEqual(exec(undefined), "refused")
    assert.strictEqual(asked("copyFrom", create(CopyFromRequestSchema, { sandbox })), "get sandboxes/copy in one: a")
    const directly = (part: MessageInitShape<typeof DirectCopyRequestSchema>["part"]) =>
      asked("copyDirectly", create(DirectCopyRequestSchema, part === undefined ? {} : { part }))
    assert.strictEqual(directly({ case: "to", value: { sandbox } }), "create sandboxes/copy in one: a")
    assert.strictEqual(directly({ case: "from", value: { sandbox } }), "get sandboxes/copy in one: a")
    assert.strictEqual(directly({ case: "to", value: {} }), "refused")
    assert.strictEqual(directly(undefined), "refused")
  })

  it("find a pool's namespace in its resource", () => {
    const made = (resource: string) =>
      asked("createPool", create(FastPath.CreatePoolRequestSchema, { resource: new TextEncoder().encode(resource) }))
    const inNamespace = (namespace: string | undefined) =>
      made(JSON.stringify({
        apiVersion: "sandbox.fast.io/v1alpha1",
        kind: "SandboxPool",
        metadata: { name: "p", namespace },
        spec: {}
      }))
    assert.strictEqual(inNamespace("one"), "create sandboxpools/ in one: any")
    assert.strictEqual(inNamespace(undefined), "create sandboxpools/ in default: any")
    assert.strictEqual(made("no JSON"), "refused")
  })

  it("want the right to all nodes from who names no pool", () => {
    const pull = (poolRef: string) =>
      asked("pullImage", create(FastPath.PullImageRequestSchema, { image: "a", poolRef, namespace: "one" }))
    assert.strictEqual(pull("pool"), "create sandboxpools/images in one: pool")
    assert.strictEqual(pull(""), "create sandboxpools/images in all: any")
  })
})
