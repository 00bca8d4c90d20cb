/**
 * What isolation costs a parked start: two pools of one agent each, one as pools are by default, one with everything off
 * that a pool can switch off (the sandbox's own network and users; capabilities, the filter of system calls and masked
 * paths can't be switched off). Their starts are interleaved.
 */
import type { SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import type * as Home from "@fast-sandbox/local/Home"
import * as Effect from "effect/Effect"
import type { Common, Contender } from "../contenders/Contender.ts"
import * as Ours from "../contenders/Ours.ts"
import * as ParkedGauge from "../ParkedGauge.ts"
import type { Recorder } from "../Recorder.ts"
import * as Stack from "../Stack.ts"
import * as Starts from "./Starts.ts"

/** Slots of each pool, parked all: enough that one is always there. */
const slots = 4

/** The pools by what their metrics are called. */
const pools: ReadonlyArray<readonly [name: string, spec: SandboxPoolSpec]> = [
  ["isolated", {}],
  ["open", { network: "pod", sandboxSecurity: { hostUsers: true } }]
]

/** Makes the pool, and starts in it; the pool goes with the scope. */
const contender = Effect.fnUntraced(function*(common: Common, home: Home.Home, name: string, spec: SandboxPoolSpec) {
  const pool = `bench-${name}`
  yield* Stack.scopedPool(pool, {
    ...spec,
    maxSandboxesPerPod: slots,
    warmImages: [{ image: common.image, parked: slots }]
  })
  const gauge = yield* ParkedGauge.make(home, pool)
  const ours = yield* Ours.requests(common, {
    tier: "parked",
    pool,
    ready: () => gauge.until(slots),
    settled: gauge.until(slots),
    consistencyMode: "fast",
    onCreated: () => undefined
  })
  return {
    ...ours,
    name: `${ours.name}.${name}`,
    start: (id) => Effect.map(ours.start(id), (metric) => `${metric}.${name}`)
  } satisfies Contender
})

/** Records `create.parked.isolated` and `create.parked.open`. */
export const run = (recorder: Recorder, common: Common, options: {
  readonly home: Home.Home
  readonly rounds: number
}) =>
  Effect.gen(function*() {
    const contenders = yield* Effect.forEach(
      pools,
      ([name, spec]) => contender(common, options.home, name, spec)
    )
    yield* Starts.run(recorder, { contenders, concurrency: 1, rounds: options.rounds, suffix: "" })
  }).pipe(Effect.scoped)
