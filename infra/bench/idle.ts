/**
 * Memory of the programs that run on a cluster while nothing happens: controller, agent and janitor from their images, as
 * their manifests run them, after one sandbox was run and half a minute has passed. Adds to bench/results.json. Wants root and `make images`.
 *
 *   node infra/bench/idle.ts [--check]
 *
 * `--check` fails when one takes more than it may, and leaves bench/results.json as it is.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import { fileURLToPath } from "node:url"
import * as ClusterNode from "../../packages/cli/test/e2e/ClusterNode.ts"
import * as Installation from "../../packages/cli/test/e2e/Installation.ts"
import * as Environment from "./Environment.ts"
import * as Memory from "./Memory.ts"
import { Recorder } from "./Recorder.ts"
import * as Report from "./Report.ts"
import * as Results from "./Results.ts"
import { summarise } from "./Statistics.ts"

const repository = fileURLToPath(new URL("../..", import.meta.url))

/** Resident memory that each may take in the median, in MB. */
const mostMegabytes = { controller: 120, agent: 100, janitor: 80 } as const

/** Longer than V8 waits before it collects the garbage of a program that rests. */
const rest = "30 seconds"

const samples = 15
const pause = "1 second"

const bytesPerKibibyte = 1024
const bytesPerMegabyte = 1e6

/** One takes more than it may. */
class TooMuch extends Schema.TaggedError<TooMuch>()("TooMuch", { problems: Schema.Array(Schema.String) }) {
  override get message(): string {
    return this.problems.join("; ")
  }
}

/** Resident and proportional memory of a process in MB, as the kernel counts them at this moment. */
const memoryOf = Effect.fnUntraced(function*(pid: number) {
  const files = yield* FileSystem.FileSystem
  const text = yield* files.readFileString(`/proc/${pid}/smaps_rollup`)
  const megabytes = (name: string) =>
    (Memory.kibibytesOf(text, name) ?? Number.NaN) * bytesPerKibibyte / bytesPerMegabyte
  return { rss: megabytes("Rss"), pss: megabytes("Pss") }
})

const measure = Effect.fnUntraced(function*(recorder: Recorder) {
  const { fsbCtl, ...programs } = yield* Installation.Installation
  const { code, stderr } = yield* fsbCtl("run", "--rm", "--image", "busybox", "--", "true")
  if (code !== 0) return yield* Effect.die(new Error(stderr))
  yield* Effect.sleep(rest)
  for (let sample = 0; sample < samples; sample++) {
    for (const [name, { pid }] of Object.entries(programs)) {
      const { pss, rss } = yield* memoryOf(pid)
      recorder.add(`idle.${name}.rss`, "resident memory, as ps shows it", rss, "MB")
      recorder.add(`idle.${name}.pss`, "proportional memory: what is shared counts by its share", pss, "MB")
    }
    yield* Effect.sleep(pause)
  }
})

const main = Effect.gen(function*() {
  const environment = yield* Environment.read
  const recorder = new Recorder()
  yield* measure(recorder)
  yield* Console.log(Report.table(recorder.all))
  if (!process.argv.includes("--check")) {
    yield* FileSystem.FileSystem.use((files) => files.makeDirectory(`${repository}/bench`, { recursive: true }))
    yield* Results.add(`${repository}/bench/results.json`, environment, recorder.all)
    return
  }
  const problems = Object.entries(mostMegabytes).flatMap(([name, most]) => {
    const metric = recorder.all.get(`idle.${name}.rss`)
    const median = metric === undefined ? Number.NaN : summarise(metric).p50
    return median <= most ? [] : [`${name} takes ${median.toFixed(1)} MB, not ${most} at most`]
  })
  if (problems.length > 0) return yield* new TooMuch({ problems })
})

main.pipe(
  Effect.provide(Installation.layer({ isTraced: false, archives: ClusterNode.builtArchives })),
  NodeRuntime.runMain
)
