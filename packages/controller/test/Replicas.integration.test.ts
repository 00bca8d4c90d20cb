/**
 * Several replicas of the controller, each a process, on one embedded API server and the same agents: all of them serve,
 * one leads, and any of them may be killed at any moment.
 */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { ConsistencyMode, FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as FastSandbox from "@fast-sandbox/kube/FastSandbox"
import * as FastSandboxCrds from "@fast-sandbox/kube/FastSandboxCrds"
import { CustomResourceDefinition, Lease } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { KubeConfig } from "@fast-sandbox/kube/KubeConfig"
import { ApiServer } from "@fast-sandbox/local/apiserver/ApiServer"
import { Effect, Fiber, FileSystem, Layer, Ref, Result, Schedule } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { addPool, Fleet } from "./Fleet.ts"

const program = fileURLToPath(new URL("./replica.ts", import.meta.url))

/** A cut-off strong create is settled after its grace period of 15 s; a leader is replaced within 5 s. */
const settledWithin = Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: "40 seconds" }))

const eventually = <A, E, R>(check: Effect.Effect<A, E, R>) =>
  check.pipe(Effect.catchDefect((defect) => Effect.fail(defect)), Effect.retry(settledWithin), Effect.orDie)

const world = Layer.unwrap(Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "replicas-" })
  const api = ApiServer.layer({ dataDirectory: directory })
  const config = Layer.unwrap(Effect.map(ApiServer, ({ kubeconfigPath }) => KubeConfig.layerFile(kubeconfigPath)))
  return Fleet.layer.pipe(Layer.provideMerge(KubeClient.layer), Layer.provide(config), Layer.provideMerge(api))
})).pipe(Layer.provideMerge(NodeServices.layer))

const kill = (child: ChildProcess) =>
  Effect.promise(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, "exit")
      child.kill("SIGKILL")
      await ended
    }
  })

/** A replica that can be killed and started again. */
const makeReplica = Effect.fnUntraced(function*(name: string) {
  const files = yield* FileSystem.FileSystem
  const folder = yield* files.makeTempDirectoryScoped({ prefix: `${name}-` })
  const fleet = yield* Fleet
  const { kubeconfigPath } = yield* ApiServer
  const socket = `${folder}/fastpath.sock`
  const start = Effect.sync(() =>
    spawn(process.execPath, [program, name, socket, kubeconfigPath, fleet.folder], { stdio: "ignore" })
  )
  const child = yield* Ref.make(yield* start)
  yield* Effect.addFinalizer(() => Effect.flatMap(Ref.get(child), kill))
  const path = yield* GrpcClient.makeBoundary(FastPathService, { address: `unix:${socket}` })
  const serves = eventually(path.listSandboxes({}, { deadline: "2 seconds" }))
  return {
    name,
    path,
    serves,
    kill: Effect.flatMap(Ref.get(child), kill),
    start: Effect.flatMap(start, (started) => Ref.set(child, started)).pipe(Effect.andThen(serves))
  }
})

const leader = KubeClient.use((kube) => kube.get(Lease, { name: "controller", namespace: "default" })).pipe(
  Effect.map(({ spec }) => spec?.holderIdentity?.split("_")[0] ?? "")
)

const modes = [ConsistencyMode.FAST, ConsistencyMode.STRONG]

const modeOf = (n: number) => n % 2 === 0 ? ConsistencyMode.FAST : ConsistencyMode.STRONG

/** Creates in every round, spread over the replicas and the modes. */
const creates = 24

/** Whom a round kills, and after how many answers. */
const rounds = [
  { victim: "leader", afterAnswers: 5 },
  { victim: "follower", afterAnswers: 12 },
  { victim: "leader", afterAnswers: 0 }
] as const

