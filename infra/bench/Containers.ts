/**
 * The scenarios that start containers: a stack of the run's own, with one pool that parks and one that does not, beside
 * the peers that are installed.
 */
import { defaultBlankSlots } from "@fast-sandbox/agent/AgentConfig"
import type { Created } from "@fast-sandbox/client/Calls"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Command from "./Command.ts"
import * as BareContainerd from "./contenders/BareContainerd.ts"
import * as Commands from "./contenders/Commands.ts"
import type { Common, Contender } from "./contenders/Contender.ts"
import * as DockerEngine from "./contenders/DockerEngine.ts"
import * as Ours from "./contenders/Ours.ts"
import * as ParkedGauge from "./ParkedGauge.ts"
import type { Recorder } from "./Recorder.ts"
import * as Density from "./scenarios/Density.ts"
import * as Isolation from "./scenarios/Isolation.ts"
import * as Neighbours from "./scenarios/Neighbours.ts"
import * as RoundTrips from "./scenarios/RoundTrips.ts"
import * as Sessions from "./scenarios/Sessions.ts"
import * as Starts from "./scenarios/Starts.ts"
import * as Stack from "./Stack.ts"

/** In the order in which they run. */
export const names = [
  "requests",
  "isolation",
  "parallel",
  "burst",
  "cycles",
  "trips",
  "sessions",
  "processes",
  "neighbours",
  "density"
] as const

/** Creates at once in the burst, and so the slots that are parked for it. */
const burst = 100

/** Idle sandboxes that are counted at once. */
const crowd = 1_000

/** Parked slots that are counted at once. */
const parkedCrowd = 200

const parkedPool = "bench-parked"
const preparedPool = "bench-prepared"
const classicPool = "bench-classic"
const crowdPool = "bench-crowd"

/** Docker Engine takes longer than all others together. */
const engineEveryRounds = 5

