/** When authorities sign, are believed, and get successors. */
import { assert, describe, it } from "@effect/vitest"
import * as AuthorityPlan from "../../src/access/AuthorityPlan.ts"

const hour = 60 * 60 * 1000
const day = 24 * hour

const kept = (madeAt: number, name = String(madeAt)): AuthorityPlan.Kept => ({
  certificate: name,
  key: "",
  madeAt,
  endsAt: madeAt + AuthorityPlan.authorityMillis
})

const at = (now: number, ...authorities: ReadonlyArray<AuthorityPlan.Kept>) => {
  const { believed, needsNew, signer } = AuthorityPlan.make(authorities, now)
  return { believed: believed.map(({ certificate }) => certificate), signer: signer?.certificate, needsNew }
}

describe("authorities", () => {
  it("the first one is made, and signs at once", () => {
    assert.deepStrictEqual(at(0), { believed: [], signer: undefined, needsNew: true })
    assert.deepStrictEqual(at(hour, kept(0)), { believed: ["0"], signer: "0", needsNew: false })
  })

  it("a successor is made after half of the life, and is believed before it signs", () => {
    const made = 183 * day
    assert.isFalse(at(182 * day, kept(0)).needsNew)
    assert.isTrue(at(made, kept(0)).needsNew)
    const both = [kept(0, "old"), kept(made, "new")]
    assert.deepStrictEqual(at(made + hour, ...both), { believed: ["old", "new"], signer: "old", needsNew: false })
    assert.strictEqual(at(made + AuthorityPlan.settleMillis, ...both).signer, "new")
  })

  it("an authority is believed until all that it signed has ended, and no longer than it lives", () => {
    const both = [kept(0, "old"), kept(183 * day, "new")]
    assert.deepStrictEqual(at(364 * day, ...both).believed, ["old", "new"])
    assert.deepStrictEqual(at(365 * day, ...both).believed, ["new"])
  })

  it("nothing is signed for longer than its authority lives, as long as another can sign", () => {
    const late = [kept(0, "old"), kept(365 * day - hour, "new")]
    assert.strictEqual(at(365 * day - hour, ...late).signer, "new")
  })

  it("every certificate is renewed twice before it ends, and before a new authority signs", () => {
    assert.isAtMost(3 * AuthorityPlan.renewMillis, AuthorityPlan.leafMillis)
    assert.isAtLeast(AuthorityPlan.settleMillis, AuthorityPlan.leafMillis)
  })
})
