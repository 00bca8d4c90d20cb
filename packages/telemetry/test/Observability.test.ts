import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { parse, parseAllDocuments } from "yaml"

const repository = fileURLToPath(new URL("../../..", import.meta.url))
const read = (path: string): string => readFileSync(`${repository}/${path}`, "utf8")

const Dashboard = Schema.fromJsonString(Schema.Struct({
  panels: Schema.Array(Schema.Struct({
    title: Schema.String,
    targets: Schema.Array(Schema.Struct({ expr: Schema.String }))
  }))
}))

const Rules = Schema.Struct({
  groups: Schema.Array(Schema.Struct({
    rules: Schema.Array(Schema.Struct({
      alert: Schema.String,
      expr: Schema.String,
      annotations: Schema.Struct({ runbook: Schema.String })
    }))
  }))
})

const ScrapeConfigs = Schema.Array(Schema.Struct({
  job_name: Schema.String,
  relabel_configs: Schema.Array(Schema.Struct({
    source_labels: Schema.Array(Schema.String),
    regex: Schema.optionalKey(Schema.String)
  }))
}))

/** Which Pods a policy is for, and at which ports they may be reached. */
const NetworkPolicy = Schema.Struct({
  kind: Schema.Literal("NetworkPolicy"),
  spec: Schema.Struct({
    podSelector: Schema.Struct({ matchLabels: Schema.Record(Schema.String, Schema.String) }),
    ingress: Schema.Array(Schema.Struct({
      ports: Schema.Array(Schema.Struct({
        port: Schema.Union([Schema.String, Schema.Number]),
        endPort: Schema.optionalKey(Schema.Number)
      }))
    }))
  })
})
const isNetworkPolicy = Schema.is(NetworkPolicy)

const metricsPort = 9091

/** The names that the programs give to their metrics. */
const known = new Set(
  globSync("packages/*/src/**/*.ts", { cwd: repository }).flatMap((path) =>
    [...read(path).matchAll(/(?:Metric|Instruments)\.(?:counter|gauge|histogram|seconds)\(\s*["`]([\w${}]+)["`]/g)]
      .flatMap(([, name = ""]) =>
        name.includes("${side}") ? ["server", "client"].map((side) => name.replace("${side}", side)) : [name]
      )
  )
)

const used = (expression: string): ReadonlyArray<string> =>
  [...expression.matchAll(/\b(?:fsb|process|nodejs)_\w+/g)].map(([name]) => name.replace(/_(bucket|sum|count)$/, ""))

const anchorOf = (heading: string): string => heading.toLowerCase().replace(/[^\w -]/g, "").replaceAll(" ", "-")

describe("the files for dashboards and alerts", () => {
  const { panels } = Schema.decodeUnknownSync(Dashboard)(read("infra/observability/dashboard.json"))
  const rules = Schema.decodeUnknownSync(Rules)(parse(read("infra/observability/alerts.yaml"))).groups.flatMap(
    (group) => group.rules
  )

  it("ask for metrics that exist", () => {
    const expressions = [...panels.flatMap(({ targets }) => targets), ...rules].map(({ expr }) => expr)
    assert.isAbove(known.size, 30)
    assert.deepStrictEqual(expressions.flatMap(used).filter((name) => !known.has(name)), [])
  })

  it("show every metric", () => {
    const shown = new Set([...panels.flatMap(({ targets }) => targets), ...rules].flatMap(({ expr }) => used(expr)))
    assert.deepStrictEqual([...known].filter((name) => !shown.has(name)).toSorted(), notShown)
  })

  it("go by the job that is scraped, whose Pods may be reached", () => {
    const [scrape] = Schema.decodeUnknownSync(ScrapeConfigs)(parse(read("infra/observability/scrape.yaml")))
    const expressions = [...panels.flatMap(({ targets }) => targets), ...rules].map(({ expr }) => expr)
    const jobs = expressions.flatMap((expr) => [...expr.matchAll(/job="([^"]*)"/g)].map(([, job]) => job))
    assert.deepStrictEqual([...new Set(jobs)], [scrape?.job_name])

    const policies = ["network-policy.yaml", "samples/agents-network-policy.yaml"].flatMap((path) =>
      parseAllDocuments(read(`infra/manifests/${path}`)).map((document): unknown => document.toJS())
    ).filter(isNetworkPolicy)
    assert.lengthOf(policies, 3)
    for (const { spec: { ingress, podSelector: { matchLabels } } } of policies) {
      const labels = `${matchLabels["app.kubernetes.io/name"] ?? ""};${matchLabels["app"] ?? ""}`
      assert.match(labels, new RegExp(`^${scrape?.relabel_configs[0]?.regex}$`))
      const isOpen = ingress.some(({ ports }) =>
        ports.some(({ endPort, port }) =>
          port === "metrics" || typeof port === "number" && port <= metricsPort && metricsPort <= (endPort ?? port)
        )
      )
      assert.isTrue(isOpen, labels)
    }
  })

  it("have a runbook for every alert", () => {
    for (const { alert, annotations: { runbook } } of rules) {
      const [path = "", anchor = ""] = runbook.split("#")
      const headings = [...read(path).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchorOf(heading))
      assert.include(headings, anchor, alert)
    }
  })
})

/** For a closer look than a dashboard's. */
// dprint-ignore
const notShown = [
  "fsb_controller_agents", "fsb_create_step_duration_seconds", "fsb_events_dropped_total", "fsb_grpc_client_duration_seconds",
  "fsb_grpc_server_calls_total", "fsb_janitor_removed_total", "fsb_janitor_scan_duration_seconds", "fsb_janitor_spared_total",
  "fsb_kube_client_call_duration_seconds", "fsb_workqueue_wait_seconds", "fsb_write_behind_total",
  "nodejs_heap_size_used_bytes", "process_cpu_seconds_total", "process_start_time_seconds"
]