describe("several replicas", () => {
  it.live("serve at once, and lose nothing when any of them is killed", () =>
    Effect.gen(function*() {
      const kube = yield* KubeClient
      yield* Effect.forEach(FastSandboxCrds.all, (definition) => kube.create(CustomResourceDefinition, definition))
      yield* eventually(kube.list(FastSandbox.SandboxPool))
      yield* addPool()
      const fleet = yield* Fleet
      const agents = yield* Effect.forEach(["one", "two", "three"], (pod) => fleet.add(pod, { slots: 40 }))
      const running = () => agents.flatMap(({ instances }) => [...instances.keys()]).toSorted()
      const first = yield* makeReplica("a")
      const replicas = [first, yield* makeReplica("b"), yield* makeReplica("c")]
      const replicaOf = (n: number) => replicas[n % replicas.length] ?? first
      yield* Effect.forEach(replicas, ({ serves }) => serves, { discard: true })

      // One name through all of them at once: in either mode one sandbox is left, and strong tells only one caller of it.
      for (const consistencyMode of modes) {
        const answers = yield* Effect.forEach(
          replicas,
          ({ path }) =>
            Effect.result(path.createSandbox({ name: "one", image: "alpine", poolRef: "pool", consistencyMode })),
          { concurrency: "unbounded" }
        )
        const winners = answers.filter(Result.isSuccess)
        assert.isAtLeast(winners.length, 1)
        if (consistencyMode === ConsistencyMode.STRONG) {
          assert.strictEqual(winners.length, 1)
          for (const { failure } of answers.filter(Result.isFailure)) {
            assert.strictEqual(failure._tag, "AlreadyExists")
          }
        }
        yield* eventually(Effect.gen(function*() {
          const { status } = yield* kube.get(FastSandbox.Sandbox, { name: "one", namespace: "default" })
          assert.strictEqual(status?.phase, "Running")
          assert.deepStrictEqual(running(), [status?.sandboxID])
          assert.include(winners.map(({ success }) => success.sandboxId), status?.sandboxID)
          for (const { path } of replicas) {
            assert.strictEqual((yield* path.getSandbox({ sandboxName: "one" })).sandboxId, status?.sandboxID)
          }
        }))
        yield* first.path.deleteSandbox({ sandboxName: "one" })
        yield* eventually(Effect.sync(() => assert.deepStrictEqual(running(), [])))
      }

      const acknowledged = new Map<string, string>()
      for (const [round, { afterAnswers, victim }] of rounds.entries()) {
        const before = acknowledged.size
        const leads = yield* leader
        const chosen = replicas.find(({ name }) => (name === leads) === (victim === "leader")) ?? replicaOf(0)
        const creating = yield* Effect.forkChild(Effect.forEach(
          Array.from({ length: creates }, (_, n) => n),
          (n) =>
            Effect.suspend(() => {
              const name = `round-${round}-${n}`
              return replicaOf(n).path.createSandbox({
                name,
                image: "alpine",
                poolRef: "pool",
                consistencyMode: modeOf(n)
              }).pipe(
                Effect.tap(({ sandboxId }) => Effect.sync(() => acknowledged.set(name, sandboxId))),
                Effect.ignore
              )
            }),
          { concurrency: "unbounded", discard: true }
        ))
        yield* Effect.sleep("1 millis").pipe(Effect.repeat({ until: () => acknowledged.size >= before + afterAnswers }))
        yield* chosen.kill
        // The others still serve, and somebody leads: what is declared now comes true.
        yield* kube.create(FastSandbox.Sandbox, {
          metadata: { name: `declared-${round}`, namespace: "default" },
          spec: { image: "alpine", poolRef: "pool" }
        })
        yield* Fiber.join(creating)
        yield* eventually(Effect.gen(function*() {
          const { status } = yield* kube.get(FastSandbox.Sandbox, { name: `declared-${round}`, namespace: "default" })
          assert.strictEqual(status?.phase, "Running")
          if (victim === "leader") {
            assert.notStrictEqual(yield* leader, leads)
          }
        }))
        yield* chosen.start
        yield* eventually(Effect.gen(function*() {
          const { items } = yield* kube.list(FastSandbox.Sandbox)
          // Nothing acknowledged is lost, nothing is there twice, and what was cut off is settled.
          assert.deepStrictEqual(items.filter(({ status }) => status?.phase !== "Running"), [])
          assert.deepStrictEqual(items.map(({ status }) => status?.sandboxID ?? "").toSorted(), running())
          for (const [name, sandboxId] of acknowledged) {
            const found = items.find(({ metadata }) => metadata.name === name)
            assert.strictEqual(found?.status?.sandboxID, sandboxId, name)
          }
          for (const { path } of replicas) {
            assert.lengthOf((yield* path.listSandboxes({})).items, items.length)
          }
        }))
      }

      const { items } = yield* kube.list(FastSandbox.Sandbox)
      yield* Effect.forEach(
        items,
        ({ metadata: { name = "" } }, n) => replicaOf(n).path.deleteSandbox({ sandboxName: name }),
        { concurrency: "unbounded", discard: true }
      )
      yield* eventually(Effect.gen(function*() {
        assert.deepStrictEqual((yield* kube.list(FastSandbox.Sandbox)).items, [])
        assert.deepStrictEqual(running(), [])
      }))
    }).pipe(Effect.provide(world), Effect.scoped), 180_000)
})
