/** What it costs to know a caller and to allow its call, when both are remembered: `node packages/controller/bench/access.ts`. */
import { create } from "@bufbuild/protobuf"
import * as FastPath from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { GrpcCaller } from "@fast-sandbox/grpc/GrpcCaller"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Access } from "../src/access/Access.ts"

const rounds = 20_000
const nanosPerMicro = 1000

const kube = Layer.effect(
  KubeClient,
  Effect.map(KubeClient, (kube) => ({
    ...kube,
    request: ({ path }) =>
      Effect.succeed({
        status: path.includes("tokenreviews")
          ? { authenticated: true, user: { username: "a", uid: "1", groups: ["system:authenticated", "devs"] } }
          : { allowed: true }
      })
  }))
).pipe(Layer.provide(MemoryKube.layer))

const program = Effect.gen(function*() {
  const access = yield* Access
  const metadata = { get: () => `Bearer ${"x".repeat(900)}` }
  const peer = { transport: "tcp", address: "", certificate: undefined } as const
  const samples: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    const request = create(FastPath.CreateRequestSchema, { name: `s${round}` })
    const began = process.hrtime.bigint()
    const caller = yield* access.authenticate(metadata, peer)
    yield* access.authorize(FastPath.FastPathService.method.createSandbox, request).pipe(
      Effect.provideService(GrpcCaller, caller)
    )
    samples.push(Number(process.hrtime.bigint() - began) / nanosPerMicro)
  }
  samples.sort((a, b) => a - b)
  const at = (part: number) => samples[Math.floor(part * samples.length)]?.toFixed(1)
  process.stdout.write(
    `known and allowed, both remembered: p50 ${at(0.5)} p90 ${at(0.9)} p99 ${at(0.99)} microseconds\n`
  )
})

await Effect.runPromise(program.pipe(Effect.provide(Access.layer.pipe(Layer.provide(kube)))))