/** Starts everything that takes part; gives the scenarios and what they need. Gone with the scope. */
export const make = Effect.fnUntraced(function*(recorder: Recorder, options: {
  readonly repository: string
  readonly directory: string
  /** Starts one at a time; of what takes longer there is a part of it. */
  readonly rounds: number
}) {
  const { directory, repository, rounds } = options
  const part = (weight: number): number => Math.max(1, Math.round(rounds / weight))
  const fsbCtl = `${repository}/bin/fsb-ctl`
  const common: Common = {
    archive: `${repository}/dist/images/busybox.tar`,
    image: "docker.io/library/busybox:latest",
    program: ["sleep", "3600"],
    directory
  }
  const files = yield* FileSystem.FileSystem
  yield* files.makeDirectory(directory, { recursive: true })

  yield* Console.error("starting a stack of its own ...")
  yield* Command.run(process.execPath, [`${repository}/infra/images/busybox.ts`])
  const home = yield* Stack.make(`${directory}/home`, fsbCtl)
  const endpoint = `unix:${home.fastPathSocket}`
  const containerdSocket = `${home.containerdDirectory}/containerd.sock`
  const layer = Layer.mergeAll(
    Sandboxes.layer({ endpoint }),
    Stack.kubeClient(home),
    Containerd.layer({ socket: containerdSocket, namespace: "fsb-bench-bare" })
  )

  const missing: Array<string> = []
  /** A peer that is not installed is named, not skipped in silence. */
  const ifInstalled = <A, E, R>(program: string, make: Effect.Effect<A, E, R>) =>
    Command.find(program).pipe(
      Effect.isSuccess,
      Effect.flatMap((isInstalled) => {
        if (isInstalled) {
          return Effect.map(make, (made) => [made])
        }
        missing.push(program)
        return Effect.succeed([])
      })
    )

  /** A pool that is told nothing parks what was asked for lately. */
  const unparked = [{ image: common.image, parked: 0 }]

  let areAlone = false
  const alone = <A, E, R>(scenario: Effect.Effect<A, E, R>) =>
    Effect.sync(() => areAlone = true).pipe(
      Effect.andThen(scenario),
      Effect.ensuring(Effect.sync(() => areAlone = false))
    )

  const setUp = Effect.gen(function*() {
    yield* Stack.makePool(parkedPool, {
      // With room for as many more, so that what a start took is replaced at once and not when its sandbox is gone.
      maxSandboxesPerPod: 2 * burst,
      warmImages: [{ image: common.image, parked: burst }]
    })
    yield* Stack.makePool(preparedPool, { maxSandboxesPerPod: burst, warmImages: unparked })
    // A container made for each, as where slots without an image are used up.
    yield* Stack.makePool(classicPool, {
      maxSandboxesPerPod: burst,
      warmImages: unparked,
      agentTemplate: { spec: { containers: [{ name: "agent", env: [{ name: "FSB_BLANK_SLOTS", value: "0" }] }] } }
    })
    // To the agents' one node: not before one of them answers.
    yield* Command.run(fsbCtl, ["--endpoint", endpoint, "image", "load", common.archive])
    const gauge = yield* ParkedGauge.make(home, parkedPool)
    const background: Ours.Background = { ready: gauge.until, settled: gauge.until(burst) }

    /** Of many starts at once the steps tell how long they waited for each other. */
    const addSteps = (start: string) => ({ startup }: Created) => {
      for (const { millis, name } of areAlone ? startup?.steps ?? [] : []) {
        recorder.add(`step.${start}.${name}`, "within the agent", millis)
      }
    }
    const ours = { tier: "parked", pool: parkedPool, ...background } as const
    const parked = yield* Ours.requests(common, { ...ours, consistencyMode: "fast", onCreated: addSteps("parked") })
    const strong = yield* Ours.requests(common, { ...ours, consistencyMode: "strong", onCreated: () => undefined })
    const blanks = yield* ParkedGauge.make(home, preparedPool)
    const prepared = yield* Ours.requests(common, {
      tier: "prepared",
      pool: preparedPool,
      // More at once than there are take what there is, as a user's would.
      ready: (count) => blanks.untilBlank(Math.min(count, defaultBlankSlots)),
      settled: blanks.untilBlank(defaultBlankSlots),
      consistencyMode: "fast",
      onCreated: addSteps("prepared")
    })
    const classic = yield* Ours.requests(common, {
      tier: "prepared",
      called: "classic",
      pool: classicPool,
      ready: () => Effect.void,
      settled: Effect.void,
      consistencyMode: "fast",
      onCreated: addSteps("classic")
    })
    const bare = yield* BareContainerd.make(common, `${home.cgroupParent}/bench`)
    const engines = yield* ifInstalled("dockerd", DockerEngine.make(common))
    const engineApis = engines.map((engine): Contender => ({
      ...DockerEngine.contender(engine, common),
      everyRounds: engineEveryRounds
    }))
    const requests: ReadonlyArray<Contender> = [parked, prepared, classic, bare, ...engineApis]
    const processes: ReadonlyArray<Contender> = [
      yield* Ours.command(common, { fsbCtl, endpoint, pool: parkedPool, ...background }),
      ...engines.map(({ socket }) => Commands.docker(common, socket)),
      ...yield* ifInstalled("podman", Commands.podman(common)),
      ...yield* ifInstalled("ctr", Commands.ctr(common, containerdSocket)),
      ...yield* ifInstalled("crun", Commands.crun(common))
    ]
    if (missing.length > 0) {
      yield* Console.error(`not installed, so not compared (make bench-peers installs them): ${missing.join(", ")}`)
    }
    return { bare, parked, prepared, processes, requests, strong }
  })
  const context = yield* Layer.build(layer)
  const { bare, parked, prepared, processes, requests, strong } = yield* Effect.provideContext(setUp, context)

  const scenarios = {
    requests: alone(
      Starts.run(recorder, { contenders: [...requests, strong], concurrency: 1, rounds, suffix: ".c1" })
    ),
    isolation: Isolation.run(recorder, common, { home, rounds: part(2) }),
    parallel: Effect.andThen(
      Starts.run(recorder, { contenders: requests, concurrency: 4, rounds: part(25), suffix: ".c4" }),
      Starts.run(recorder, { contenders: requests, concurrency: 16, rounds: part(50), suffix: ".c16" })
    ),
    burst: Starts.run(recorder, {
      contenders: [parked],
      concurrency: burst,
      rounds: part(100),
      suffix: `.burst${burst}`
    }),
    cycles: Effect.forEach(
      [4, 16],
      (concurrency) =>
        Starts.cycles(recorder, {
          contenders: [parked, prepared, bare],
          concurrency,
          count: 100,
          passes: part(200)
        }),
      { discard: true }
    ),
    trips: RoundTrips.run(recorder, common, { ours: parked, pool: parkedPool, rounds: part(5) }),
    sessions: Sessions.run(recorder, common, { fsbCtl, endpoint, pool: preparedPool, rounds, copies: part(100) }),
    processes: Starts.run(recorder, { contenders: processes, concurrency: 1, rounds: part(10), suffix: "" }),
    neighbours: Neighbours.run(recorder, common, {
      contenders: [parked, prepared],
      pool: preparedPool,
      passes: part(10),
      rounds: 5
    }),
    density: Stack.withPool(
      crowdPool,
      { maxSandboxesPerPod: crowd, warmImages: unparked },
      Effect.gen(function*() {
        const gauge = yield* ParkedGauge.make(home, crowdPool)
        yield* Density.parked(recorder, {
          park: (count) =>
            Effect.andThen(Stack.warm(crowdPool, [{ image: common.image, parked: count }]), gauge.until(count)),
          count: parkedCrowd
        })
        yield* Stack.warm(crowdPool, unparked)
        yield* Density.run(recorder, common, { pool: crowdPool, count: crowd })
      })
    )
  } satisfies Record<typeof names[number], unknown>
  return { scenarios, context }
})
