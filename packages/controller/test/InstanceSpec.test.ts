import { assert, describe, it } from "@effect/vitest"
import type { Sandbox, SandboxSpec } from "@fast-sandbox/core/Sandbox"
import type { SandboxPool, SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import { Effect } from "effect"
import * as InstanceSpec from "../src/InstanceSpec.ts"

const make = (spec: Partial<SandboxSpec>, pool: SandboxPoolSpec = {}) => {
  const sandbox: Sandbox = {
    apiVersion: "sandbox.fast.io/v1alpha1",
    kind: "Sandbox",
    metadata: { name: "a", namespace: "default" },
    spec: { image: "alpine", poolRef: "pool", ...spec }
  }
  const of: SandboxPool = {
    apiVersion: "sandbox.fast.io/v1alpha1",
    kind: "SandboxPool",
    metadata: { name: "pool", namespace: "default" },
    spec: pool
  }
  return InstanceSpec.make(sandbox, of)
}

const objects = KubeClient.use((kube) =>
  Effect.all([
    kube.create(Kinds.Secret, { metadata: { name: "s", namespace: "default" }, data: { k: "aGlkZGVu" } }),
    kube.create(Kinds.ConfigMap, { metadata: { name: "c", namespace: "default" }, data: { k: "plain" } })
  ])
)

const secret = (name: string, key: string, optional?: true) => ({
  name: "A",
  valueFrom: { secretKeyRef: { name, key, ...(optional === undefined ? {} : { optional }) } }
})

const run = <A, E>(name: string, test: Effect.Effect<A, E, KubeClient | MemoryKube>) =>
  it.effect(name, () => Effect.provide(test, MemoryKube.layer))

describe("InstanceSpec", () => {
  run(
    "fills in defaults and the image's normal name, and asks the API for nothing",
    Effect.gen(function*() {
      yield* MemoryKube.use((_) => _.setGate({ before: () => Effect.die("no call was to be made") }))
      assert.deepInclude(yield* make({ exposedPorts: [80] }), {
        image: "docker.io/library/alpine:latest",
        command: [],
        envs: [],
        exposedPorts: [80],
        terminationGracePeriodSeconds: 10,
        cpuMillis: 0n,
        memoryBytes: 0n,
        pids: 0n
      })
    })
  )

  run(
    "limits are the sandbox's own, within the pool's, or the pool's",
    Effect.gen(function*() {
      const pool: SandboxPoolSpec = { sandboxResources: { cpu: "1", memory: "1Gi", pids: 100 } }
      assert.deepInclude(yield* make({ resources: { cpu: "250m", shm: "1Mi" } }, pool), {
        cpuMillis: 250n,
        memoryBytes: 1073741824n,
        pids: 100n,
        shmBytes: 1048576n,
        diskBytes: 0n
      })
      for (
        const [field, resources] of [
          ["cpu", { cpu: "1001m" }],
          ["memory", { memory: "4Gi" }],
          ["pids", { pids: 101 }]
        ] as const
      ) {
        const above = yield* Effect.flip(make({ resources }, pool))
        assert.deepInclude({ ...above }, { _tag: "InvalidArgument", field: `spec.resources.${field}` })
      }
      assert.deepInclude(yield* make({ resources: { cpu: "250m", pids: 7 } }), {
        cpuMillis: 250n,
        memoryBytes: 0n,
        pids: 7n
      })
      const error = yield* Effect.flip(make({ resources: { cpu: "much" } }))
      assert.deepInclude({ ...error }, { _tag: "InvalidArgument", field: "spec.resources.cpu" })
    })
  )

  run(
    "a sandbox chooses its user, and can't allow itself what its pool forbids",
    Effect.gen(function*() {
      const pool: SandboxPoolSpec = {
        sandboxSecurity: { runAsUser: 1000, runAsGroup: 2000, runAsNonRoot: true, readOnlyRootFilesystem: true }
      }
      assert.deepInclude(yield* make({}, pool), {
        runAsUser: 1000,
        runAsGroup: 2000,
        runAsNonRoot: true,
        readOnlyRootFilesystem: true
      })
      const own = yield* make({
        securityContext: { runAsUser: 7, runAsNonRoot: false, readOnlyRootFilesystem: false }
      }, pool)
      assert.deepInclude(own, { runAsUser: 7, runAsNonRoot: true, readOnlyRootFilesystem: true })
      assert.notProperty(own, "runAsGroup")
      assert.deepInclude(yield* make({}), { runAsNonRoot: false, readOnlyRootFilesystem: false })
    })
  )

  run(
    "references are resolved; what is missing is left out if it may be, and named if not",
    Effect.gen(function*() {
      yield* objects
      const { envs } = yield* make({
        envs: [
          { name: "V", value: "v" },
          secret("s", "k"),
          { name: "C", valueFrom: { configMapKeyRef: { name: "c", key: "k" } } },
          secret("s", "absent", true),
          secret("absent", "k", true)
        ]
      })
      assert.deepStrictEqual(envs, [
        { name: "V", value: "v" },
        { name: "A", value: "hidden" },
        { name: "C", value: "plain" }
      ])
      for (const missing of [secret("s", "absent"), secret("absent", "k")]) {
        const error = yield* Effect.flip(make({ envs: [{ name: "V" }, missing] }))
        assert(error._tag === "FailedPrecondition", error.message)
        assert.strictEqual(error.reason, "SecretKeyMissing")
        assert.include(error.problem, "spec.envs[1]")
      }
    })
  )
})
