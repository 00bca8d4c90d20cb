import { assert, describe, it } from "@effect/vitest"
import * as LabelSelector from "@fast-sandbox/core/LabelSelector"
import { Result } from "effect"

const labels = { app: "web", env: "a", "example.com/team": "x", empty: "" }

const cases: ReadonlyArray<readonly [selector: string, matches: boolean]> = [
  ["", true],
  ["app=web", true],
  ["app == web , env=a", true],
  ["app=web,env=b", false],
  ["app!=web", false],
  ["missing!=web", true],
  ["missing=web", false],
  ["env in (a, b)", true],
  ["env in (b,c),app=web", false],
  ["env notin (b,c),app", true],
  ["missing notin (b)", true],
  ["env notin (a)", false],
  ["app", true],
  ["missing", false],
  ["!missing", true],
  ["!app", false],
  ["example.com/team=x", true],
  ["empty=", true],
  ["toString", false]
]

describe("LabelSelector", () => {
  it.each(cases)("%s", (selector, expected) => {
    assert.strictEqual(LabelSelector.matches(Result.getOrThrow(LabelSelector.parse(selector)), labels), expected)
  })
  it.each(["=web", "a=b=c", ",", "app=web,", "a in b", "a b", "a in (b", "!"])("refuses %s", (selector) => {
    assert.isTrue(Result.isFailure(LabelSelector.parse(selector)))
  })
})
