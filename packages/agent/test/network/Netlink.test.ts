/**
 * What was captured of `ip` and `nft` doing the same stands here, so that a mistake shows without a kernel.
 */
import { assert, describe, it } from "@effect/vitest"
import { attribute, message, nested, text, u32 } from "@fast-sandbox/agent/network/Netlink"
import * as Nfnetlink from "@fast-sandbox/agent/network/Nfnetlink"
import * as Rtnetlink from "@fast-sandbox/agent/network/Rtnetlink"

/** Hex digits, with spaces between what belongs together. */
const parts = (digits: string): string => digits.replaceAll(" ", "")

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** The lengths that messages say, one after the other; they must add up. */
const lengths = (bytes: Buffer): ReadonlyArray<number> => {
  const found: Array<number> = []
  for (let at = 0; at < bytes.length; at += found.at(-1) ?? bytes.length) {
    found.push(bytes.readUInt32LE(at))
  }
  return found
}

describe("Netlink", () => {
  it("fills attributes up, and says their length without that", () => {
    assert.strictEqual(hex(attribute(3, text("eth0"))), parts("0900030065746830 00000000"))
    assert.strictEqual(hex(nested(1, attribute(2, u32(7)))), parts("0c000180 0800020007000000"))
  })

  it("begins a message with its length, type and flags", () => {
    assert.strictEqual(hex(message(16, 4, u32(1))), parts("14000000 1000 0500 00000000 00000000 01000000"))
  })
})

describe("Rtnetlink", () => {
  it("turns a link on", () => {
    assert.strictEqual(
      hex(Rtnetlink.up(7)),
      parts("20000000 1000 0500 0000000000000000 00000000 07000000 01000000 01000000")
    )
  })

  it("gives addresses of both versions, to be used at once", () => {
    const ipv4 = Rtnetlink.newAddress(100, "198.18.0.5", 32)
    assert.strictEqual(hex(ipv4.subarray(16)), parts("02200200 64000000 08000200c6120005 08000100c6120005"))
    const ipv6 = Rtnetlink.newAddress(100, "fe80::1", 64)
    assert.strictEqual(ipv6[16], 10)
    assert.strictEqual(ipv6[17], 64)
    assert.lengthOf(ipv6, 16 + 8 + 2 * 20)
  })

  it("says which address is behind a link, and what is behind a gateway", () => {
    assert.strictEqual(
      hex(Rtnetlink.routeTo(3, "198.18.0.5").subarray(16)),
      parts("02200000 fe03fd01 00000000 0800040003000000 08000100c6120005")
    )
    assert.strictEqual(
      hex(Rtnetlink.defaultRoute(100, "198.18.0.1").subarray(16)),
      parts("02000000 fe030001 00000000 0800040064000000 08000500c6120001")
    )
  })

  it("makes a pair whose lengths add up", () => {
    const pair = Rtnetlink.newVeth({ name: "eth0", index: 100, mtu: 1500 }, { name: "fsb0a1b2c3d1", mtu: 1500 }, 42)
    assert.deepStrictEqual(lengths(pair), [pair.length])
    assert.isTrue(pair.includes(text("veth")) && pair.includes(text("fsb0a1b2c3d1")))
  })
})

describe("Nfnetlink", () => {
  const table = "fsb_0a1b2c3d"

  it("adds an element as nft does", () => {
    const transaction = Nfnetlink.addElements(table, "published4", [
      { protocol: "udp", port: 8082, address: "198.18.0.5" }
    ])
    const [begin = 0, change = 0, end = 0] = lengths(transaction)
    assert.strictEqual(begin, 20)
    assert.strictEqual(end, 20)
    const elements = transaction.subarray(begin + change - 36, begin + change)
    assert.strictEqual(
      hex(elements),
      parts("24000380 20000180 10000180 0c000100 11000000 1f920000 0c000280 08000100 c6120005")
    )
  })

  it("deletes by the key alone", () => {
    const transaction = Nfnetlink.deleteElements(table, "published4", [{ protocol: "tcp", port: 80 }])
    const [begin = 0, change = 0] = lengths(transaction)
    assert.strictEqual(
      hex(transaction.subarray(begin + change - 24, begin + change)),
      parts("18000380 14000180 10000180 0c000100 06000000 00500000")
    )
  })

  it("puts all elements into one transaction", () => {
    const transaction = Nfnetlink.addElements(table, "published4", [
      { protocol: "tcp", port: 80, address: "198.18.0.5" },
      { protocol: "udp", port: 80, address: "198.18.0.5" }
    ])
    assert.lengthOf(lengths(transaction), 3)
  })
})
