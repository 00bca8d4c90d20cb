import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Page from "../../../infra/bench/Page.ts"
import { Results } from "../../../infra/bench/Results.ts"
import * as Pages from "./Pages.ts"

describe("docs/performance.md", () => {
  it("is what the published results give", () => {
    const results = Schema.decodeUnknownSync(Schema.fromJsonString(Results))(
      Pages.read("docs/performance/results.json")
    )
    assert.strictEqual(Pages.read("docs/performance.md"), Page.page(results))
  })
})
