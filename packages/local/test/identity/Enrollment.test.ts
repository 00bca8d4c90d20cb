/**
 * How an agent gets its certificate and what that opens: the controller's side and the agent's, over TLS on loopback,
 * with the embedded API server as the one that knows tokens and Pods.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, layer } from "@effect/vitest"
import * as AgentIdentity from "@fast-sandbox/agent/AgentIdentity"
import { Authority } from "@fast-sandbox/controller/access/Authority"
import * as Enrollment from "@fast-sandbox/controller/access/Enrollment"
import { AgentAddress } from "@fast-sandbox/controller/agents/AgentAddress"
import { agentServerName, enrollmentAudience } from "@fast-sandbox/core/AgentProtocol"
import { agentAppLabel, apiVersion, authority, defaultPool } from "@fast-sandbox/core/Names"
import { EnrollmentService } from "@fast-sandbox/grpc/gen/agent/v1/enrollment_pb"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import { GrpcCaller } from "@fast-sandbox/grpc/GrpcCaller"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import { SandboxPool } from "@fast-sandbox/kube/FastSandbox"
import { ConfigMap, Pod, Secret, ServiceAccount } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import * as FirstResources from "@fast-sandbox/local/FirstResources"
import { Context, Effect, FileSystem, Layer, Option, Redacted, Schema, Stream } from "effect"

const namespace = "default"

const api = Layer.unwrap(Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  return ApiServer.layer({ dataDirectory: yield* files.makeTempDirectoryScoped({ prefix: "enrollment-" }) })
}))

const kube = KubeClient.layer.pipe(
  Layer.provide(Layer.unwrap(
    Effect.map(
      ApiServer,
      ({ caCertificate, token, url }) => KubeConfig.layer({ server: url, token, ca: caCertificate })
    )
  )),
  Layer.provide(api)
)

/** The kinds, and a pool. */
const resources = Layer.effectDiscard(FirstResources.ensure)

/** The controllers' side: the authority, and the service that gives certificates. */
const controller = Layer.unwrap(Effect.gen(function*() {
  const controllers = yield* Authority
  const { certificate, key } = yield* controllers.own
  return GrpcServer.layer({
    services: [Enrollment.service(controllers)],
    listeners: [GrpcServer.tcp("127.0.0.1", 0, { tls: { certificate: { chain: certificate, key } } })]
  })
})).pipe(Layer.provideMerge(Authority.layer({ namespace, service: "fastpath" })))

const stage = Layer.merge(controller, resources).pipe(Layer.provideMerge(kube), Layer.provideMerge(NodeServices.layer))

const controllerAddress = Effect.map(
  GrpcServer.GrpcServer,
  ({ addresses: [address = ""] }) => address.replace("127.0.0.1", "localhost")
)

/** A Pod; one of a pool's agents unless it is said otherwise. */
const pod = Effect.fnUntraced(function*(name: string, kind: "agent" | "other" = "agent") {
  const client = yield* KubeClient
  const pool = yield* client.get(SandboxPool, { namespace, name: defaultPool })
  const { metadata } = yield* client.create(Pod, {
    metadata: {
      name,
      namespace,
      labels: { [agentAppLabel.key]: agentAppLabel.value },
      ownerReferences: kind === "other"
        ? []
        : [{
          apiVersion,
          kind: "SandboxPool",
          name: defaultPool,
          uid: pool.metadata.uid ?? "",
          controller: true,
          blockOwnerDeletion: true
        }]
    },
    spec: { containers: [{ name: "agent", image: "agent" }] }
  })
  return metadata.uid
})

const TokenAnswer = Schema.Struct({ status: Schema.Struct({ token: Schema.String }) })

/** What the kubelet mounts into a Pod. */
const tokenOf = Effect.fnUntraced(function*(name: string, audience = enrollmentAudience) {
  const client = yield* KubeClient
  yield* Effect.ignore(client.create(ServiceAccount, { metadata: { name: "agents", namespace } }))
  const answer = yield* client.request({
    method: "POST",
    path: `/api/v1/namespaces/${namespace}/serviceaccounts/agents/token`,
    body: { spec: { audiences: [audience], boundObjectRef: { kind: "Pod", apiVersion: "v1", name } } }
  })
  return (yield* Schema.decodeUnknownEffect(TokenAnswer)(answer)).status.token
})

const echo = GrpcService.make(EchoService, {
  echo: () => Effect.map(GrpcCaller, ({ name }) => ({ text: name })),
  count: () => Stream.empty,
  sum: () => Effect.succeed({}),
  chat: () => Stream.empty
})

/** An agent's server, with the certificate that it gets. */
const agent = Effect.fnUntraced(function*(name: string) {
  const files = yield* FileSystem.FileSystem
  const folder = yield* files.makeTempDirectoryScoped({ prefix: "agent-" })
  yield* files.writeFileString(`${folder}/token`, yield* tokenOf(name))
  const tls = yield* AgentIdentity.make({
    controller: yield* controllerAddress,
    authorities: yield* Authority.use(({ bundle }) => bundle),
    tokenFile: `${folder}/token`
  }, folder)
  const context = yield* Layer.build(GrpcServer.layer({
    services: [echo],
    listeners: [GrpcServer.tcp("127.0.0.1", 0, { tls })],
    authenticate: AgentIdentity.authenticate
  }))
  const { addresses: [address = ""] } = Context.get(context, GrpcServer.GrpcServer)
  return { address, certificate: tls.certificate, remembered: yield* files.readFileString(`${folder}/authorities.pem`) }
})

