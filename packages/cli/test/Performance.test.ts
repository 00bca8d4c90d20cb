import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Page from "../../../infra/bench/Page.ts"
import { Results, rows } from "../../../infra/bench/Results.ts"
import * as Pages from "./Pages.ts"

const results = Schema.decodeUnknownSync(Schema.fromJsonString(Results))(Pages.read("docs/performance/results.json"))

/** The rows of the README's table, and the metrics behind them. */
const inReadme = {
  "create, parked": "create.parked.c1",
  "create, prepared": "create.prepared.c1",
  "containerd's own calls": "peer.containerd.bare.c1",
  "Docker Engine's API": "peer.docker.api.c1"
} as const

describe("the README's numbers", () => {
  it("are those of the published results", () => {
    const metrics = new Map(rows(results).map((row) => [row.name, row]))
    const readme = Pages.read("README.md")
    for (const [title, name] of Object.entries(inReadme)) {
      const cells = readme.split("\n").find((line) => line.startsWith(`| ${title} `))?.split("|").slice(3, 6)
      const { p50 = NaN, p90 = NaN, p99 = NaN } = metrics.get(name) ?? {}
      assert.deepStrictEqual(cells?.map(Number), [p50, p90, p99].map((millis) => Number(millis.toFixed(1))), title)
    }
  })
})

describe("docs/performance.md", () => {
  it("is what the published results give", () => {
    assert.strictEqual(Pages.read("docs/performance.md"), Page.page(results))
  })
})
