import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Pairs from "../src/Pairs.ts"

describe("Pairs", () => {
  it("environment variables: values, empty ones, from here, absent here, the last wins", () =>
    assert.deepStrictEqual(
      Result.getOrNull(Pairs.environment(["A=1", "B=", "C", "D", "E=x=y", "A=2"], { C: "here" })),
      { A: "2", B: "", C: "here", E: "x=y" }
    ))

  for (const text of ["", "=1", "A B=1"]) {
    it(`refuses the variable ${JSON.stringify(text)}`, () =>
      assert.isTrue(Result.isFailure(Pairs.environment([text], {}))))
  }

  it("labels to set and to remove", () =>
    assert.deepStrictEqual(
      Result.getOrNull(Pairs.labels(["a=1", "example.com/b=", "c-"])),
      { a: "1", "example.com/b": "", c: "" }
    ))

  for (const text of ["", "a", "=1", "-"]) {
    it(`refuses the label ${JSON.stringify(text)}`, () => assert.isTrue(Result.isFailure(Pairs.labels([text]))))
  }
})
