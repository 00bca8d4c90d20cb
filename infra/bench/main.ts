/**
 * `make bench`: how long it takes from a client's request to a running program, beside what a user would pick instead.
 * All of them run in the same minutes on the same machine, one after the other in every round, with the same image and
 * the same program. Raw samples go to bench/results.json, the picture to docs/performance/.
 *
 *   node infra/bench/main.ts [--rounds N] [--plot] [--check] [SCENARIO ...]
 *
 * Scenarios: requests, parallel, processes, burst, cycles, trips, density; all of them without a name. `--plot` writes
 * the picture, without which nothing that is committed changes; `--check` fails when a ratio is below its bound.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Command from "./Command.ts"
import * as BareContainerd from "./contenders/BareContainerd.ts"
import * as Commands from "./contenders/Commands.ts"
import { type Common, type Contender, ContenderFailed } from "./contenders/Contender.ts"
import * as DockerEngine from "./contenders/DockerEngine.ts"
import * as Ours from "./contenders/Ours.ts"
import * as Environment from "./Environment.ts"
import * as Plot from "./Plot.ts"
import { Recorder } from "./Recorder.ts"
import * as Report from "./Report.ts"
import * as Density from "./scenarios/Density.ts"
import * as RoundTrips from "./scenarios/RoundTrips.ts"
import * as Starts from "./scenarios/Starts.ts"
import * as Stack from "./Stack.ts"

const repository = fileURLToPath(new URL("../..", import.meta.url))
const fsbCtl = `${repository}/bin/fsb-ctl`

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "500" },
    plot: { type: "boolean", default: false },
    check: { type: "boolean", default: false }
  }
})

/** Starts at concurrency 1: enough for a p99 that is not just the maximum. */
const rounds = Number(values.rounds)
/** Rounds of a scenario whose every round takes `weight` times as long. */
const part = (weight: number): number => Math.max(1, Math.round(rounds / weight))

/** Creates at once in the burst, and so the slots that are parked for it. */
const burst = 100
/** Idle sandboxes that are counted at once. */
const crowd = 1_000

/** With `--check`: a ratio is below its bound, or nothing was compared. */
class Regressed extends Schema.TaggedError<Regressed>()("Regressed", { worse: Schema.Array(Schema.String) }) {
  override get message(): string {
    return this.worse.length === 0 ? "nothing was compared" : `slower than the bound: ${this.worse.join("; ")}`
  }
}

const parkedPool = "bench-parked"
const preparedPool = "bench-prepared"
const crowdPool = "bench-crowd"

