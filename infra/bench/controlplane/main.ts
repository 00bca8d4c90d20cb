/**
 * What the control plane costs, without containers: the real API server over its HTTPS, the real controller, and
 * simulated agents that speak the agents' protocol over unix sockets. Part of `make bench`; adds to bench/results.json.
 *
 *   node infra/bench/controlplane/main.ts [--quick] [settle] [restart] [creates] [registry]
 *
 * Without a name all scenarios run. `--quick` looks whether they work; its numbers are no results.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import * as Command from "../Command.ts"
import * as Environment from "../Environment.ts"
import { Recorder } from "../Recorder.ts"
import * as Report from "../Report.ts"
import * as Creates from "./Creates.ts"
import * as Programs from "./Programs.ts"
import * as Restart from "./Restart.ts"
import * as Settle from "./Settle.ts"

const repository = fileURLToPath(new URL("../../..", import.meta.url))
const isQuick = process.argv.includes("--quick")

const sizes = isQuick
  ? { settle: 100, quietMillis: 5_000, restarts: [100, 200], rounds: 20, agents: 100 } as const
  : { settle: 1_000, quietMillis: 60_000, restarts: [5_000, 10_000], rounds: 500, agents: 1_000 } as const

/** Slots of each agent and images on it, where the Registry alone is measured. */
const registrySlots = 100
const registryImages = 10

const RegistrySamples = Schema.fromJsonString(
  Schema.Struct({ reserveMicros: Schema.Array(Schema.Number), upsertMicros: Schema.Array(Schema.Number) })
)

const registry = Effect.fnUntraced(function*(recorder: Recorder, directory: string) {
  const files = yield* FileSystem.FileSystem
  const output = `${directory}/registry.json`
  yield* Command.run(process.execPath, [
    `${repository}/packages/controller/bench/registry.ts`,
    ...[sizes.agents, registrySlots, registryImages].map(String),
    output
  ])
  const { reserveMicros, upsertMicros } = yield* Effect.flatMap(
    files.readFileString(output),
    Schema.decodeEffect(RegistrySamples)
  )
  const size = `${sizes.agents} agents of ${registrySlots} slots`
  recorder.addAll("registry.reserve", `within the controller: one reservation, ${size}`, reserveMicros, "us")
  recorder.addAll(
    "registry.upsertAgent",
    `within the controller: a first view of a full agent, ${size}`,
    upsertMicros,
    "us"
  )
})

const main = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const recorder = new Recorder()
  const environment = yield* Environment.read
  const root = yield* files.makeTempDirectoryScoped({ prefix: "fsb-bench-" })
  const bundle = `${root}/bundle`
  yield* Programs.build(bundle)

  const scenarios = {
    settle: (directory: string) =>
      Settle.run(recorder, { bundle, directory, count: sizes.settle, quietMillis: sizes.quietMillis }),
    creates: (directory: string) => Creates.run(recorder, { bundle, directory, rounds: sizes.rounds }),
    restart: (directory: string) => Restart.run(recorder, { bundle, directory, counts: sizes.restarts }),
    registry: (directory: string) => registry(recorder, directory)
  }
  const chosen = process.argv.slice(2).filter((name) => name !== "--quick")
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (chosen.length === 0 || chosen.includes(name)) {
      yield* Console.error(`${name} ...`)
      const directory = `${root}/${name}`
      yield* files.makeDirectory(directory)
      yield* scenario(directory)
    }
  }

  if (!isQuick) {
    yield* files.makeDirectory(`${repository}/bench`, { recursive: true })
    yield* Report.add(`${repository}/bench/results.json`, environment, recorder.all)
  }
  yield* Console.log(JSON.stringify(environment, undefined, 2))
  yield* Console.log(Report.table(recorder.all))
})

main.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
