import { assert, describe, it } from "@effect/vitest"
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
        assert.strictEqual((yield* get("/readyz")).status, 200)
        assert.strictEqual((yield* get("/metrics")).status, 200)
        assert.strictEqual((yield* get("/else")).status, 404)
      }).pipe(Effect.provide(
        Telemetry.layer({ host: "127.0.0.1", port }).pipe(
          Layer.provideMerge(Caches.layer),
          Layer.provide(MemoryKube.layer)
        )
      ))
    }))
})
