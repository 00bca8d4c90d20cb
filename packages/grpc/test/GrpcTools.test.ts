/**
 * Health and reflection as foreign tools see them: the clients here are plain grpc-js and know the protocols from the
 * .proto files of the public packages, not from ours.
 */
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf"
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt"
import { assert, describe, it } from "@effect/vitest"
import { Unauthenticated } from "@fast-sandbox/core/Errors"
import { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { EchoService } from "@fast-sandbox/grpc/gen/test/v1/echo_pb"
import * as GrpcHealth from "@fast-sandbox/grpc/GrpcHealth"
import * as GrpcReflection from "@fast-sandbox/grpc/GrpcReflection"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as Grpc from "@grpc/grpc-js"
import { loadSync, type MethodDefinition } from "@grpc/proto-loader"
import { Effect, Layer, Queue, Schema } from "effect"
import { service as healthService } from "grpc-health-check"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import * as Echo from "./Echo.ts"

const reflectionProtos = join(dirname(createRequire(import.meta.url).resolve("@grpc/reflection")), "../proto")

const TestServer = GrpcServer.layer({
  services: [Echo.echo, GrpcHealth.service, ...GrpcReflection.make([EchoService, FastPathService])],
  listeners: [GrpcServer.tcp("127.0.0.1", 0)]
}).pipe(Layer.provideMerge(Layer.merge(Echo.Probe.layer, GrpcHealth.layer)))

const rawClient = Effect.flatMap(Echo.address, (address) =>
  Effect.acquireRelease(
    Effect.sync(() => new Grpc.Client(address, Grpc.credentials.createInsecure())),
    (client) => Effect.sync(() => client.close())
  ))

type Method = MethodDefinition<object, object>

const ask = (client: Grpc.Client, method: Method | undefined, request: object) =>
  Effect.callback<unknown, Grpc.ServiceError>((resume) => {
    if (method === undefined) return resume(Effect.die(new Error("no such method")))
    client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      (error, response) => resume(error === null ? Effect.succeed(response) : Effect.fail(error))
    )
  })

const methodsOf = (service: unknown): Readonly<Record<string, Method>> =>
  Object.fromEntries(
    Object.entries(service ?? {}).map(([name, method]) => [name, method])
  )

const { Check, List, Watch } = methodsOf(healthService)

describe("health", () => {
  it.live("answers Check and List", () =>
    Effect.gen(function*() {
      const client = yield* rawClient
      assert.deepInclude(yield* ask(client, Check, { service: "" }), { status: "SERVING" })
      assert.deepInclude(yield* ask(client, Check, { service: "test.v1.EchoService" }), { status: "SERVING" })
      const error = yield* Effect.flip(ask(client, Check, { service: "no.Such" }))
      assert.strictEqual(error.code, Grpc.status.NOT_FOUND)
      yield* GrpcHealth.GrpcHealth.use((health) => health.set(EchoService, "NOT_SERVING"))
      assert.deepInclude(yield* ask(client, Check, { service: "test.v1.EchoService" }), { status: "NOT_SERVING" })
      const { statuses } = Schema.decodeUnknownSync(
        Schema.Struct({ statuses: Schema.Record(Schema.String, Schema.Struct({ status: Schema.String })) })
      )(yield* ask(client, List, {}))
      assert.strictEqual(statuses[""]?.status, "SERVING")
      assert.strictEqual(statuses["test.v1.EchoService"]?.status, "NOT_SERVING")
    }).pipe(Effect.provide(Layer.fresh(TestServer))))

  it.live("tells changes to Watch, also of services that come later", () =>
    Effect.gen(function*() {
      const client = yield* rawClient
      const seen = yield* Queue.unbounded<unknown>()
      if (Watch === undefined) return assert.fail("no Watch")
      const call = client.makeServerStreamRequest(Watch.path, Watch.requestSerialize, Watch.responseDeserialize, {
        service: FastPathService.typeName
      })
      call.on("error", () => {})
      call.on("data", (message) => Queue.offerUnsafe(seen, message))
      assert.deepInclude(yield* Echo.soon(Queue.take(seen)), { status: "SERVICE_UNKNOWN" })
      const health = yield* GrpcHealth.GrpcHealth
      yield* health.set(FastPathService, "SERVING")
      assert.deepInclude(yield* Echo.soon(Queue.take(seen)), { status: "SERVING" })
      yield* health.set(FastPathService, "NOT_SERVING")
      assert.deepInclude(yield* Echo.soon(Queue.take(seen)), { status: "NOT_SERVING" })
      call.cancel()
    }).pipe(Effect.provide(Layer.fresh(TestServer))))

  it.live("is open to callers without a token, unlike everything else", () =>
    Effect.gen(function*() {
      const client = yield* rawClient
      assert.deepInclude(yield* ask(client, Check, { service: "" }), { status: "SERVING" })
      const api = yield* Echo.connect()
      assert.strictEqual((yield* Effect.flip(api.echo({ text: "a" })))._tag, "Unauthenticated")
    }).pipe(Effect.provide(
      GrpcServer.layer({
        services: [Echo.echo, GrpcHealth.service],
        listeners: [GrpcServer.tcp("127.0.0.1", 0)],
        authenticate: () => Effect.fail(new Unauthenticated({ problem: "send a token" }))
      }).pipe(Layer.provideMerge(Layer.fresh(Layer.merge(Echo.Probe.layer, GrpcHealth.layer))))
    )))
})

