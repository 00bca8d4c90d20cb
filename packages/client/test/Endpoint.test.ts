import { assert, describe, it } from "@effect/vitest"
import * as Endpoint from "@fast-sandbox/client/Endpoint"
import { Result } from "effect"

describe("Endpoint", () => {
  for (
    const [given, address] of [
      ["unix:/run/a.sock", "unix:/run/a.sock"],
      ["unix:///run/a.sock", "unix:/run/a.sock"],
      ["localhost:9090", "localhost:9090"],
      ["10.0.0.7:1", "10.0.0.7:1"],
      ["[::1]:65535", "[::1]:65535"]
    ]
  ) {
    it(`accepts ${given}`, () => {
      assert.deepStrictEqual(Result.getOrNull(Endpoint.parse(given ?? "")), address)
    })
  }
  for (
    const given of ["", "unix:run/a.sock", "localhost", "localhost:", "localhost:0", "a:65536", "http://a:1", "::1:9"]
  ) {
    it(`refuses ${JSON.stringify(given)}`, () => {
      const result = Endpoint.parse(given)
      assert.isTrue(Result.isFailure(result))
      if (Result.isFailure(result)) assert.strictEqual(result.failure.field, "endpoint")
    })
  }
})
