/**
 * How fast an agent creates and deletes, over gRPC on its unix socket, beside `ctr run -d` and bare calls to the same
 * containerd, taken in turns so that what else the machine does hits all alike.
 *
 *   node packages/agent/test/speed.ts [runs] [crun|runc]
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Containers } from "@fast-sandbox/containerd/Containers"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import { seccompProfile } from "@fast-sandbox/containerd/SeccompProfile"
import * as ShimRuntime from "@fast-sandbox/containerd/ShimRuntime"
import { Snapshots } from "@fast-sandbox/containerd/Snapshots"
import { Tasks } from "@fast-sandbox/containerd/Tasks"
import type { Startup } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { layer as privateContainerd, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import { Console, Effect, Layer } from "effect"
import { execFileSync } from "node:child_process"
import { randomUUID } from "node:crypto"
import { loadavg } from "node:os"
import * as Fixture from "./AgentFixture.ts"

const [runsText = "100", runtime = "crun"] = process.argv.slice(2)
const runs = Number(runsText)
const warmUp = 5

/** Of the agent that parks: enough that one is ready when its turn comes. */
const slots = 8

const timed = <A, E, R>(samples: Array<number>, self: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const begun = performance.now()
    return Effect.tap(self, () => Effect.sync(() => samples.push(performance.now() - begun)))
  })

const percentile = (samples: ReadonlyArray<number>, share: number): string => {
  const sorted = samples.slice(warmUp).toSorted((a, b) => a - b)
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1)
}

/** The least number of calls that start and remove a sandbox, with a shim of its own. */
const bare = Effect.gen(function*() {
  const { cgroupsPath, daemon } = yield* PrivateContainerd
  const containers = yield* Containers
  const snapshots = yield* Snapshots
  const tasks = yield* Tasks
  const image = yield* Images.use((images) => images.resolve("busybox"))
  const shim = ShimRuntime.make({ binary: `${daemon.runtimeDirectory}/${runtime}` })
  return {
    create: (id: string) =>
      Effect.gen(function*() {
        const spec = yield* Effect.fromResult(OciSpec.make({
          image: image.config,
          command: Fixture.sleeper,
          hostname: id,
          cgroupsPath: `${cgroupsPath}/${id}`,
          seccomp: seccompProfile
        }))
        yield* containers.create({ id, runtime: shim, spec })
        const rootfs = yield* snapshots.prepare(id, image.chainId)
        yield* tasks.create({ containerId: id, rootfs, runtime: shim })
        yield* tasks.start({ containerId: id })
      }),
    remove: (id: string) =>
      Effect.gen(function*() {
        yield* tasks.killAll(id, 9)
        yield* tasks.wait({ containerId: id })
        yield* tasks.delete({ containerId: id })
        yield* snapshots.remove(id)
        yield* containers.delete(id)
      })
  }
})