const callerAt = (address: string, credentials: GrpcClient.Credentials) =>
  Effect.gen(function*() {
    const client = yield* GrpcClient.makeBoundary(EchoService, {
      address,
      credentials
    })
    return (yield* client.echo({})).text
  })

/** What a controller shows to the agent of a Pod, as it does for real. */
const credentialsFor = (uid: string) =>
  Effect.gen(function*() {
    const { bundle, own } = yield* Authority
    const ca = yield* bundle
    const { certificate, key } = yield* own
    return { tls: { ca, certificate: { chain: certificate, key }, serverName: agentServerName(uid) } }
  })

const enroll = Effect.fnUntraced(function*(token: string | undefined, publicKey = "no key") {
  const client = yield* GrpcClient.makeBoundary(EnrollmentService, {
    address: yield* controllerAddress,
    credentials: {
      tls: { ca: yield* Authority.use(({ bundle }) => bundle) },
      token: token === undefined ? undefined : Effect.succeed(Redacted.make(token))
    }
  })
  return yield* client.enroll({ publicKey })
})

describe("agents on a network", () => {
  layer(stage, { excludeTestServices: true, timeout: 30_000 })((it) => {
    it.effect("serve the controller, and nobody else", () =>
      Effect.gen(function*() {
        const uid = yield* pod("one")
        const other = yield* pod("two")
        const { address, certificate, remembered } = yield* agent("one")
        const credentials = yield* credentialsFor(uid)
        const ca = credentials.tls.ca
        assert.strictEqual(yield* callerAt(address, credentials), "fast-sandbox:controller")
        assert.strictEqual(remembered, ca)
        const refused = (what: string, credentials: GrpcClient.Credentials) =>
          Effect.map(Effect.flip(callerAt(address, credentials)), ({ _tag }) =>
            assert.strictEqual(_tag, "Unavailable", what))
        yield* refused("plain text", {})
        yield* refused("no certificate", { tls: { ca, serverName: agentServerName(uid) } })
        yield* refused("the agent of another Pod", yield* credentialsFor(other))
        // an agent's certificate is good for serving only
        yield* refused("an agent", { tls: { ca, certificate, serverName: agentServerName(uid) } })
      }))

    it.effect("get a certificate for a token of their own Pod only", () =>
      Effect.gen(function*() {
        yield* pod("three")
        yield* pod("stranger", "other")
        const tagOf = (token: string | undefined) => Effect.map(Effect.flip(enroll(token)), ({ _tag }) => _tag)
        assert.strictEqual(yield* tagOf(undefined), "Unauthenticated")
        assert.strictEqual(yield* tagOf("nonsense"), "Unauthenticated")
        assert.strictEqual(yield* tagOf(yield* tokenOf("three", "https://kubernetes.default.svc")), "Unauthenticated")
        assert.strictEqual(yield* tagOf(yield* tokenOf("stranger")), "PermissionDenied")
        const token = yield* tokenOf("three")
        // the token is good, the key is none
        assert.strictEqual(yield* tagOf(token), "InvalidArgument")
        yield* KubeClient.use((client) => client.delete(Pod, { namespace, name: "three" }))
        assert.strictEqual(yield* tagOf(token), "Unauthenticated")
      }))

    it.effect("controllers share one authority, and clients find its certificate", () =>
      Effect.gen(function*() {
        const client = yield* KubeClient
        const first = yield* Authority.use(({ bundle }) => bundle)
        const second = yield* Layer.build(Layer.fresh(Authority.layer({ namespace, service: "fastpath" })))
        assert.strictEqual(yield* Context.get(second, Authority).bundle, first)
        const published = yield* client.get(ConfigMap, { namespace, name: authority.name })
        assert.strictEqual(published.data?.["ca.crt"], first)
        assert.notInclude(JSON.stringify(published), "PRIVATE KEY")
        assert.isDefined((yield* client.get(Secret, { namespace, name: authority.name })).data?.["authorities.json"])
      }))

    it.effect("are addressed at their Pod's IP, by its uid", () =>
      Effect.gen(function*() {
        const controllers = yield* Authority
        const found = yield* AgentAddress.use(({ resolve }) =>
          resolve({
            apiVersion: "v1",
            kind: "Pod",
            metadata: { name: "a", uid: "u", resourceVersion: "1", creationTimestamp: "" },
            spec: { containers: [] },
            status: { podIP: "fd00::1" }
          })
        ).pipe(Effect.provide(AgentAddress.layerPodIp(controllers)))
        const endpoint = Option.getOrThrow(found)
        assert.strictEqual(endpoint.address, "[fd00::1]:5758")
        const { tls } = yield* endpoint.credentials ?? Effect.succeed<GrpcClient.Credentials>({})
        assert.strictEqual(tls?.serverName, "u.agent.fast-sandbox")
      }))
  })
})
