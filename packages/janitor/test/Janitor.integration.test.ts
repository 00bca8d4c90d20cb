import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Images } from "@fast-sandbox/containerd/Images"
import { Leases } from "@fast-sandbox/containerd/Leases"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"
import { RuntimeProfile } from "@fast-sandbox/containerd/RuntimeProfile"
import { ShimGroups } from "@fast-sandbox/containerd/ShimGroups"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import { containerLabels } from "@fast-sandbox/core/Names"
import { Janitor } from "@fast-sandbox/janitor/Janitor"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeError, Unavailable } from "@fast-sandbox/kube/KubeError"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import * as PrivateContainerd from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { Clock, Effect, FileSystem, Layer, Logger } from "effect"
import { ChildProcess } from "effect/process"
import { confirmMillis, type Finding } from "../src/Findings.ts"
import { agent, container, eventually, newId, nodeName, places, sandbox } from "./Node.ts"

const Machine = Layer.effectDiscard(Effect.gen(function*() {
  yield* (yield* Images).load(OciArchive.make([yield* TestImages.busybox]))
})).pipe(
  Layer.orDie,
  Layer.provideMerge(PrivateContainerd.layer()),
  Layer.provideMerge(NodeServices.layer),
  Layer.provideMerge(Logger.layer([]))
)

const manual = (mode: "remove" | "report") =>
  Layer.unwrap(Effect.map(places, (places) => Janitor.layerManual({ nodeName, places, mode })))

/** A janitor and an API of its own for each test, on the containerd of them all. */
const withJanitor = (mode: "remove" | "report") => manual(mode).pipe(Layer.provideMerge(MemoryKube.layer))

/** Runs as if it were so much later; pauses stay as long as they are. */
const later = (millis: number) => <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.clockWith((clock) => {
    const nanos = BigInt(millis) * 1_000_000n
    const shifted: Clock.Clock = {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis),
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + nanos,
      currentTimeNanos: Effect.map(clock.currentTimeNanos, (now) => now + nanos),
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe() + nanos,
      monotonicTimeNanos: Effect.map(clock.monotonicTimeNanos, (now) => now + nanos),
      sleep: (duration) => clock.sleep(duration)
    }
    return Effect.provideService(self, Clock.Clock, shifted)
  })

/** Once everything that the test made has reached the watches. */
const settled = Janitor.use(({ plan }) =>
  eventually(plan, (findings) => !findings.some(({ cause }) => cause === "Unanswered"))
)

/** A deletion that did get to its end shows it to one of so many looks, and then it takes another one. */
const looks = 20
const isLeft = (finding: Finding | undefined): boolean => finding?.kind === "Shim" || finding?.kind === "Task"

const sweep = Janitor.use(({ sweep }) => sweep)

/** Two scans, as far apart as it takes, the first so much later. */
const confirmedAt = Effect.fnUntraced(function*(millis: number) {
  yield* settled
  yield* later(millis)(sweep)
  return yield* later(millis + confirmMillis + 1)(sweep)
})

const confirmed = confirmedAt(0)

const subjects = (findings: ReadonlyArray<{ readonly subject: string }>) =>
  findings.map(({ subject }) => subject).toSorted()

const assertNothing = Effect.gen(function*() {
  const { directory } = yield* PrivateContainerd.PrivateContainerd
  const fileSystem = yield* FileSystem.FileSystem
  yield* eventually(PrivateContainerd.census, ({ cgroups, shims }) => cgroups.length + shims.length === 0)
  const census = yield* PrivateContainerd.census
  for (const left of [census.containers, census.tasks, census.snapshots, census.leases, census.mounts]) {
    assert.deepStrictEqual(left, [])
  }
  assert.deepStrictEqual(census.runtimeState, [])
  for (const name of ["logs", "agents"]) {
    assert.deepStrictEqual(
      yield* Effect.orElseSucceed(fileSystem.readDirectory(`${directory}/${name}`), () => []),
      []
    )
  }
})

/** An API that refuses connections. */
const down = ({ kind, verb }: { readonly kind: string; readonly verb: string }) =>
  Effect.fail(
    new KubeError({
      method: verb,
      path: `/${kind}`,
      reason: new Unavailable({ problem: "connection refused", sent: false })
    })
  )

