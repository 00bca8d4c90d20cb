import { assert, describe, it } from "@effect/vitest"
import * as ImageName from "@fast-sandbox/core/ImageName"
import { Effect, Result } from "effect"

const digest = `sha256:${"0a".repeat(32)}`

const same: ReadonlyArray<readonly [string, string]> = [
  ["alpine", "docker.io/library/alpine:latest"],
  ["alpine:latest", "docker.io/library/alpine:latest"],
  ["docker.io/alpine", "docker.io/library/alpine:latest"],
  ["docker.io/library/alpine", "docker.io/library/alpine:latest"],
  ["index.docker.io/library/alpine", "docker.io/library/alpine:latest"],
  ["alpine:3.20", "docker.io/library/alpine:3.20"],
  ["grafana/loki:2", "docker.io/grafana/loki:2"],
  ["localhost/app", "localhost/app:latest"],
  ["localhost:5000/app:v1", "localhost:5000/app:v1"],
  ["127.0.0.1:5000/team/app", "127.0.0.1:5000/team/app:latest"],
  ["[::1]:5000/app:v1", "[::1]:5000/app:v1"],
  ["registry.example.com/a/b/c:1.0-rc.1", "registry.example.com/a/b/c:1.0-rc.1"],
  [`alpine@${digest}`, `docker.io/library/alpine@${digest}`],
  [`alpine:3.20@${digest}`, `docker.io/library/alpine@${digest}`]
]

const invalid: ReadonlyArray<readonly [string, string]> = [
  ["", "empty"],
  ["Alpine", "repository"],
  ["alpine:", "tag"],
  ["alpine:a b", "tag"],
  [`alpine:${"a".repeat(129)}`, "tag"],
  ["alpine@sha256:123", "digest"],
  ["alpine@", "digest"],
  [digest, "digest alone"],
  ["0a".repeat(32), "digest alone"],
  ["docker.io/", "repository"],
  ["-host.io/app", "registry"],
  ["host.io:port/app", "registry"],
  ["a//b", "repository"],
  ["../etc/passwd", "re"],
  ["a/../b", "repository"],
  ["a\nb", "repository"],
  ["a".repeat(300), "longer"]
]

describe("ImageName", () => {
  for (const [written, normal] of same) {
    it.effect(`${written} is ${normal}`, () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* ImageName.normalize(written), normal)
        assert.strictEqual(yield* ImageName.normalize(normal), normal)
      }))
  }
  for (const [written, word] of invalid) {
    it.effect(`refuses ${JSON.stringify(written).slice(0, 40)}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(ImageName.normalize(written))
        assert.strictEqual(error._tag, "InvalidImageName")
        assert.include(error.problem, word)
      }))
  }
  it("keeps the parts", () => {
    assert.deepStrictEqual(
      ImageName.parse(`localhost:5000/app:v1@${digest}`),
      Result.succeed({ registry: "localhost:5000", path: "app", tag: "v1", digest })
    )
  })
})