describe("reflection", () => {
  for (const version of ["v1", "v1alpha"]) {
    const { ServerReflectionInfo } = methodsOf(
      loadSync(`grpc/reflection/${version}/reflection.proto`, { includeDirs: [reflectionProtos], keepCase: true })[
        `grpc.reflection.${version}.ServerReflection`
      ]
    )

    const question = (request: object) =>
      Effect.flatMap(rawClient, (client) =>
        Effect.callback<unknown, Grpc.ServiceError>((resume) => {
          if (ServerReflectionInfo === undefined) return resume(Effect.die(new Error("no such method")))
          const call = client.makeBidiStreamRequest(
            ServerReflectionInfo.path,
            ServerReflectionInfo.requestSerialize,
            ServerReflectionInfo.responseDeserialize
          )
          call.on("error", (error: Grpc.ServiceError) => resume(Effect.fail(error)))
          call.on("data", (answer) => resume(Effect.succeed(answer)))
          call.write(request)
          call.end()
        }))

    const Services = Schema.Struct({
      list_services_response: Schema.Struct({ service: Schema.Array(Schema.Struct({ name: Schema.String })) })
    })
    const Files = Schema.Struct({
      file_descriptor_response: Schema.Struct({ file_descriptor_proto: Schema.Array(Schema.Uint8Array) })
    })
    const Refusal = Schema.Struct({ error_response: Schema.Struct({ error_code: Schema.Number }) })

    it.live(`${version} lists services`, () =>
      Effect.gen(function*() {
        const answer = Schema.decodeUnknownSync(Services)(yield* question({ list_services: "" }))
        const names = answer.list_services_response.service.map(({ name }) => name)
        assert.includeMembers(names, ["test.v1.EchoService", "fastpath.v1.FastPathService"])
      }).pipe(Effect.provide(Layer.fresh(TestServer))))

    it.live(`${version} describes a service so completely that it can be called`, () =>
      Effect.gen(function*() {
        for (
          const request of [
            { file_containing_symbol: "fastpath.v1.FastPathService" },
            { file_containing_symbol: "fastpath.v1.FastPathService.CreateSandbox" },
            { file_containing_symbol: "fastpath.v1.CreateRequest" },
            { file_by_filename: "fastpath/v1/fastpath.proto" }
          ]
        ) {
          const answer = Schema.decodeUnknownSync(Files)(yield* question(request))
          const file = answer.file_descriptor_response.file_descriptor_proto.map((bytes) =>
            fromBinary(FileDescriptorProtoSchema, bytes)
          )
          const service = createFileRegistry(create(FileDescriptorSetSchema, { file: file.toReversed() })).getService(
            "fastpath.v1.FastPathService"
          )
          assert.strictEqual(service?.method.createSandbox?.input.field.image?.number, 1)
        }
      }).pipe(Effect.provide(Layer.fresh(TestServer))))

    it.live(`${version} refuses what it does not have`, () =>
      Effect.gen(function*() {
        for (const request of [{ file_containing_symbol: "no.Such" }, { file_by_filename: "no.proto" }]) {
          const answer = Schema.decodeUnknownSync(Refusal)(yield* question(request))
          assert.strictEqual(answer.error_response.error_code, Grpc.status.NOT_FOUND)
        }
      }).pipe(Effect.provide(Layer.fresh(TestServer))))
  }
})
