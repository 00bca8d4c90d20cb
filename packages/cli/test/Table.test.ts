import { assert, describe, it } from "@effect/vitest"
import * as Table from "../src/Table.ts"

const columns: ReadonlyArray<Table.Column<readonly [string, string]>> = [
  { heading: "NAME", cell: ([name]) => name },
  { heading: "X", cell: ([, value]) => value }
]

const giving = (narrow: "wrap" | "shorten"): ReadonlyArray<Table.Column<readonly [string, string]>> => [
  { heading: "NAME", cell: ([name]) => name },
  { heading: "TEXT", cell: ([, text]) => text, narrow },
  { heading: "AGE", cell: () => "1s" }
]

describe("Table", () => {
  it("aligns by what is seen, and leaves no blanks at the ends of lines", () =>
    assert.strictEqual(
      Table.format(columns, [["a", "1"], ["漢字名", ""]], 80),
      "NAME    X\na       1\n漢字名  -\n"
    ))

  it("shows no control characters of a cell, and no second line", () =>
    assert.strictEqual(Table.format(columns, [["a\nb", "\u001b[2J"]], 80), "NAME  X\na; b  ?[2J\n"))

  it("grows without a second heading and without becoming narrower", () => {
    const table = Table.growing()
    assert.strictEqual(table(columns, [["long-name", "1"]], 80), "NAME       X\nlong-name  1\n")
    assert.strictEqual(table(columns, [["a", "2"]], 80), "a          2\n")
    assert.strictEqual(table(columns, [["longer-name", "3"]], 80), "longer-name  3\n")
    assert.strictEqual(table(columns, [["b", "4"]], 80), "b            4\n")
  })

  it("lets prose go on below itself in a narrow terminal, and nowhere else, nor as a thin strip", () => {
    const rows = [["a", "all of these words are said, one by one"], ["b", "few"]] as const
    assert.strictEqual(
      Table.format(giving("wrap"), rows, 35),
      "NAME  TEXT                      AGE\n" +
        "a     all of these words are    1s\n" +
        "      said, one by one\n" +
        "b     few                       1s\n"
    )
    const unbroken = "NAME  TEXT                                     AGE\n" +
      "a     all of these words are said, one by one  1s\n" +
      "b     few                                      1s\n"
    assert.strictEqual(Table.format(giving("wrap"), rows, Infinity), unbroken)
    assert.strictEqual(Table.format(giving("wrap"), rows, 34), unbroken)
  })

  it("leaves out the middle of names in a narrow terminal, unless they are wanted whole", () => {
    const rows = [["a", "default-pool-agent-qq7wk"]] as const
    assert.strictEqual(
      Table.format(giving("shorten"), rows, 25),
      "NAME  TEXT            AGE\na     default…-qq7wk  1s\n"
    )
    const whole = "NAME  TEXT                      AGE\na     default-pool-agent-qq7wk  1s\n"
    assert.strictEqual(Table.format(giving("shorten"), rows, 35), whole)
    assert.strictEqual(Table.format(Table.whole(giving("shorten")), rows, 25), whole)
  })

  it("takes from the widest columns only, and stops where names could not be told apart", () => {
    const both: ReadonlyArray<Table.Column<readonly [string, string]>> = [
      { heading: "A", cell: ([a]) => a, narrow: "shorten" },
      { heading: "B", cell: ([, b]) => b, narrow: "shorten" }
    ]
    const rows = [["a".repeat(30), "b".repeat(14)]] as const
    const widths = (terminal: number) =>
      Table.format(both, rows, terminal).trimEnd().split("\n")[1]?.split("  ").map(({ length }) => length)
    assert.deepStrictEqual(widths(46), [30, 14])
    assert.deepStrictEqual(widths(36), [20, 14])
    assert.deepStrictEqual(widths(28), [13, 13])
    assert.deepStrictEqual(widths(10), [8, 8])
  })

  it("leaves out pairs without a value, and wraps the others beside their names", () => {
    const pairs = [["Name", "a"], ["Nothing", ""], ["Phase", "Running for a while and longer"]] as const
    assert.strictEqual(Table.formatPairs(pairs, Infinity), "Name:   a\nPhase:  Running for a while and longer\n")
    assert.strictEqual(Table.formatPairs(pairs, 32), "Name:   a\nPhase:  Running for a while and\n        longer\n")
    assert.strictEqual(Table.formatPairs([], 32), "")
  })
})
