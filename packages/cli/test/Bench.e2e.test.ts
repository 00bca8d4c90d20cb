import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import { run } from "./e2e/LocalStack.ts"

const path = (name: string): string => fileURLToPath(new URL(`../../../infra/bench/${name}.ts`, import.meta.url))

describe("the benchmark", () => {
  it.live("finds no start slower than its bound, beside what a user would pick instead and beside greedy neighbours", () =>
    Effect.gen(function*() {
      // Medians of interleaved starts: few rounds tell a ratio, if not a p99.
      const options = ["--rounds", "25", "--check", "requests", "neighbours"]
      const { code, stderr, stdout } = yield* run(process.execPath, [path("main"), ...options])
      assert.strictEqual(code, 0, stderr)
      assert.match(stdout, /create\.parked\.c1 is [\d.]+ times as fast as peer\.containerd\.bare\.c1/)
      assert.match(stdout, /create\.prepared\.c1 is [\d.]+ times as fast as peer\.containerd\.bare\.c1/)
      assert.match(stdout, /create\.prepared\.yes is [\d.]+ times as fast as create\.prepared\.alone/)
    }))

  it.live("finds that no idle program takes more memory than it may", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* run(process.execPath, [path("idle"), "--check"])
      assert.strictEqual(code, 0, `${stderr}${stdout}`)
      assert.match(stdout, /idle\.janitor\.rss/)
    }))
})
