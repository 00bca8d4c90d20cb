import { assert, describe, it } from "@effect/vitest"
import * as Table from "../src/Table.ts"

const columns: ReadonlyArray<Table.Column<readonly [string, string]>> = [
  { heading: "NAME", cell: ([name]) => name },
  { heading: "X", cell: ([, value]) => value }
]

describe("Table", () => {
  it("aligns by what is seen, and leaves no blanks at the ends of lines", () =>
    assert.strictEqual(
      Table.format(columns, [["a", "1"], ["漢字名", ""], ["\u001b[1mbold\u001b[0m", "2"]]),
      "NAME    X\na       1\n漢字名  -\n\u001b[1mbold\u001b[0m    2\n"
    ))

  it("grows without a second heading and without becoming narrower", () => {
    const table = Table.growing()
    assert.strictEqual(table(columns, [["long-name", "1"]]), "NAME       X\nlong-name  1\n")
    assert.strictEqual(table(columns, [["a", "2"]]), "a          2\n")
    assert.strictEqual(table(columns, [["longer-name", "3"]]), "longer-name  3\n")
    assert.strictEqual(table(columns, [["b", "4"]]), "b            4\n")
  })

  it("leaves out pairs without a value", () =>
    assert.strictEqual(
      Table.formatPairs([["Name", "a"], ["Nothing", ""], ["Phase", "Running"]]),
      "Name:   a\nPhase:  Running\n"
    ))
})
