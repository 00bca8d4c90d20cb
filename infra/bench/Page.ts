/**
 * The page about performance, made of results: every number with its boundary, its machine and the time at which it was
 * measured. Pure: results to Markdown, as the formatter of this repository would write it.
 */
import { ratiosOf, sentence } from "./Report.ts"
import { type Results, type Row, rows } from "./Results.ts"

/** Whole starts, ours and others', whose bars mean the same. */
export const starts = /^(create\.(parked|prepared|classic)\.c\d+|cli\.|peer\.)/

/** What each part of a page is about: metrics go to the first part that takes their name. */
const parts: ReadonlyArray<{ readonly title: string; readonly text: string; readonly takes: RegExp }> = [
  {
    title: "Starts, beside what else one would use",
    text: "All contenders have their turn in every round, with the same image and the same program.",
    takes: starts
  },
  {
    title: "Where a start spends its time in the agent",
    text: "What the agent says about the starts above, by tier and step.",
    takes: /^step\./
  },
  {
    title: "Beside neighbours",
    text: "The same starts alone, beside a sandbox that takes a processor, and beside some that take all they can.",
    takes: /^create\.(parked|prepared)\.(alone|yes|greedy)$/
  },
  {
    title: "The rest of a sandbox's life",
    text: "",
    takes: /^(create\.(parked|prepared)\.burst|firstline|exec|delete|cycles|density)/
  },
  {
    title: "The control plane by itself",
    text: "API server and controller are real, agents are simulated.",
    takes: /^(controlplane|create\.(fast|strong)|api|registry)\./
  },
  {
    title: "Idle programs",
    text: "From the images, as the manifests run them, half a minute after a sandbox was run. PSS counts memory that " +
      "processes share by its share, RSS counts it in full in each: some 45 MB of it are node's own code.",
    takes: /^idle\./
  }
]

const cells = (row: Row): ReadonlyArray<string> => [
  row.name,
  row.unit,
  String(row.n),
  ...[row.p50, row.p90, row.p99].map((value) => value.toFixed(value < 100 ? 2 : 0)),
  row.time.slice(0, "2026-01-01T00:00".length).replace("T", " "),
  row.loadBefore.toFixed(1)
]

const headings = ["metric", "unit", "n", "p50", "p90", "p99", "measured (UTC)", "load"]

/** A table with its columns padded. */
const table = (headings: ReadonlyArray<string>, lines: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = headings.map((heading, at) => Math.max(heading.length, ...lines.map((line) => line[at]?.length ?? 0)))
  const line = (texts: ReadonlyArray<string>) =>
    `| ${texts.map((text, at) => text.padEnd(widths[at] ?? 0)).join(" | ")} |`
  return [line(headings), line(widths.map((width) => "-".repeat(width))), ...lines.map(line)].join("\n")
}

const unique = <A>(values: ReadonlyArray<A>): ReadonlyArray<A> => [...new Set(values)]

/** Boundaries, each with the metrics that it holds for. */
const boundaries = (all: ReadonlyArray<Row>): string =>
  unique(all.map(({ boundary }) => boundary)).map((boundary) => {
    const names = all.filter((row) => row.boundary === boundary).map(({ name }) => `\`${name}\``)
    return `- ${boundary}: ${names.join(", ")}`
  }).join("\n")

const introduction = `# Performance

Each number has a boundary: _request_ is a connected client's call, _process_ includes the start of the program that calls.
Compare rows that were measured together, not milliseconds of two machines or of two days. p99 of few samples is their
largest. Raw samples: [performance/results.json](performance/results.json). What stands out, of a quiet minute, is in
the [README](../README.md#numbers); what was learned and measured once, in [notes](performance/notes.md).

![Starts, ours and others'](performance/starts.svg)

\`\`\`sh not run: together they take the machine for an hour; the tests run the comparison in a small form
make bench-peers                    # installs what is compared with
make bench                          # measures into bench/results.json
node infra/bench/main.ts requests   # one scenario: requests, parallel, burst, cycles, trips, processes, neighbours, density
node infra/bench/main.ts settle     # of the control plane: registry, creates, settle, restart
node infra/bench/idle.ts            # memory of idle programs, from the images
npm run generate:performance        # this page, from bench/results.json
make soak                           # no numbers: does it stay right under kills and load
\`\`\`
`

/** The page. */
export const page = (results: Results): string => {
  const all = rows(results)
  const ofPart = (at: number) => all.filter(({ name }) => parts.findIndex(({ takes }) => takes.test(name)) === at)
  const ratios = ratiosOf(all)
  const sections = parts.flatMap(({ text, title }, at) => {
    const own = ofPart(at)
    return own.length === 0 ? [] : [[
      `## ${title}`,
      ...(text === "" ? [] : [text]),
      table(headings, own.map(cells)),
      boundaries(own),
      ...(at === 0 && ratios.length > 0 ? [ratios.map((ratio) => `- ${sentence(ratio)}`).join("\n")] : [])
    ].join("\n\n")]
  })
  return [
    "<!-- Generated by `npm run generate:performance`. -->",
    introduction.trimEnd(),
    "## The machine",
    table(["", ""], Object.entries(results.machine).map(([name, value]) => [name, String(value)])),
    ...sections,
    ""
  ].join("\n\n").trimEnd() + "\n"
}
