/** An agent in the cgroup of a Pod's container, as a kubelet starts it: the Pod's limits hold for all its sandboxes. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, layer } from "@effect/vitest"
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Effect, Layer } from "effect"
import { randomUUID } from "node:crypto"
import { existsSync } from "node:fs"
import * as Fixture from "./AgentFixture.ts"

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

const limits = {
  cpu: { period: 100_000, quota: 50_000 },
  memory: { limit: 256 * 2 ** 20 },
  pids: { limit: 100 }
}

layer(node, { excludeTestServices: true })("an agent in a Pod", (it) => {
  it.effect("has its sandboxes below the Pod's cgroup, beside its own container's", () =>
    Effect.gen(function*() {
      const { cgroupsPath } = yield* PrivateContainerd
      const uid = randomUUID()
      const root = `/kubepods-test${cgroupsPath}`
      const pod = `${root}/burstable/${PodCgroups.nameOf(uid)}`
      const parent = `${pod}${cgroupsPath}`
      yield* Effect.addFinalizer(() => Cgroups.removeEmpty(root))
      yield* Cgroups.make(pod, limits)
      yield* Cgroups.make(`${pod}/container`, limits)
      const procs = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
        .map((tree) => `${tree}${pod}/container/cgroup.procs`).find((path) => existsSync(path)) ?? ""
      const start = Fixture.startProcess({ POD_UID: uid }, ["sh", "-c", "echo $$ > \"$0\" && exec \"$@\"", procs])
      const first = yield* start

      // It may have 512 processes and a whole core, and gets what the Pod has.
      const crowd = Fixture.request([
        "sh",
        "-c",
        "(for n in $(seq 150); do sleep 600 & done) 2>/dev/null; exec sleep 600"
      ])
      yield* first.client.create(crowd)
      assert.include(yield* Cgroups.children(parent), crowd.instanceId)
      assert.strictEqual(yield* Cgroups.cores(`${parent}/${crowd.instanceId}`), 0.5)
      yield* Fixture.eventually(
        "the Pod is full",
        Effect.map(Cgroups.processes(parent), ({ length }) => length >= limits.pids.limit - 10)
      )
      assert.isAtMost((yield* Cgroups.processes(parent)).length, limits.pids.limit)

      // A new container of the same Pod finds them where they were.
      yield* Fixture.kill(first, "SIGKILL")
      const second = yield* start
      assert.isAbove((yield* Cgroups.processes(`${parent}/${crowd.instanceId}`)).length, 1)
      yield* second.client.delete({ instanceId: crowd.instanceId, gracePeriodSeconds: 0 })
      assert.notInclude(yield* Cgroups.children(parent), crowd.instanceId)
      yield* Fixture.kill(second, "SIGTERM")
    }).pipe(Effect.scoped), 60_000)
})
