/**
 * `make bench`: how long it takes from a client's request to a running program, beside what a user would pick instead.
 * All of them run in the same minutes on the same machine, one after the other in every round, with the same image and
 * the same program; what removes a container again is not timed with its start. Raw samples go to bench/results.json.
 *
 *   node infra/bench/main.ts [rounds]        200 rounds by default
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Home from "@fast-sandbox/local/Home"
import { Console, Effect, FileSystem, Layer, Option } from "effect"
import { performance } from "node:perf_hooks"
import { fileURLToPath } from "node:url"
import * as Command from "./Command.ts"
import * as Environment from "./Environment.ts"
import * as Peers from "./Peers.ts"
import { Recorder } from "./Recorder.ts"
import * as Report from "./Report.ts"
import { percentile } from "./Statistics.ts"

const repository = fileURLToPath(new URL("../..", import.meta.url))
const fsbCtl = `${repository}/bin/fsb-ctl`
const archive = `${repository}/dist/images/busybox.tar`
const image = "docker.io/library/busybox:latest"
const program = ["sleep", "3600"] as const

/** Rounds at concurrency 1: enough for a p99 that is not just the maximum. */
const rounds = Number(process.argv[2] ?? 200)
/** Rounds that warm up caches and are not counted. */
const warmUps = 5
/** Creates at once; more than there are slots, so that refusals are seen too. */
const burst = 100

/** A stack of its own in a folder of its own, gone afterwards. */
const stack = (home: Home.Home) =>
  Effect.acquireRelease(
    Command.run(fsbCtl, ["up", "--detach", "--containerd", "own", "--home", home.directory]),
    () => Command.run(fsbCtl, ["down", "--wipe", "--home", home.directory]).pipe(Effect.ignore({ log: "Warn" }))
  )

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const startedAt = performance.now()
    const value = yield* effect
    return { value, millis: performance.now() - startedAt }
  })

const main = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-bench-" })
  const home = yield* Home.make(`${directory}/home`)
  const environment = yield* Environment.read
  const recorder = new Recorder()

  yield* Console.error("starting a stack of its own ...")
  yield* Command.run(process.execPath, [`${repository}/infra/images/busybox.ts`])
  yield* stack(home)
  // Without a grace period: the program ignores SIGTERM, as most do that are process 1.
  const manifest = `${directory}/sandbox.json`
  const spec = { image, poolRef: "default-pool", args: program, terminationGracePeriodSeconds: 0 }
  yield* files.writeFileString(
    manifest,
    JSON.stringify({ apiVersion: "sandbox.fast.io/v1alpha1", kind: "Sandbox", metadata: { name: "bench" }, spec })
  )
  yield* Command.run(fsbCtl, ["--endpoint", `unix:${home.fastPathSocket}`, "image", "load", archive])
  const { missing, peers } = yield* Peers.make({
    archive,
    image,
    program,
    directory,
    containerdSocket: `${home.containerdDirectory}/containerd.sock`
  })
  if (missing.length > 0) {
    yield* Console.error(`not installed, so not compared: ${missing.join(", ")}`)
  }

  const viaPeer = (peer: Peers.Peer, id: string, count: boolean) =>
    Effect.gen(function*() {
      const millis = yield* peer.start(id)
      yield* peer.remove(id)
      if (count) {
        recorder.add(peer.name, peer.boundary, millis)
      }
    })

  yield* Effect.gen(function*() {
    const sandboxes = yield* Sandboxes

    const viaRequest = (name: string, count: boolean) =>
      Effect.gen(function*() {
        const created = yield* timed(sandboxes.create({ name, image, args: program, terminationGracePeriodSeconds: 0 }))
        const deleted = yield* timed(sandboxes.delete(name).pipe(Effect.andThen(sandboxes.waitForDeletion(name))))
        if (count) {
          const { startup } = created.value
          recorder.add(
            `create.${startup?.tier ?? "unknown"}.c1`,
            "request: client's create until its answer, which comes when the program was started",
            created.millis
          )
          for (const { millis, name } of startup?.steps ?? []) {
            recorder.add(`step.${name}`, "within the agent", millis)
          }
          recorder.add("delete.c1", "request: client's delete until everything is gone", deleted.millis)
        }
      })

    const viaCommand = (name: string, count: boolean) =>
      Effect.gen(function*() {
        const endpoint = ["--endpoint", `unix:${home.fastPathSocket}`]
        const { millis } = yield* Command.run(fsbCtl, [
          ...endpoint,
          "run",
          "-d",
          "-f",
          manifest,
          name
        ])
        yield* sandboxes.delete(name).pipe(Effect.andThen(sandboxes.waitForDeletion(name)))
        if (count) {
          recorder.add("cli.run", "process: fsb-ctl run -d", millis)
        }
      })

    for (let round = -warmUps; round < rounds; round++) {
      const count = round >= 0
      const id = `bench-${round + warmUps}`
      yield* viaRequest(id, count)
      yield* viaCommand(`${id}-cli`, count)
      for (const peer of peers) {
        yield* viaPeer(peer, id, count)
      }
      if (count && round % 20 === 0) {
        yield* Console.error(`round ${round} of ${rounds}`)
      }
    }

    const outcomes = yield* Effect.forEach(
      Array.from({ length: burst }, (_, n) => `burst-${n}`),
      (name) =>
        timed(sandboxes.create({ name, image, args: program, terminationGracePeriodSeconds: 0 })).pipe(
          Effect.result,
          Effect.map((result) => ({ name, result }))
        ),
      { concurrency: "unbounded" }
    )
    let refused = 0
    for (const { result } of outcomes) {
      if (result._tag === "Success") {
        recorder.add(
          `create.${result.success.value.startup?.tier ?? "unknown"}.burst${burst}`,
          "request, 100 at once",
          result.success.millis
        )
      } else if (result.failure._tag === "ResourceExhausted") {
        refused++
      } else {
        return yield* result.failure
      }
    }
    yield* Effect.forEach(
      outcomes,
      ({ name, result }) => result._tag === "Success" ? sandboxes.delete(name) : Effect.void,
      { concurrency: 8 }
    )
    yield* Console.error(
      `burst of ${burst}: ${burst - refused} started, ${refused} refused for lack of room, none hung`
    )
  }).pipe(Effect.provide(Sandboxes.layer({ endpoint: `unix:${home.fastPathSocket}` })))

  yield* files.makeDirectory(`${repository}/bench`, { recursive: true })
  yield* Report.write(`${repository}/bench/results.json`, environment, recorder.all)
  yield* Console.log(JSON.stringify(environment, undefined, 2))
  yield* Console.log(Report.table(recorder.all))
  const ours = Option.fromUndefinedOr(recorder.all.get("create.prepared.c1"))
  if (Option.isSome(ours)) {
    const mine = percentile(ours.value.samples, 50)
    for (const peer of peers) {
      const theirs = percentile(recorder.all.get(peer.name)?.samples ?? [], 50)
      yield* Console.log(`p50 of ${peer.name} is ${(theirs / mine).toFixed(1)} times that of create.prepared.c1`)
    }
  }
})

main.pipe(Effect.scoped, Effect.provide(Layer.mergeAll(NodeServices.layer)), NodeRuntime.runMain)
