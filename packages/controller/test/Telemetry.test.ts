import { assert, describe, it } from "@effect/vitest"
import * as GrpcHealth from "@fast-sandbox/grpc/GrpcHealth"
import { KubeError, Unavailable } from "@fast-sandbox/kube/KubeError"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import { Effect, Layer } from "effect"
import { createServer } from "node:net"
import { Caches } from "../src/Caches.ts"
import * as Telemetry from "../src/Telemetry.ts"

/** A port that nobody used a moment ago. */
const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

describe("Telemetry", () => {
  it.live("answers for metrics, health and readiness", () =>
    Effect.gen(function*() {
      const port = yield* freePort
      const get = (path: string) => Effect.promise(() => fetch(`http://127.0.0.1:${port}${path}`))
      yield* Effect.gen(function*() {
        yield* (yield* Caches).sandboxes.synced
        yield* (yield* Caches).pools.synced
        assert.strictEqual((yield* get("/livez")).status, 200)
        const early = yield* get("/readyz")
        assert.strictEqual(early.status, 503)
        assert.match(yield* Effect.promise(() => early.text()), /^not ok API: takes no calls$/m)
        yield* (yield* GrpcHealth.GrpcHealth).set(GrpcHealth.SERVER, "SERVING")
        assert.strictEqual((yield* get("/readyz")).status, 200)
        assert.strictEqual((yield* get("/metrics")).status, 200)
        assert.strictEqual((yield* get("/else")).status, 404)
        const gone = new KubeError({
          method: "GET",
          path: "/readyz",
          reason: new Unavailable({ problem: "connection refused", sent: false })
        })
        const { setGate } = yield* MemoryKube
        yield* setGate({ before: () => Effect.fail(gone) })
        const readiness = yield* get("/readyz")
        assert.strictEqual(readiness.status, 503)
        assert.match(yield* Effect.promise(() => readiness.text()), /^not ok Kubernetes API: .*connection refused/)
        assert.strictEqual((yield* get("/livez")).status, 200)
        yield* setGate({})
        assert.strictEqual((yield* get("/readyz")).status, 200)
      }).pipe(Effect.provide(
        Layer.merge(Telemetry.layer({ host: "127.0.0.1", port }), GrpcHealth.layer).pipe(
          Layer.provideMerge(Caches.layer),
          Layer.provideMerge(MemoryKube.layer)
        )
      ))
    }))
})