const program = Effect.gen(function*() {
  const { daemon, directory, namespace } = yield* PrivateContainerd
  const { client } = yield* Fixture.startProcess({
    FSB_RUNTIME_BINARY: `${daemon.runtimeDirectory}/${runtime}`,
    FSB_SHIM_GROUPS: "4"
  })
  const parked = yield* Fixture.startProcess({
    POD_UID: "parked",
    FSB_STATE_DIR: `${directory}/parked-agent`,
    FSB_AGENT_LISTEN: `unix:${directory}/parked-agent/agent.sock`,
    FSB_INIT_BINARY: `${directory}/bin/fsb-init`,
    FSB_WARM_IMAGES: JSON.stringify([{ image: "busybox", parked: slots }]),
    FSB_SLOTS: String(slots),
    FSB_RUNTIME_BINARY: `${daemon.runtimeDirectory}/${runtime}`,
    FSB_SHIM_GROUPS: "4"
  })
  const blank = yield* Fixture.startProcess({
    POD_UID: "blank",
    FSB_STATE_DIR: `${directory}/blank-agent`,
    FSB_AGENT_LISTEN: `unix:${directory}/blank-agent/agent.sock`,
    FSB_INIT_BINARY: `${directory}/bin/fsb-init`,
    // A list, so that what is asked for is not parked from then on.
    FSB_WARM_IMAGES: JSON.stringify([{ image: "busybox", parked: 0 }]),
    FSB_BLANK_SLOTS: "1",
    FSB_RUNTIME_BINARY: `${daemon.runtimeDirectory}/${runtime}`,
    FSB_SHIM_GROUPS: "4"
  })
  yield* Effect.sleep("1 second")
  const calls = yield* bare
  const ctr = (...args: ReadonlyArray<string>) =>
    Effect.sync(() =>
      execFileSync("ctr", ["-a", daemon.socket, "-n", namespace, ...args], { stdio: ["ignore", "ignore", "ignore"] })
    )
  const samples = {
    parked: { create: Array<number>(), delete: Array<number>() },
    blank: { create: Array<number>(), delete: Array<number>() },
    agent: { create: Array<number>(), delete: Array<number>() },
    bare: { create: Array<number>(), delete: Array<number>() },
    ctr: { create: Array<number>(), delete: Array<number>() }
  }
  const steps = new Map<string, Array<number>>()
  const add = (tier: string, startup: Startup | undefined) => {
    for (const { millis, name } of startup?.steps ?? []) {
      const key = `${tier} ${name}`
      steps.set(key, [...(steps.get(key) ?? []), millis])
    }
  }
  for (let run = 0; run < runs + warmUp; run++) {
    const waiting = Fixture.request(Fixture.sleeper)
    const started = yield* timed(samples.parked.create, parked.client.create(waiting))
    add(started.instance?.startup?.tier ?? "", started.instance?.startup)
    yield* timed(
      samples.parked.delete,
      parked.client.delete({ instanceId: waiting.instanceId, gracePeriodSeconds: 0 })
    )
    yield* Fixture.untilBlank(blank.client, 1)
    const any = Fixture.request(Fixture.sleeper)
    const served = yield* timed(samples.blank.create, blank.client.create(any))
    add("blank", served.instance?.startup)
    yield* timed(samples.blank.delete, blank.client.delete({ instanceId: any.instanceId, gracePeriodSeconds: 0 }))
    const request = Fixture.request(Fixture.sleeper)
    const { instance } = yield* timed(samples.agent.create, client.create(request))
    add("prepared", instance?.startup)
    yield* timed(
      samples.agent.delete,
      client.delete({ instanceId: request.instanceId, gracePeriodSeconds: 0 })
    )
    const id = `bare-${randomUUID().slice(0, 8)}`
    yield* timed(samples.bare.create, calls.create(id))
    yield* timed(samples.bare.delete, calls.remove(id))
    const name = `ctr-${randomUUID().slice(0, 8)}`
    yield* timed(
      samples.ctr.create,
      ctr(
        "run",
        "-d",
        "--runc-binary",
        `${daemon.runtimeDirectory}/${runtime}`,
        "docker.io/library/busybox:latest",
        name,
        ...Fixture.sleeper
      )
    )
    yield* timed(
      samples.ctr.delete,
      Effect.andThen(ctr("task", "rm", "-f", name), ctr("container", "rm", name))
    )
  }
  // Killed, they would leave the memory of their slots mounted.
  yield* Effect.forEach([parked, blank], (agent) => Fixture.kill(agent, "SIGTERM"), { discard: true })
  yield* Console.log(`${runtime}, ${runs} runs, load average ${loadavg().map((load) => load.toFixed(1)).join(" ")}`)
  for (const [who, { create, delete: remove }] of Object.entries(samples)) {
    yield* Console.log(
      `${who.padEnd(6)} create least ${percentile(create, 0)} p50 ${percentile(create, 0.5)} p99 ${
        percentile(create, 0.99)
      } ms, ` +
        `delete least ${percentile(remove, 0)} p50 ${percentile(remove, 0.5)} p99 ${percentile(remove, 0.99)} ms`
    )
  }
  for (const [name, millis] of steps) {
    yield* Console.log(`  step ${name.padEnd(17)} p50 ${percentile(millis, 0.5)} p99 ${percentile(millis, 0.99)} ms`)
  }
}).pipe(Effect.scoped)

const node = Layer.effectDiscard(Fixture.prepareNode).pipe(
  Layer.provideMerge(privateContainerd()),
  Layer.provideMerge(NodeServices.layer)
)

NodeRuntime.runMain(Effect.provide(program, node))
