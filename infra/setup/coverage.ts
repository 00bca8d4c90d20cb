/**
 * `make coverage`: runs the unit tests, and other suites that are named, and says for each package how much of its source
 * they ran. What programs of their own run (agents, stacks) is not seen, so the services' numbers tell less than the
 * libraries'. The whole report is coverage/index.html.
 *
 *     node infra/setup/coverage.ts [unit] [integration] [e2e]
 */
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../..", import.meta.url))

interface Count {
  readonly total: number
  readonly covered: number
}

const measures = ["statements", "branches", "functions", "lines"] as const
type Counts = Readonly<Record<typeof measures[number], Count>>

/** Seeds of the simulation: the first few run what thousands run, and counting makes each much slower. */
const simulations = 20

const suites = process.argv.length > 2 ? process.argv.slice(2) : ["unit"]

const { status } = spawnSync(
  `${root}node_modules/.bin/vitest`,
  ["run", ...suites.flatMap((suite) => ["--project", suite]), "--coverage"],
  { cwd: root, stdio: "inherit", env: { ...process.env, FSB_SIM_SEEDS: String(simulations) } }
)

const files: Readonly<Record<string, Counts>> = JSON.parse(
  readFileSync(`${root}coverage/coverage-summary.json`, "utf8")
)

const packageOf = (path: string): string => /packages\/([a-z]+)\/src\//.exec(path)?.[1] ?? ""

const percent = (counts: ReadonlyArray<Count>): string => {
  const total = counts.reduce((sum, count) => sum + count.total, 0)
  const covered = counts.reduce((sum, count) => sum + count.covered, 0)
  return total === 0 ? "-" : `${(100 * covered / total).toFixed(1)} %`
}

const row = (name: string, all: ReadonlyArray<Counts>): string =>
  [name.padEnd(12), ...measures.map((measure) => percent(all.map((counts) => counts[measure])).padStart(12))].join("")

const own = Object.entries(files).filter(([path]) => packageOf(path) !== "")
const packages = [...new Set(own.map(([path]) => packageOf(path)))].toSorted()
const lines = [
  ["package".padEnd(12), ...measures.map((measure) => measure.padStart(12))].join(""),
  ...packages.map((name) => row(name, own.filter(([path]) => packageOf(path) === name).map(([, counts]) => counts))),
  row("all", own.map(([, counts]) => counts))
]
process.stdout.write(`\n${lines.join("\n")}\n`)
process.exitCode = status ?? 1