const main = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-bench-" })
  const environment = yield* Environment.read
  const recorder = new Recorder()
  const common: Common = {
    archive: `${repository}/dist/images/busybox.tar`,
    image: "docker.io/library/busybox:latest",
    program: ["sleep", "3600"],
    directory
  }

  yield* Console.error("starting a stack of its own ...")
  yield* Command.run(process.execPath, [`${repository}/infra/images/busybox.ts`])
  const home = yield* Stack.make(`${directory}/home`, fsbCtl)
  const endpoint = `unix:${home.fastPathSocket}`
  const containerdSocket = `${home.containerdDirectory}/containerd.sock`
  yield* Command.run(fsbCtl, ["--endpoint", endpoint, "image", "load", common.archive])

  const missing: Array<string> = []
  /** A peer that is not installed is named, not skipped in silence. */
  const ifInstalled = <A, E, R>(program: string, make: Effect.Effect<A, E, R>) =>
    Effect.gen(function*() {
      if (yield* Command.exists(program)) {
        return [yield* make]
      }
      missing.push(program)
      return []
    })

  /** A pool that is told nothing parks what was asked for lately. */
  const unparked = [{ image: common.image, parked: 0 }]

  yield* Effect.gen(function*() {
    yield* Stack.makePool(parkedPool, {
      maxSandboxesPerPod: burst,
      warmImages: [{ image: common.image, parked: burst }]
    })
    yield* Stack.makePool(preparedPool, { maxSandboxesPerPod: burst, warmImages: unparked })
    const steps = (tier: string) =>
    (
      created: { readonly startup?: { readonly steps: ReadonlyArray<{ name: string; millis: number }> } | undefined }
    ) => {
      for (const { millis, name } of created.startup?.steps ?? []) {
        recorder.add(`step.${tier}.${name}`, "within the agent", millis)
      }
    }
    const kube = yield* Effect.context<KubeClient>()
    const ready: Contender["ready"] = (count) =>
      Stack.untilParked(parkedPool, count).pipe(
        Effect.provideContext(kube),
        Effect.mapError(({ message }) => new ContenderFailed({ contender: parkedPool, problem: message }))
      )
    const parked = yield* Ours.requests(common, {
      tier: "parked",
      pool: parkedPool,
      ready,
      onCreated: steps("parked")
    })
    const prepared = yield* Ours.requests(common, {
      tier: "prepared",
      pool: preparedPool,
      ready: () => Effect.void,
      onCreated: steps("prepared")
    })
    const bare = yield* BareContainerd.make(common, `${home.cgroupParent}/bench`)
    const engines = yield* ifInstalled("dockerd", DockerEngine.make(common))
    const engineApis = engines.map((engine) => DockerEngine.contender(engine, common))
    const requests: ReadonlyArray<Contender> = [parked, prepared, bare, ...engineApis]
    const processes: ReadonlyArray<Contender> = [
      yield* Ours.command(common, { fsbCtl, endpoint, pool: parkedPool, ready }),
      ...engines.map(({ socket }) => Commands.docker(common, socket)),
      ...yield* ifInstalled("podman", Commands.podman(common)),
      ...yield* ifInstalled("ctr", Commands.ctr(common, containerdSocket)),
      ...yield* ifInstalled("crun", Commands.crun(common))
    ]
    if (missing.length > 0) {
      yield* Console.error(`not installed, so not compared (make bench-peers installs them): ${missing.join(", ")}`)
    }

    const scenarios = {
      requests: Starts.run(recorder, { contenders: requests, concurrency: 1, rounds }),
      parallel: Effect.gen(function*() {
        yield* Starts.run(recorder, { contenders: requests, concurrency: 4, rounds: part(20) })
        yield* Starts.run(recorder, { contenders: requests, concurrency: 16, rounds: part(50) })
      }),
      processes: Starts.run(recorder, { contenders: processes, concurrency: 1, rounds: part(5) }),
      burst: Starts.run(recorder, {
        contenders: [parked],
        concurrency: burst,
        rounds: part(100),
        label: `burst${burst}`
      }),
      cycles: Effect.forEach(
        [4, 16],
        (concurrency) => Starts.cycles(recorder, { contenders: requests, concurrency, count: 100, passes: part(100) }),
        { discard: true }
      ),
      trips: RoundTrips.run(recorder, common, { ours: parked, pool: parkedPool, rounds: part(5) }),
      density: Effect.acquireUseRelease(
        Stack.makePool(crowdPool, { maxSandboxesPerPod: crowd, warmImages: unparked }),
        () => Density.run(recorder, common, { pool: crowdPool, count: crowd }),
        () => Effect.ignore(Stack.removePool(crowdPool), { log: "Warn" })
      )
    }
    for (const [name, scenario] of Object.entries(scenarios)) {
      if (positionals.length === 0 || positionals.includes(name)) {
        yield* Console.error(`${name} ...`)
        yield* scenario
      }
    }
  }).pipe(
    Effect.provide(Layer.mergeAll(
      Sandboxes.layer({ endpoint }),
      Stack.kubeClient(home),
      Containerd.layer({ socket: containerdSocket, namespace: "fsb-bench-bare" })
    ))
  )

  yield* files.makeDirectory(`${repository}/bench`, { recursive: true })
  yield* Report.write(`${repository}/bench/results.json`, environment, recorder.all)
  if (values.plot) {
    yield* files.makeDirectory(`${repository}/docs/performance`, { recursive: true })
    yield* files.writeFileString(
      `${repository}/docs/performance/starts.svg`,
      Plot.svg("From request to running program", recorder.starts)
    )
  }
  yield* Console.log(JSON.stringify(environment, undefined, 2))
  yield* Console.log(Report.table(recorder.all))
  const ratios = Report.ratios(recorder.all)
  yield* Console.log(ratios.map(Report.sentence).join("\n"))
  const worse = ratios.filter(({ atLeast, ratio }) => ratio < atLeast)
  if (values.check && (ratios.length === 0 || worse.length > 0)) {
    return yield* new Regressed({ worse: worse.map(Report.sentence) })
  }
})

main.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
