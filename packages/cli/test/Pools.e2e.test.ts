import { assert, describe, layer } from "@effect/vitest"
import { Sandboxes, terminal } from "@fast-sandbox/client/Sandboxes"
import * as Home from "@fast-sandbox/local/Home"
import { Effect } from "effect"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { leavesNothing } from "./e2e/Census.ts"
import { eventually } from "./e2e/Eventually.ts"
import * as LocalStack from "./e2e/LocalStack.ts"
import * as Resources from "./e2e/Resources.ts"
import * as TestStack from "./e2e/TestStack.ts"

leavesNothing()

const sleeper = { image: "busybox", args: ["sleep", "600"], terminationGracePeriodSeconds: 0 }

const reaches = (pool: string, ready: number) =>
  eventually(Effect.gen(function*() {
    const { status } = yield* Resources.pool(pool)
    assert.strictEqual(status?.ready, ready)
  }))

const names = (pool: string) =>
  Effect.map(
    Resources.agentPods(pool),
    (pods) =>
      pods.filter(({ metadata }) => metadata.deletionTimestamp === undefined).map(({ metadata }) => metadata.name)
  )

describe("pools", () => {
  layer(TestStack.layer, TestStack.options)((it) => {
    it.effect("grows for what waits, up to its limit, and never removes an agent that holds a sandbox", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const capacity = { poolMin: 1, poolMax: 2 }
        yield* Resources.declarePool("growing", { capacity, maxSandboxesPerPod: 1 })
        yield* reaches("growing", 1)
        for (const name of ["g-1", "g-2", "g-3"]) {
          yield* Resources.declareSandbox(name, { ...sleeper, poolRef: "growing" })
        }
        yield* eventually(Effect.gen(function*() {
          const phases = (yield* sandboxes.list()).map(({ phase }) => phase).toSorted()
          assert.deepStrictEqual(phases, ["Pending", "Running", "Running"])
        }))
        yield* reaches("growing", 2)
        const agents = new Set(
          (yield* sandboxes.list()).filter(({ phase }) => phase === "Running").map((s) => s.agentPod)
        )
        assert.strictEqual(agents.size, 2)
        // One agent too many: it is drained, but what runs on it runs on.
        yield* Resources.declarePool("growing", { capacity: { poolMin: 1, poolMax: 1 }, maxSandboxesPerPod: 1 })
        const drained = yield* eventually(Effect.gen(function*() {
          const pods = (yield* Resources.agentPods("growing")).filter(({ metadata }) =>
            metadata.annotations?.["fast-sandbox.io/drain"] !== undefined
          )
          assert.lengthOf(pods, 1)
          return pods[0]?.metadata.name
        }))
        assert.sameMembers([...yield* names("growing")], [...agents])
        const held = (yield* sandboxes.list()).find(({ agentPod, phase }) =>
          agentPod === drained && phase === "Running"
        )
        assert.isDefined(held)
        yield* Resources.deleteAll("sandbox", held?.name ?? "")
        // The one that waits does not get the drained agent's slot, and the agent goes.
        yield* eventually(Effect.gen(function*() {
          assert.notInclude(yield* names("growing"), drained)
        }))
        const left = yield* sandboxes.list()
        assert.deepStrictEqual(left.map(({ phase }) => phase).toSorted(), ["Pending", "Running"])
        yield* Resources.deleteAll("sandbox", ...left.map(({ name }) => name))
        yield* Resources.deleteAll("sandboxpool", "growing")
      }))

    it.effect("keeps bufferMin free; what has ended is no demand", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        yield* Resources.declarePool("buffered", { capacity: { poolMax: 2, bufferMin: 1 }, maxSandboxesPerPod: 2 })
        yield* reaches("buffered", 1)
        for (const name of ["ended-1", "ended-2", "ended-3"]) {
          yield* sandboxes.create({ ...sleeper, name, pool: "buffered", args: ["true"] })
          yield* sandboxes.wait(name, { for: terminal })
        }
        yield* eventually(Effect.gen(function*() {
          const { status } = yield* Resources.pool("buffered")
          assert.deepInclude(status?.slots, { used: 0, total: 2 })
          assert.deepInclude(status, { desired: 1, replicas: 1 })
        }))
        yield* sandboxes.create({ ...sleeper, name: "b-1", pool: "buffered" })
        yield* sandboxes.create({ ...sleeper, name: "b-2", pool: "buffered" })
        yield* reaches("buffered", 2)
        assert.deepInclude((yield* Resources.pool("buffered")).status?.slots, { used: 2, total: 4 })
        yield* Resources.deleteAll("sandbox", "ended-1", "ended-2", "ended-3", "b-1", "b-2")
        yield* Resources.deleteAll("sandboxpool", "buffered")
      }))

    it.effect("replaces its agents one by one when their template changes, the one that holds a sandbox last", () =>
      Effect.gen(function*() {
        const sandboxes = yield* Sandboxes
        const spec = { capacity: { poolMin: 2, poolMax: 3 }, maxSandboxesPerPod: 2 }
        yield* Resources.declarePool("renewed", spec)
        yield* reaches("renewed", 2)
        const old = yield* names("renewed")
        const held = yield* sandboxes.create({ ...sleeper, name: "held", pool: "renewed" })
        yield* Resources.declarePool("renewed", {
          ...spec,
          agentTemplate: { metadata: { annotations: { version: "2" } } }
        })
        yield* eventually(
          Effect.gen(function*() {
            const now = yield* names("renewed")
            assert.isAtMost(now.length, 3)
            assert.isAtLeast((yield* Resources.pool("renewed")).status?.ready ?? 0, 2)
            assert.deepStrictEqual(now.filter((name) => old.includes(name)), [held.agentPod])
          }).pipe(Effect.tapDefect(() => Effect.void))
        )
        assert.deepInclude(yield* sandboxes.get("held"), { phase: "Running", instanceId: held.instanceId })
        yield* Resources.deleteAll("sandbox", "held")
        yield* eventually(Effect.gen(function*() {
          const now = yield* Resources.agentPods("renewed")
          assert.lengthOf(now, 2)
          assert.isTrue(now.every(({ metadata }) => metadata.annotations?.version === "2"))
        }))
        yield* Resources.deleteAll("sandboxpool", "renewed")
      }))

    it.effect("runs sandboxes under gVisor, and says which runtime its nodes lack instead of making more agents", () =>
      Effect.gen(function*() {
        const { fsbCtl } = yield* LocalStack.LocalStack
        const capacity = { poolMax: 5, bufferMin: 8 }
        yield* Resources.declarePool("lacking", { capacity, runtimeType: "kata" })
        yield* Resources.declarePool("guarded", { capacity: { poolMin: 1 }, runtimeType: "gvisor" })
        yield* reaches("guarded", 1)
        const run = ["run", "--rm", "--pool", "guarded", "--image", "busybox", "--", "dmesg"]
        assert.include(yield* Resources.stdoutOf(fsbCtl(...run)), "Starting gVisor")
        yield* eventually(Effect.gen(function*() {
          const { status } = yield* Resources.pool("lacking")
          const conditions = new Map(status?.conditions?.map((condition) => [condition.type, condition]))
          assert.deepInclude(conditions.get("RuntimeReady"), { status: "False", reason: "RuntimeMissing" })
          assert.include(conditions.get("RuntimeReady")?.message, "containerd-shim-kata-v2 is not installed")
          assert.strictEqual(conditions.get("Ready")?.reason, "RuntimeMissing")
          assert.strictEqual(status?.slots?.total, 0)
        }))
        const refused = yield* fsbCtl("run", "-d", "nowhere", "--pool", "lacking", "--image", "busybox", "--", "true")
        assert.strictEqual(refused.code, 125)
        // As many as the buffer wanted before the first of them could say so.
        assert.lengthOf(yield* Resources.agentPods("lacking"), 2)
        yield* Resources.deleteAll("sandboxpool", "lacking", "guarded")
      }))

    it.effect("hold all sandboxes of an agent together to the limits of its Pod", () =>
      Effect.gen(function*() {
        const { home } = yield* LocalStack.LocalStack
        const sandboxes = yield* Sandboxes
        const limits = { cpu: "500m", memory: "96Mi" }
        yield* Resources.declarePool("limited", {
          capacity: { poolMin: 1, poolMax: 1 },
          agentTemplate: { spec: { containers: [{ name: "agent", resources: { limits } }] } }
        })
        yield* reaches("limited", 1)
        // 60 MiB in one process, which is the sandbox's first; each may have 512.
        const taking = "mknod /tmp/p p; sleep 600 < /tmp/p & exec dd if=/dev/zero of=/tmp/p bs=60M count=1"
        const greedy = { ...sleeper, pool: "limited", args: ["sh", "-c", taking] }
        yield* sandboxes.create({ ...greedy, name: "greedy-1" })
        const [pod] = yield* Resources.agentPods("limited")
        const { cgroupParent } = yield* Home.make(home)
        const own = `${cgroupParent}/pod${pod?.metadata.uid}`
        const limitOf = (legacy: string, unified: string, path: string) =>
          [`/sys/fs/cgroup/${legacy.split(".")[0]}${path}/${legacy}`, `/sys/fs/cgroup${path}/${unified}`]
            .filter((file) => existsSync(file)).map((file) => readFileSync(file, "utf8").split(/\s/)[0])
        assert.deepStrictEqual(limitOf("memory.limit_in_bytes", "memory.max", own), [String(96 * 2 ** 20)])
        assert.deepStrictEqual(limitOf("cpu.cfs_quota_us", "cpu.max", own), ["50000"])
        // A sandbox's default is a whole core: it gets what there is, and so does what waits to become one.
        const cgroup = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup"].map((root) => `${root}${own}`).find(existsSync) ?? ""
        const held = readdirSync(cgroup, { withFileTypes: true }).filter((entry) =>
          entry.isDirectory() && !entry.name.includes("anchor")
        )
        assert.isNotEmpty(held)
        for (const { name } of held) {
          assert.deepStrictEqual(limitOf("cpu.cfs_quota_us", "cpu.max", `${own}/${name}`), ["50000"])
        }
        yield* sandboxes.create({ ...greedy, name: "greedy-2" })
        yield* eventually(Effect.gen(function*() {
          const found = [yield* sandboxes.get("greedy-1"), yield* sandboxes.get("greedy-2")]
          assert.sameMembers(found.map(({ phase }) => phase), ["Running", "Failed"])
          assert.strictEqual(found.find(({ phase }) => phase === "Failed")?.reason, "OOMKilled")
        }))
        yield* Resources.deleteAll("sandbox", "greedy-1", "greedy-2")
        yield* Resources.deleteAll("sandboxpool", "limited")
        yield* eventually(Effect.sync(() => {
          assert.isEmpty(["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].filter((root) => existsSync(`${root}${own}`)))
        }))
      }))
  })
})