const run = (command: string, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(ChildProcess.make(command, args), ({ exitCode }) => exitCode).pipe(Effect.scoped)

const gone = { agentName: "gone", agentUid: "uid-of-gone" } as const

layer(Machine, { excludeTestServices: true, timeout: "60 seconds" })("Janitor", (it) => {
  it.effect("removes what the death of an agent leaves, whatever state it was in", () =>
    Effect.gen(function*() {
      const running = yield* container({ ...gone, sandboxName: "a" })
      const created = yield* container({ ...gone, sandboxName: "b", state: "created" })
      const recorded = yield* container({ ...gone, sandboxName: "c", state: "recorded" })
      const parked = yield* container(gone)
      const paused = yield* container({ ...gone, sandboxName: "d" })
      yield* (yield* Tasks).pause(paused)
      const { agentsDirectory } = yield* places
      yield* (yield* FileSystem.FileSystem).makeDirectory(`${agentsDirectory}/${gone.agentName}/slots`, {
        recursive: true
      })
      yield* settled
      const first = yield* sweep
      assert.deepStrictEqual(subjects(first.findings), [running, created, recorded, parked, paused].toSorted())
      assert.deepStrictEqual(first.removed, [])
      const second = yield* later(confirmMillis + 1)(sweep)
      assert.deepStrictEqual(second.failed, [])
      assert.deepStrictEqual(subjects(second.removed), subjects(first.findings))
      // The agent's own directory goes after its containers.
      assert.deepStrictEqual(subjects((yield* confirmed).removed), [gone.agentName])
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("removes at once what a Pod leaves that was seen going", () =>
    Effect.gen(function*() {
      const client = yield* KubeClient
      const owner = yield* agent("leaving")
      const id = yield* container({ ...owner, sandboxName: "a", resourceUid: yield* sandbox("a") })
      yield* settled
      assert.deepStrictEqual((yield* sweep).findings, [])
      yield* client.delete(Pod, { name: "leaving" })
      yield* eventually(Janitor.use(({ plan }) => plan), (findings) => findings.length > 0)
      assert.deepStrictEqual(subjects((yield* sweep).removed), [id])
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("removes instances of resources that are gone or others, and leaves those that live or wait", () =>
    Effect.gen(function*() {
      const client = yield* KubeClient
      const owner = yield* agent("living")
      const live = yield* container({ ...owner, sandboxName: "live", resourceUid: yield* sandbox("live") })
      const unbound = yield* container({ ...owner, sandboxName: "unbound" })
      const parked = yield* container({ ...owner, state: "created" })
      const orphan = yield* container({ ...owner, sandboxName: "orphan", resourceUid: "uid-deleted" })
      yield* sandbox("replaced")
      const replaced = yield* container({ ...owner, sandboxName: "replaced", resourceUid: "uid-before" })
      assert.deepStrictEqual(subjects((yield* confirmed).removed), [orphan, replaced].toSorted())
      const containers = yield* Containers
      assert.deepStrictEqual(
        subjects((yield* containers.list()).map(({ id }) => ({ subject: id }))),
        [
          live,
          unbound,
          parked
        ].toSorted()
      )
      assert.strictEqual((yield* (yield* Tasks).get({ containerId: live })).status, "running")
      yield* client.delete(FastSandbox.Sandbox, { name: "live" })
      yield* client.delete(Pod, { name: "living" })
      yield* eventually(Janitor.use(({ plan }) => plan), (findings) => findings.length === 3)
      yield* sweep
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("ends a task whose record is gone, and leaves strangers' tasks", () =>
    Effect.gen(function*() {
      const id = yield* container({ ...gone, sandboxName: "a" })
      const stranger = yield* container({
        agentName: "",
        agentUid: "",
        labels: { [containerLabels.managed]: "", "io.cri-containerd.kind": "container" }
      })
      yield* (yield* Containers).delete(id)
      assert.deepStrictEqual(subjects((yield* confirmed).removed), [id])
      const tasks = yield* Tasks
      assert.deepStrictEqual((yield* tasks.list).map(({ containerId }) => containerId), [stranger])
      yield* (yield* Containers).update(stranger, {
        labels: {
          [containerLabels.managed]: "true",
          [containerLabels.agentName]: gone.agentName,
          [containerLabels.agentUid]: gone.agentUid
        }
      })
      // An image's label on a container of the kubelet's.
      assert.deepStrictEqual((yield* confirmed).findings, [])
      yield* (yield* Containers).update(stranger, { labels: { "io.cri-containerd.kind": "" } })
      assert.deepStrictEqual(subjects((yield* confirmed).removed), [stranger])
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("ends the shim of a task whose deletion was cut off", () =>
    Effect.gen(function*() {
      const tasks = yield* Tasks
      const cutOff = Effect.gen(function*() {
        const id = yield* container({ ...gone, sandboxName: "a" })
        yield* tasks.killAll(id, 9)
        yield* tasks.wait({ containerId: id })
        yield* tasks.delete({ containerId: id }).pipe(Effect.timeoutOption("3 millis"))
        yield* (yield* Containers).delete(id)
        return id
      })
      const left = yield* cutOff.pipe(
        Effect.tap(() => settled),
        Effect.flatMap((id) =>
          Effect.map(Janitor.use(({ plan }) => plan), (plan) => plan.find(({ subject }) => subject === id)).pipe(
            Effect.repeat({ times: looks, while: isLeft })
          )
        ),
        Effect.repeat({ times: 20, until: isLeft })
      )
      const { removed } = yield* confirmed
      assert.include(subjects(removed), left?.subject)
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("removes snapshots, leases, logs and cgroups of nobody", () =>
    Effect.gen(function*() {
      const { cgroupParent, logDirectory } = yield* places
      const fileSystem = yield* FileSystem.FileSystem
      const snapshots = yield* Snapshots
      const leases = yield* Leases
      const snapshot = yield* newId
      yield* snapshots.prepare(snapshot, "", {
        labels: { [containerLabels.managed]: "true", "containerd.io/gc.root": "1" }
      })
      yield* snapshots.prepare("foreign", "", { labels: { "containerd.io/gc.root": "1" } })
      // containerd would collect it itself if it had expired by its own clock.
      yield* leases.create("fast-sandbox-expired", { expiresAfter: "1 minute" })
      yield* leases.create("fast-sandbox-current", { expiresAfter: "1 hour" })
      yield* leases.create("foreign", { expiresAfter: "1 minute" })
      const log = yield* newId
      yield* fileSystem.makeDirectory(`${logDirectory}/${log}`, { recursive: true })
      yield* run("mkfifo", `${logDirectory}/${log}/stdin`)
      yield* fileSystem.makeDirectory(`${logDirectory}/journal`, { recursive: true })
      const cgroup = yield* newId
      yield* fileSystem.makeDirectory(`/sys/fs/cgroup/pids${cgroupParent}/${cgroup}/inner`, { recursive: true })
      // Below the cgroup of an agent's Pod, as on one machine and as a kubelet makes it.
      const nested = [yield* newId, yield* newId] as const
      const pods = [
        `/sys/fs/cgroup/pids${cgroupParent}/${PodCgroups.nameOf(yield* newId)}`,
        `/sys/fs/cgroup/pids/kubepods-test/burstable/${PodCgroups.nameOf(yield* newId)}`
      ] as const
      yield* fileSystem.makeDirectory(`${pods[0]}/${nested[0]}`, { recursive: true })
      yield* fileSystem.makeDirectory(`${pods[1]}${cgroupParent}/${nested[1]}`, { recursive: true })
      yield* fileSystem.makeDirectory(`${pods[1]}/of-the-kubelet`, { recursive: true })
      yield* Effect.addFinalizer(() =>
        Effect.andThen(
          Cgroups.removeEmpty("/kubepods-test"),
          Cgroups.removeEmpty(pods[0].slice("/sys/fs/cgroup/pids".length))
        )
      )
      const { failed, removed } = yield* confirmedAt(2 * 60_000)
      assert.deepStrictEqual(failed, [])
      assert.deepStrictEqual(
        subjects(removed),
        ["fast-sandbox-expired", cgroup, log, snapshot, ...nested].toSorted()
      )
      assert.isFalse(yield* fileSystem.exists(`${pods[1]}${cgroupParent}/${nested[1]}`))
      assert.isTrue(yield* fileSystem.exists(`${pods[1]}/of-the-kubelet`))
      yield* Cgroups.removeEmpty(pods[0].slice("/sys/fs/cgroup/pids".length))
      const left = yield* PrivateContainerd.census
      assert.deepStrictEqual(left.snapshots, ["foreign"])
      assert.deepStrictEqual(left.leases, ["fast-sandbox-current", "foreign"])
      assert.deepStrictEqual(yield* fileSystem.readDirectory(logDirectory), ["journal"])
      yield* snapshots.remove("foreign")
      yield* leases.delete("foreign")
      yield* leases.delete("fast-sandbox-current")
      yield* fileSystem.remove(`${logDirectory}/journal`, { recursive: true })
      yield* assertNothing
    }).pipe(Effect.scoped, Effect.provide(withJanitor("remove"))))

  it.effect("spares everything while the API can't answer", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryKube
      const id = yield* container({ ...gone, sandboxName: "a", state: "created" })
      yield* settled
      yield* sweep
      // The watches are still up, so only the last question finds out.
      yield* memory.setGate({ before: down })
      const outage = yield* later(confirmMillis + 1)(sweep)
      assert.deepStrictEqual(outage.removed, [])
      assert.deepStrictEqual(subjects(outage.spared), [id])
      yield* memory.setGate({})
      assert.deepStrictEqual(subjects((yield* later(confirmMillis + 1)(sweep)).removed), [id])
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("spares everything when the API never answered", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryKube
      const id = yield* container({ ...gone, sandboxName: "a", state: "created" })
      yield* memory.setGate({ before: down })
      yield* Effect.gen(function*() {
        for (const hours of [0, 1, 48]) {
          const { findings, removed } = yield* later(hours * 3_600_000)(sweep)
          assert.deepStrictEqual(removed, [])
          assert.isTrue(findings.every(({ cause, verdict }) => cause === "Unanswered" && verdict === "spare"))
          assert.include(subjects(findings), id)
        }
        yield* memory.setGate({})
        assert.deepStrictEqual(subjects((yield* confirmed).removed), [id])
      }).pipe(Effect.provide(manual("remove")))
      yield* assertNothing
    }).pipe(Effect.provide(MemoryKube.layer)))

  it.effect("asks the API itself about what a late cache misses", () =>
    Effect.gen(function*() {
      const memory = yield* MemoryKube
      // Lists are answered, and then nothing more is heard.
      yield* memory.setGate({ before: ({ verb }) => verb === "watch" ? Effect.never : Effect.void })
      yield* Effect.gen(function*() {
        yield* settled
        const owner = yield* agent("new")
        const live = yield* container({
          ...owner,
          sandboxName: "a",
          resourceUid: yield* sandbox("a"),
          state: "created"
        })
        const orphan = yield* container({ ...gone, sandboxName: "b", state: "created" })
        const { removed, spared } = yield* confirmed
        assert.deepStrictEqual(subjects(spared), [live])
        assert.deepStrictEqual(subjects(removed), [orphan])
        yield* (yield* KubeClient).delete(Pod, { name: "new" })
        assert.deepStrictEqual(subjects((yield* later(2 * confirmMillis)(sweep)).removed), [live])
      }).pipe(Effect.provide(manual("remove")))
      yield* assertNothing
    }).pipe(Effect.provide(MemoryKube.layer)))

  it.effect("leaves containers of another installation on the same containerd", () =>
    Effect.gen(function*() {
      const id = yield* container({ ...gone, sandboxName: "a", state: "created" })
      const { cgroupParent, ...others } = yield* places
      const stranger = Janitor.layerManual({
        nodeName,
        mode: "remove",
        places: { ...others, cgroupParent: `${cgroupParent}-of-others` }
      })
      const { findings } = yield* Effect.provide(confirmed, stranger)
      assert.deepStrictEqual(findings, [])
      assert.deepStrictEqual(subjects((yield* Effect.provide(confirmed, manual("remove"))).removed), [id])
      yield* assertNothing
    }).pipe(Effect.provide(MemoryKube.layer)))

  it.effect("goes on where it was cut short", () =>
    Effect.gen(function*() {
      const ids = yield* Effect.forEach(Array.from({ length: 6 }), () => container({ ...gone, sandboxName: "a" }))
      yield* settled
      yield* sweep
      let rounds = 0
      while ((yield* (yield* Containers).list()).length > 0) {
        assert.isBelow(rounds++, 100)
        yield* later(confirmMillis + 1)(sweep).pipe(Effect.timeoutOption(40 + 7 * rounds))
      }
      assert.isAbove(rounds, 1, `${ids.length} were removed at once`)
      // What was cut off last may be a log or a cgroup; it has been seen as late as the last round.
      yield* confirmedAt(2 * confirmMillis)
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("spares a cgroup that somebody uses", () =>
    Effect.gen(function*() {
      const { cgroupParent } = yield* places
      const fileSystem = yield* FileSystem.FileSystem
      const name = yield* newId
      const directory = `/sys/fs/cgroup/pids${cgroupParent}/${name}`
      yield* fileSystem.makeDirectory(directory, { recursive: true })
      yield* Effect.gen(function*() {
        const { pid } = yield* ChildProcess.make("sleep", ["1000"])
        yield* fileSystem.writeFileString(`${directory}/cgroup.procs`, String(pid))
        const { findings, removed } = yield* confirmed
        assert.deepStrictEqual(removed, [])
        assert.deepInclude(findings[0], { kind: "Cgroup", subject: name, cause: "Unclear", verdict: "spare" })
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(subjects((yield* confirmed).removed), [name])
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("removes the networks of an agent that is gone, then its directory", () =>
    Effect.gen(function*() {
      const { agentsDirectory } = yield* places
      const fileSystem = yield* FileSystem.FileSystem
      yield* agent("living")
      const add = Effect.fnUntraced(function*(agentName: string) {
        const directory = `${agentsDirectory}/${agentName}`
        yield* fileSystem.makeDirectory(directory, { recursive: true })
        const name = NetworkNamespaces.nameOf(directory, 1)
        yield* Effect.acquireRelease(
          run("ip", "netns", "add", name),
          () => Effect.ignore(run("ip", "netns", "delete", name))
        )
        return name
      })
      const living = yield* add("living")
      const dead = yield* add("dead")
      const foreign = NetworkNamespaces.nameOf(`${agentsDirectory}-of-others/dead`, 1)
      yield* Effect.acquireRelease(
        run("ip", "netns", "add", foreign),
        () => Effect.ignore(run("ip", "netns", "delete", foreign))
      )
      assert.deepStrictEqual(subjects((yield* confirmed).removed), [dead])
      assert.deepStrictEqual(subjects((yield* confirmed).removed), ["dead"])
      const left = yield* fileSystem.readDirectory("/run/netns")
      assert.includeMembers(left, [living, foreign])
      assert.notInclude(left, dead)
      yield* fileSystem.remove(`${agentsDirectory}/living`, { recursive: true })
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("ends shared shims after the sandboxes that they serve", () =>
    Effect.gen(function*() {
      const { agentsDirectory, cgroupParent } = yield* places
      const { daemon } = yield* PrivateContainerd.PrivateContainerd
      const shared = ShimGroups.layer({
        directory: `${agentsDirectory}/${gone.agentName}/shims`,
        name: `fsb-${gone.agentUid}`,
        count: 2,
        labels: {
          [containerLabels.managed]: "true",
          [containerLabels.agentName]: gone.agentName,
          [containerLabels.agentUid]: gone.agentUid
        },
        cgroupsPath: cgroupParent
      }).pipe(Layer.provide(RuntimeProfile.layer({ runtimeDirectory: daemon.runtimeDirectory })))
      // The anchors outlive the agent.
      const ids = yield* Effect.gen(function*() {
        const { groups, next } = yield* ShimGroups
        yield* eventually(groups, (all) => all.length === 2 && all.every(({ isUp }) => isUp))
        return yield* Effect.forEach(["a", "b", "c"], (sandboxName) =>
          Effect.flatMap(next, (runtime) => container({ ...gone, sandboxName, runtime })))
      }).pipe(Effect.provide(shared))
      assert.strictEqual((yield* PrivateContainerd.census).shims.length, 2)
      const { failed, removed } = yield* confirmed
      assert.deepStrictEqual(failed, [])
      assert.deepStrictEqual(
        removed.map(({ kind }) =>
          kind
        ),
        [
          ...ids.map(() => "Container" as const),
          "Anchor",
          "Anchor"
        ]
      )
      assert.deepStrictEqual(subjects((yield* confirmed).removed), [gone.agentName])
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("remove"))))

  it.effect("works by itself when a Pod goes", () =>
    Effect.gen(function*() {
      const client = yield* KubeClient
      const owner = yield* agent("leaving")
      yield* container({ ...owner, sandboxName: "a", resourceUid: yield* sandbox("a") })
      const janitor = Layer.unwrap(
        Effect.map(places, (places) => Janitor.layer({ nodeName, places, mode: "remove" }))
      )
      yield* Effect.gen(function*() {
        yield* settled
        yield* client.delete(Pod, { name: "leaving" })
        yield* eventually(Effect.flatMap(Containers, (_) => _.list()), (all) => all.length === 0)
      }).pipe(Effect.provide(janitor))
      yield* assertNothing
    }).pipe(Effect.provide(MemoryKube.layer)))

  it.effect("removes nothing when it only reports", () =>
    Effect.gen(function*() {
      const id = yield* container({ ...gone, sandboxName: "a", state: "created" })
      const { findings, removed } = yield* confirmed
      assert.deepStrictEqual(removed, [])
      assert.deepInclude(findings[0], { subject: id, verdict: "remove", cause: "AgentGone" })
      const plan = yield* later(confirmMillis + 1)(Janitor.use(({ plan }) => plan))
      assert.deepStrictEqual(plan, findings)
      assert.deepStrictEqual((yield* PrivateContainerd.census).tasks, [id])
      yield* confirmed.pipe(Effect.provide(withJanitor("remove"), { local: true }))
      yield* assertNothing
    }).pipe(Effect.provide(withJanitor("report"))))
})
