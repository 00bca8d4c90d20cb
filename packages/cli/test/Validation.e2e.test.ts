import { assert, describe, layer } from "@effect/vitest"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import { Effect } from "effect"
import * as AnyMessage from "./e2e/AnyMessage.ts"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Machine from "./e2e/Machine.ts"
import * as RawCall from "./e2e/RawCall.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const good = { image: "busybox", poolRef: "default-pool" }

describe("validation", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect.each<{ what: string; spec: object; says: string }>([
      { what: "no image", spec: { poolRef: "default-pool" }, says: "spec.image" },
      { what: "an empty image", spec: { ...good, image: "" }, says: "spec.image" },
      { what: "no pool", spec: { image: "busybox" }, says: "spec.poolRef" },
      { what: "an empty pool", spec: { ...good, poolRef: "" }, says: "spec.poolRef" },
      { what: "a bad policy", spec: { ...good, failurePolicy: "Never" }, says: "spec.failurePolicy" },
      { what: "a bad mode", spec: { ...good, consistencyMode: "slow" }, says: "spec.consistencyMode" },
      { what: "a variable without a name", spec: { ...good, envs: [{ value: "x" }] }, says: "spec.envs[0].name" },
      { what: "a variable with an empty name", spec: { ...good, envs: [{ name: "" }] }, says: "spec.envs[0].name" },
      { what: "port 0", spec: { ...good, exposedPorts: [0] }, says: "spec.exposedPorts[0]" },
      { what: "port 65536", spec: { ...good, exposedPorts: [65_536] }, says: "spec.exposedPorts[0]" },
      { what: "a port twice", spec: { ...good, exposedPorts: [80, 80] }, says: "spec.exposedPorts[1]" },
      { what: "no time to recover", spec: { ...good, recoveryTimeoutSeconds: 0 }, says: "recoveryTimeoutSeconds" },
      { what: "a date that is none", spec: { ...good, expireTime: "tomorrow" }, says: "spec.expireTime" },
      {
        what: "a user that no sandbox has",
        spec: { ...good, securityContext: { runAsUser: 70_000 } },
        says: "spec.securityContext.runAsUser"
      },
      {
        what: "two expiries",
        spec: { ...good, ttlSeconds: 5, expireTime: "2030-01-01T00:00:00Z" },
        says: "spec.ttlSeconds"
      }
    ])("kubectl apply refuses $what", ({ says, spec }) =>
      Effect.gen(function*() {
        const { kubectlApply } = yield* LocalStack.LocalStack
        const { code, stderr } = yield* kubectlApply(Resources.sandboxManifest("bad", spec))
        assert.strictEqual(code, 1)
        assert.include(stderr, says)
      }))

    it.effect.each<{ what: string; args: ReadonlyArray<string>; says: string }>([
      { what: "no image", args: [], says: "--image" },
      { what: "an empty image", args: ["--image="], says: "--image" },
      { what: "an empty pool", args: ["--image", "busybox", "--pool="], says: "--pool" },
      { what: "a bad policy", args: ["--image", "busybox", "--failure-policy", "Never"], says: "--failure-policy" },
      { what: "a bad mode", args: ["--image", "busybox", "--mode", "slow"], says: "--mode" },
      { what: "a variable without a name", args: ["--image", "busybox", "-e", "=x"], says: "--env" },
      { what: "port 0", args: ["--image", "busybox", "--ports", "0"], says: "--ports" },
      { what: "port 65536", args: ["--image", "busybox", "--ports", "65536"], says: "--ports" },
      { what: "a port twice", args: ["--image", "busybox", "--ports", "80,80"], says: "--ports" },
      { what: "no time to live", args: ["--image", "busybox", "--ttl", "0"], says: "--ttl" },
      { what: "a user by name", args: ["--image", "busybox", "--user", "app"], says: "--user" },
      { what: "no processor", args: ["--image", "busybox", "--cpus", "0"], says: "--cpus" },
      { what: "docker's megabytes", args: ["--image", "busybox", "--memory", "512m"], says: "--memory" },
      { what: "a label without a value", args: ["--image", "busybox", "--label", "app"], says: "--label" }
    ])("fsb-ctl run refuses $what", ({ args, says }) =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const { code, stderr, stdout } = yield* fsbCtl("run", "-d", "bad", ...args)
        assert.strictEqual(code, 125)
        assert.strictEqual(stdout, "")
        assert.include(stderr, says)
      }))

    it.effect("has made nothing of all that it refused", () =>
      Effect.gen(function*() {
        const { fsbCtl, kubectl } = yield* LocalStack.LocalStack
        assert.strictEqual(yield* Resources.stdoutOf(fsbCtl("list", "-o", "name")), "")
        assert.strictEqual(yield* Resources.stdoutOf(kubectl("get", "sandboxes", "-A", "-o", "name")), "")
        assert.deepStrictEqual(yield* Machine.containers(), [])
      }))

    it.effect("holds a sandbox to its pool's limits and security, by the name of the field", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        yield* Resources.declarePool("strict", {
          capacity: { poolMin: 1 },
          sandboxResources: { memory: "64Mi" },
          sandboxSecurity: { runAsUser: 1000, readOnlyRootFilesystem: true }
        })
        const sandboxes = yield* Sandboxes
        const above = yield* eventually(Effect.flip(
          sandboxes.create({ pool: "strict", image: "busybox", resources: { memory: "128Mi" } })
        ))
        assert.include(above.message, "spec.resources.memory")
        const script = "id -u; touch /x 2>/dev/null || echo refused"
        const inside = yield* eventually(Resources.stdoutOf(
          fsbCtl("run", "--rm", "--pool", "strict", "--image", "busybox", "--", "sh", "-c", script)
        ))
        assert.strictEqual(inside, "1000\nrefused\n")
        assert.strictEqual(yield* Resources.stdoutOf(fsbCtl("list", "-o", "name")), "")
        yield* Resources.deleteAll("sandboxpool", "strict")
      }))

    it.effect("refuses changes of what makes a sandbox the one it is", () =>
      Effect.gen(function*() {
        const { fsbCtl, kubectl } = yield* LocalStack.LocalStack
        yield* Resources.stdoutOf(fsbCtl("run", "-d", "fixed", "--image", "busybox", "--", "true"))
        const { metadata, spec } = yield* Resources.sandbox("fixed")
        const changes: ReadonlyArray<object> = [
          { image: "alpine" },
          { poolRef: "other" },
          { command: ["sh"] },
          { args: ["false"] },
          { args: null },
          { envs: [{ name: "A", value: "1" }] },
          { workingDir: "/tmp" },
          { exposedPorts: [80] },
          { consistencyMode: "strong" },
          { resources: { memory: "64Mi" } },
          { securityContext: { runAsUser: 0 } }
        ]
        for (const change of changes) {
          const patch = JSON.stringify({ spec: change })
          const { code, stderr } = yield* kubectl("patch", "sandbox", "fixed", "--type", "merge", "-p", patch)
          assert.strictEqual(code, 1, patch)
          assert.include(stderr, `spec.${Object.keys(change)[0]}`)
          assert.include(stderr, "can't be changed")
        }
        const after = yield* Resources.sandbox("fixed")
        assert.deepStrictEqual(after.spec, spec)
        assert.strictEqual(after.metadata.generation, metadata.generation)
        yield* Resources.deleteAll("sandbox", "fixed")
      }))

    it.effect("every call answers whatever it is sent with a status that says something, and makes nothing of it", () =>
      Effect.gen(function*() {
        const { fsbCtl, home, kubectl } = yield* LocalStack.LocalStack
        const shown = Effect.all([
          Resources.stdoutOf(kubectl("get", "sandboxes", "-A", "-o", "name")),
          Resources.stdoutOf(kubectl("get", "sandboxpools", "-A", "-o", "jsonpath={.items[*].spec}")),
          Resources.stdoutOf(fsbCtl("image", "list", "-o", "name"))
        ])
        const before = yield* shown
        const session = yield* RawCall.session(`${home}/run/fastpath.sock`)
        const next = AnyMessage.random(20_261_125)
        const calls = FastPathService.methods.flatMap((method) =>
          Array.from({ length: 12 }, (_, turn) => {
            const message = turn % 2 === 0
              ? AnyMessage.bytes(next, method.input)
              : Uint8Array.from({ length: next(300) }, () => next(256))
            return { method: method.name, message }
          })
        )
        const answers = yield* Effect.forEach(calls, ({ message, method }) =>
          Effect.map(
            RawCall.status(session, `/${FastPathService.typeName}/${method}`, RawCall.frame(message)),
            (status) => ({ method, status, message: Buffer.from(message).toString("base64") })
          ), { concurrency: 64 })
        // Neither silence nor UNKNOWN nor INTERNAL.
        assert.deepStrictEqual(answers.filter(({ status }) => [-1, 2, 13].includes(status)), [])
        assert.isAbove(answers.filter(({ status }) => status === 3).length, calls.length / 2)
        // A frame that promises more than it holds, and one that promises compression.
        const cut = RawCall.frame(new Uint8Array(8)).subarray(0, 9)
        const compressed = RawCall.frame(new Uint8Array(8)).fill(1, 0, 1)
        for (const body of [cut, compressed, new Uint8Array(0)]) {
          const status = yield* RawCall.status(session, `/${FastPathService.typeName}/CreateSandbox`, body)
          assert.notInclude([0, -1], status)
        }
        assert.deepStrictEqual(yield* shown, before)
      }).pipe(Effect.scoped))
  })
})
