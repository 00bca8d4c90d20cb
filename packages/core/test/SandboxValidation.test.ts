import { assert, describe, it } from "@effect/vitest"
import type { ObjectMeta } from "@fast-sandbox/core/ObjectMeta"
import { limits, type SandboxSpec } from "@fast-sandbox/core/Sandbox"
import * as SandboxValidation from "@fast-sandbox/core/SandboxValidation"
import { Result } from "effect"

const good: { readonly metadata: ObjectMeta; readonly spec: SandboxSpec } = {
  metadata: { name: "demo-1.a", namespace: "default", labels: { app: "x", "example.com/team": "a_b.c" } },
  spec: {
    image: "docker.io/library/alpine:3",
    poolRef: "default-pool",
    command: ["sh", "-c"],
    args: ["true"],
    envs: [{ name: "A", value: "1" }, { name: "B", valueFrom: { secretKeyRef: { name: "s", key: "k" } } }],
    workingDir: "/srv",
    exposedPorts: [1, 65535],
    recoveryTimeoutSeconds: 1,
    ttlSeconds: 5,
    resetRevision: "2026-01-31T12:00:00.123456789+01:00",
    terminationGracePeriodSeconds: 0,
    resources: { cpu: "500m", memory: "128Mi", pids: 10 }
  }
}

const problemOf = (metadata: Partial<ObjectMeta>, spec: Partial<SandboxSpec>) =>
  Result.match(
    SandboxValidation.validate({ metadata: { ...good.metadata, ...metadata }, spec: { ...good.spec, ...spec } }),
    {
      onFailure: ({ field }) => field,
      onSuccess: () => "fine"
    }
  )

const specCases: ReadonlyArray<readonly [what: string, spec: Partial<SandboxSpec>, field: string]> = [
  ["no image", { image: "" }, "spec.image"],
  ["no image name", { image: "alpine:tag:tag" }, "spec.image"],
  ["too long an image", { image: "a".repeat(limits.imageLength + 1) }, "spec.image"],
  ["no pool", { poolRef: "" }, "spec.poolRef"],
  ["a pool that is no name", { poolRef: "../x" }, "spec.poolRef"],
  ["port 0", { exposedPorts: [80, 0] }, "spec.exposedPorts[1]"],
  ["port 65536", { exposedPorts: [65536] }, "spec.exposedPorts[0]"],
  ["half a port", { exposedPorts: [80.5] }, "spec.exposedPorts[0]"],
  ["a port twice", { exposedPorts: [80, 81, 80] }, "spec.exposedPorts[2]"],
  ["too many ports", { exposedPorts: Array.from({ length: 65 }, (_, n) => n + 1) }, "spec.exposedPorts"],
  ["env without a name", { envs: [{ name: "", value: "x" }] }, "spec.envs[0].name"],
  ["env name with =", { envs: [{ name: "A=B" }] }, "spec.envs[0].name"],
  ["env with NUL", { envs: [{ name: "A", value: "x\0" }] }, "spec.envs[0].value"],
  ["env with two sources", {
    envs: [{ name: "A", value: "x", valueFrom: { secretKeyRef: { name: "s", key: "k" } } }]
  }, "spec.envs[0].valueFrom"],
  ["env with an empty source", { envs: [{ name: "A", valueFrom: {} }] }, "spec.envs[0].valueFrom"],
  ["too many envs", { envs: Array.from({ length: limits.envs + 1 }, (_, n) => ({ name: `A${n}` })) }, "spec.envs"],
  ["too many args", { args: Array.from({ length: limits.args + 1 }, () => "a") }, "spec.args"],
  ["too large args", { args: Array.from({ length: 9 }, () => "ä".repeat(limits.wordLength)) }, "spec.args"],
  ["NUL in a command", { command: ["a", "b\0"] }, "spec.command[1]"],
  ["a relative working directory", { workingDir: "srv" }, "spec.workingDir"],
  ["too long a working directory", { workingDir: `/${"a".repeat(limits.pathLength)}` }, "spec.workingDir"],
  ["recovery timeout 0", { recoveryTimeoutSeconds: 0 }, "spec.recoveryTimeoutSeconds"],
  ["ttl 0", { ttlSeconds: 0 }, "spec.ttlSeconds"],
  ["ttl and expiry", { expireTime: "2026-01-31T12:00:00Z" }, "spec.ttlSeconds"],
  ["no time", { expireTime: "tomorrow" }, "spec.expireTime"],
  ["a date without a time", { resetRevision: "2026-01-31" }, "spec.resetRevision"],
  ["grace above the limit", { terminationGracePeriodSeconds: 3601 }, "spec.terminationGracePeriodSeconds"],
  ["negative grace", { terminationGracePeriodSeconds: -1 }, "spec.terminationGracePeriodSeconds"],
  ["no quantity", { resources: { cpu: "much" } }, "spec.resources.cpu"],
  ["no memory", { resources: { memory: "0" } }, "spec.resources.memory"],
  ["no pids", { resources: { pids: 0 } }, "spec.resources.pids"]
]

const metadataCases: ReadonlyArray<readonly [what: string, metadata: Partial<ObjectMeta>, field: string]> = [
  ["no name", { name: "" }, "metadata.name"],
  ["upper case", { name: "Demo" }, "metadata.name"],
  ["a dash at the end", { name: "demo-" }, "metadata.name"],
  ["a path", { name: "a/b" }, "metadata.name"],
  ["a long name", { name: "a".repeat(254) }, "metadata.name"],
  ["a dotted namespace", { namespace: "a.b" }, "metadata.namespace"],
  ["a long namespace", { namespace: "a".repeat(64) }, "metadata.namespace"],
  ["a reserved label", { labels: { "fast-sandbox.io/pool": "x" } }, "metadata.labels[fast-sandbox.io/pool]"],
  ["a bad label key", { labels: { "-a": "x" } }, "metadata.labels[-a]"],
  ["a bad label prefix", { labels: { "A_/b": "x" } }, "metadata.labels[A_/b]"],
  ["a bad label value", { labels: { a: "x y" } }, "metadata.labels[a]"],
  ["a long label value", { labels: { a: "x".repeat(64) } }, "metadata.labels[a]"]
]

describe("SandboxValidation", () => {
  it("accepts what is right", () => {
    assert.strictEqual(problemOf({}, {}), "fine")
  })
  it.each(specCases)("refuses %s", (_, spec, field) => {
    assert.strictEqual(problemOf({}, spec), field)
  })
  it.each(metadataCases)("refuses %s", (_, metadata, field) => {
    assert.strictEqual(problemOf(metadata, {}), field)
  })
})
