/** Arguments that nobody would give: every one is read or refused, and none throws. */
import { assert, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Operands from "../src/Operands.ts"
import * as Pairs from "../src/Pairs.ts"
import * as Span from "../src/Span.ts"

it.prop("arguments of any text are read or refused", [Schema.Array(Schema.String)], ([texts]) => {
  for (const text of texts) {
    const span = Span.parse(text)
    assert.isTrue(span._tag === "None" || (Number.isFinite(span.value) && span.value >= 0))
  }
  assert.include(["Success", "Failure"], Pairs.labels(texts)._tag)
  const trailing = Operands.countTrailing(texts)
  assert.isTrue(trailing >= 0 && trailing <= texts.length)
  return true
})
