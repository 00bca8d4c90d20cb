/**
 * What the control plane costs, without containers: the real API server over its HTTPS, the real controller, and
 * simulated agents that speak the agents' protocol over unix sockets.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import * as Command from "../Command.ts"
import type { Recorder } from "../Recorder.ts"
import * as Creates from "./Creates.ts"
import * as Programs from "./Programs.ts"
import * as Restart from "./Restart.ts"
import * as Settle from "./Settle.ts"

/** Sandboxes that are applied at once, and for how long nothing may be written when they run. */
const settle = { count: 1_000, quietMillis: 10_000 } as const

/** At how many Sandboxes the controller is restarted. */
const restartCounts = [5_000, 10_000] as const

/** Where the Registry alone is measured: the goal's size. */
const registrySize = { agents: 10_000, slots: 100, images: 10 } as const

const RegistrySamples = Schema.fromJsonString(
  Schema.Struct({
    reserveMicros: Schema.Array(Schema.Number),
    upsertMicros: Schema.Array(Schema.Number),
    perSecond: Schema.Number
  })
)

const bench = fileURLToPath(new URL("../../../packages/controller/bench/registry.ts", import.meta.url))

const registry = Effect.fnUntraced(function*(recorder: Recorder, directory: string) {
  const files = yield* FileSystem.FileSystem
  const output = `${directory}/registry.json`
  const { agents, images, slots } = registrySize
  yield* Command.run(process.execPath, [bench, ...[agents, slots, images].map(String), output])
  const { perSecond, reserveMicros, upsertMicros } = yield* Effect.flatMap(
    files.readFileString(output),
    Schema.decodeEffect(RegistrySamples)
  )
  const size = `${agents} agents of ${slots} slots`
  recorder.addAll("registry.reserve", `within the controller: one reservation, ${size}`, reserveMicros, "us")
  recorder.add(
    "registry.rate",
    `reservations one after the other on one core, each confirmed, ${size}`,
    perSecond,
    "per second"
  )
  recorder.addAll(
    "registry.upsertAgent",
    `within the controller: a first view of a full agent, ${size}`,
    upsertMicros,
    "us"
  )
})

/** By name. Each works in a folder of its own below `root`; `rounds` are those of starts. */
export const make = Effect.fnUntraced(function*(recorder: Recorder, root: string, rounds: number) {
  const files = yield* FileSystem.FileSystem
  const bundle = `${root}/bundle`
  const build = yield* Effect.cached(Programs.build(bundle))
  const within = <A, E, R>(name: string, use: (directory: string) => Effect.Effect<A, E, R>) => {
    const directory = `${root}/${name}`
    return files.makeDirectory(directory, { recursive: true }).pipe(
      Effect.andThen(build),
      Effect.andThen(use(directory))
    )
  }
  return {
    registry: within("registry", (directory) => registry(recorder, directory)),
    creates: within("creates", (directory) => Creates.run(recorder, { bundle, directory, rounds })),
    settle: within("settle", (directory) => Settle.run(recorder, { bundle, directory, ...settle })),
    restart: within("restart", (directory) => Restart.run(recorder, { bundle, directory, counts: restartCounts }))
  }
})
