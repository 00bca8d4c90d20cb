import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { render } from "../src/JsonPathTemplate.ts"

const list = {
  items: [
    { metadata: { name: "a", labels: { "x.y/z": "1" } }, status: { ready: true, gone: undefined } },
    { metadata: { name: "b" }, status: { conditions: [{ type: "Ready", status: "False" }] } }
  ]
}

describe("JsonPathTemplate", () => {
  it.each([
    ["{.items[*].metadata.name}", "a b"],
    [".items[0].metadata.name", "a"],
    ["{items[-1].metadata.name}", "b"],
    ["names: {.items[0].metadata.name}!", "names: a!"],
    ["{range .items[*]}{.metadata.name}{'\\t'}{.status.ready}{\"\\n\"}{end}", "a\ttrue\nb\t\n"],
    ["{.items[0].metadata.labels['x.y/z']}", "1"],
    ["{.items[1].status.conditions[?(@.type==\"Ready\")].status}", "False"],
    ["{.items[0].status}", "{\"ready\":true}"],
    ["{.nothing.here}", ""],
    ["{\"{braces}\"}", "{braces}"]
  ])("%s", (template, text) => assert.strictEqual(Result.getOrThrow(render(template, list)), text))

  it.each(["{.items[*}", "{.a", "a}", "{range .items[*]}x", "{end}"])(
    "refuses %s",
    (template) => assert.isTrue(Result.isFailure(render(template, list)))
  )
})
