import { assert, describe, it } from "@effect/vitest"
import * as Reservations from "../../src/registry/internal/Reservations.ts"

const reserved = (instanceId: string, confirmedAt?: number): Reservations.Reserved => ({
  instanceId,
  key: `default/${instanceId}`,
  ports: [],
  confirmedAt
})

const listOf = (...ids: ReadonlyArray<string>) =>
  ids.reduce<Reservations.Reservations>((list, id) => Reservations.add(list, reserved(id)), undefined)

const idsOf = (list: Reservations.Reservations) => Reservations.toArray(list).map(({ instanceId }) => instanceId)

describe("Reservations", () => {
  it("know each other by their instance, the latest first", () => {
    const list = listOf("a", "b", "c")
    assert.deepStrictEqual(idsOf(list), ["c", "b", "a"])
    assert.strictEqual(Reservations.sizeOf(list), 3)
    assert.strictEqual(Reservations.find(list, "b")?.key, "default/b")
    assert.isUndefined(Reservations.find(list, "d"))
    assert.strictEqual(Reservations.sizeOf(undefined), 0)
  })

  it("change one without touching the list that others hold, and share what is earlier", () => {
    const list = listOf("a", "b", "c")
    const confirmed = Reservations.replace(list, "b", reserved("b", 7))
    assert.strictEqual(Reservations.find(confirmed, "b")?.confirmedAt, 7)
    assert.isUndefined(Reservations.find(list, "b")?.confirmedAt)
    assert.strictEqual(confirmed?.earlier?.earlier, list?.earlier?.earlier)
    assert.deepStrictEqual(idsOf(Reservations.replace(list, "a", undefined)), ["c", "b"])
    assert.strictEqual(Reservations.sizeOf(Reservations.replace(list, "a", undefined)), 2)
    assert.strictEqual(Reservations.replace(list, "d", undefined), list)
  })

  it("are filtered in their order, and stay the same list when all are kept", () => {
    const list = listOf("a", "b", "c")
    assert.deepStrictEqual(idsOf(Reservations.filter(list, ({ instanceId }) => instanceId !== "b")), ["c", "a"])
    assert.strictEqual(Reservations.filter(list, () => true), list)
    assert.isUndefined(Reservations.filter(list, () => false))
  })
})
