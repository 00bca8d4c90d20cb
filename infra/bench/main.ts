/**
 * `make bench`: how long it takes from a client's request to a running program, beside what a user would pick instead, and
 * what the rest of a sandbox's life takes. Everything runs in the same minutes on the same machine, contenders one after
 * the other in every round, with the same image and the same program. Raw samples go to bench/results.json.
 *
 *   node infra/bench/main.ts [--rounds N] [--check] [SCENARIO ...]
 *
 * Scenarios with containers: requests, isolation, parallel, burst, cycles, trips, sessions, processes, neighbours, density. Of the control plane by itself:
 * registry, creates, settle, restart. Without a name all of them run but `restart`, which takes minutes; named ones add to
 * the results that are there. `--check` fails when a ratio is below its bound. A run that is interrupted or in which a scenario fails still tells what it has.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import * as Cause from "effect/Cause"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as Containers from "./Containers.ts"
import * as ControlPlane from "./controlplane/Scenarios.ts"
import * as Environment from "./Environment.ts"
import { Recorder } from "./Recorder.ts"
import * as Report from "./Report.ts"
import * as Results from "./Results.ts"

const repository = fileURLToPath(new URL("../..", import.meta.url))

const { positionals: chosen, values } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "500" },
    check: { type: "boolean", default: false }
  }
})

/** Starts at concurrency 1: enough for a p99 that is not just the maximum. */
const rounds = Number(values.rounds)

/** Scenarios that run when nobody names any. */
const usual = [...Containers.names, "registry", "creates", "settle"]

/** A scenario did not come to its end, or with `--check` a ratio is below its bound or nothing was compared. */
class Unfinished extends Schema.TaggedError<Unfinished>()("Unfinished", { problems: Schema.Array(Schema.String) }) {
  override get message(): string {
    return this.problems.join("; ")
  }
}

const isWanted = (name: string): boolean => (chosen.length === 0 ? usual : chosen).includes(name)

const main = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const directory = yield* files.makeTempDirectoryScoped({ prefix: "fsb-bench-" })
  const environment = yield* Environment.read
  const results = `${repository}/bench/results.json`
  yield* Console.error(`Measuring on ${Environment.sentence(environment)}; raw samples go to bench/results.json`)
  const recorder = new Recorder()
  const problems: Array<string> = []

  /** One after the other; one that fails takes no other with it. */
  const runAll = <R>(scenarios: Readonly<Record<string, Effect.Effect<unknown, unknown, R>>>) =>
    Effect.forEach(
      Object.entries(scenarios).filter(([name]) => isWanted(name)),
      ([name, scenario]) =>
        Console.error(`${name} ...`).pipe(
          Effect.andThen(scenario),
          Effect.catchCause((cause) => {
            if (Cause.hasInterrupts(cause)) {
              return Effect.failCause(cause)
            }
            problems.push(`${name} failed`)
            return Console.error(`${name} failed: ${Cause.pretty(cause)}`)
          })
        ),
      { discard: true }
    )

  const report = Effect.gen(function*() {
    if (recorder.all.size === 0) {
      return
    }
    yield* files.makeDirectory(`${repository}/bench`, { recursive: true })
    if (chosen.length === 0) {
      yield* files.remove(results, { force: true })
    }
    yield* Results.add(results, environment, recorder.all)
    yield* Console.log(Environment.sentence(environment))
    yield* Console.log(Report.table(recorder.all))
    yield* Console.log(Report.ratios(recorder.all).map(Report.sentence).join("\n"))
  })

  yield* Effect.gen(function*() {
    if (Containers.names.some(isWanted)) {
      yield* Effect.scoped(
        Effect.flatMap(
          Containers.make(recorder, { repository, directory: `${directory}/containers`, rounds }),
          ({ context, scenarios }) => Effect.provideContext(runAll(scenarios), context)
        )
      )
    }
    yield* Effect.flatMap(
      ControlPlane.make(recorder, `${directory}/controlplane`, rounds),
      (scenarios) => runAll(scenarios)
    )
  }).pipe(Effect.onExit(() => Effect.orDie(report)))

  const ratios = Report.ratios(recorder.all)
  if (values.check) {
    problems.push(...ratios.filter(({ atLeast, ratio }) => ratio < atLeast).map(Report.sentence))
    if (ratios.length === 0) {
      problems.push("nothing was compared")
    }
  }
  if (problems.length > 0) {
    return yield* new Unfinished({ problems })
  }
})

main.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
