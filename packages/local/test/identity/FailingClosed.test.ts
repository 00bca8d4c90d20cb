/** Who gets in at the Fast-Path while the API server, a real one over TLS, is away, and when it is back. */
import { create } from "@bufbuild/protobuf"
import { NodeServices } from "@effect/platform-node"
import { assert, it } from "@effect/vitest"
import { Access } from "@fast-sandbox/controller/access/Access"
import { FastPathService, GetRequestSchema } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { type Caller, GrpcCaller } from "@fast-sandbox/grpc/GrpcCaller"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import { Context, Effect, Exit, FileSystem, Layer, Schema, Scope } from "effect"

const TokenAnswer = Schema.Struct({ status: Schema.Struct({ token: Schema.String }) })

const post = (path: string, body: object) => KubeClient.use((kube) => kube.request({ method: "POST", path, body }))

/** The token of a new service account that may read sandboxes in its namespace. */
const account = Effect.fnUntraced(function*(name: string) {
  const rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
  const accounts = "/api/v1/namespaces/default/serviceaccounts"
  yield* post(accounts, { metadata: { name } })
  yield* post(`${rbac}/roles`, {
    metadata: { name },
    rules: [{ apiGroups: ["sandbox.fast.io"], resources: ["sandboxes"], verbs: ["get"] }]
  })
  yield* post(`${rbac}/rolebindings`, {
    metadata: { name },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name },
    subjects: [{ kind: "ServiceAccount", name, namespace: "default" }]
  })
  return (yield* Schema.decodeUnknownEffect(TokenAnswer)(yield* post(`${accounts}/${name}/token`, { spec: {} }))).status
    .token
})

const tcp = { transport: "tcp", address: "10.0.0.1:1", certificate: undefined } as const

const authenticate = (token: string) =>
  Access.use((access) => access.authenticate({ get: () => `Bearer ${token}` }, tcp))

const mayGet = (caller: Caller, namespace: string) =>
  Access.use((access) =>
    access.authorize(FastPathService.method.getSandbox, create(GetRequestSchema, { namespace, sandboxName: "a" }))
  ).pipe(
    Effect.provideService(GrpcCaller, caller),
    Effect.match({ onFailure: ({ _tag }) => _tag, onSuccess: () => "allowed" })
  )

it.live("nobody whom it does not know yet gets in while the API server is away", () =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const dataDirectory = yield* files.makeTempDirectoryScoped({ prefix: "closed-" })
    const start = Effect.fnUntraced(function*(port: number) {
      const scope = yield* Scope.make()
      yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
      const context = yield* Layer.buildWithScope(Layer.fresh(ApiServer.layer({ dataDirectory, port })), scope)
      return { scope, server: Context.get(context, ApiServer) }
    })
    const { scope, server: { caCertificate, token, url } } = yield* start(0)
    const kube = KubeClient.layer.pipe(Layer.provide(KubeConfig.layer({ server: url, token, ca: caCertificate })))
    yield* Effect.gen(function*() {
      const known = yield* account("known")
      const stranger = yield* account("stranger")
      const caller = yield* authenticate(known)
      assert.strictEqual(caller.name, "system:serviceaccount:default:known")
      assert.strictEqual(yield* mayGet(caller, "default"), "allowed")
      assert.strictEqual(yield* mayGet(caller, "elsewhere"), "PermissionDenied")

      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Effect.flip(authenticate(stranger)))._tag, "Unavailable")
      assert.strictEqual(yield* mayGet(caller, "third"), "Unavailable")
      // What it answered holds for its minute.
      assert.deepStrictEqual(yield* authenticate(known), caller)
      assert.strictEqual(yield* mayGet(caller, "default"), "allowed")

      yield* start(Number(new URL(url).port))
      assert.strictEqual((yield* authenticate(stranger)).name, "system:serviceaccount:default:stranger")
      assert.strictEqual(yield* mayGet(caller, "third"), "PermissionDenied")
    }).pipe(Effect.provide(Layer.provideMerge(Access.layer, kube)))
  }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 30_000)
