import { assert, describe, it } from "@effect/vitest"
import { addressesOf, bytesOf, gateway4, maxNumber, next, range4, range6 } from "@fast-sandbox/agent/network/Addresses"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"

const within = (range: string, address: string): boolean =>
  IpNetwork.contains(IpNetwork.fromStringUnsafe(range), NetAddress.ipFromStringUnsafe(address))

describe("Addresses", () => {
  it.each([
    ["00000000", 0, "198.18.0.2", "fdf5:b1d4:90c6:5b18::2"],
    ["00000000", 254, "198.18.1.0", "fdf5:b1d4:90c6:5b18::100"],
    ["00000000", 65_534, "198.19.0.0", "fdf5:b1d4:90c6:5b18::1:0"],
    ["00000000", 131_068, "198.19.255.254", "fdf5:b1d4:90c6:5b18::1:fffe"],
    ["00000000", 131_069, "198.18.0.2", "fdf5:b1d4:90c6:5b18::2"],
    ["00000001", 1, "198.18.0.4", "fdf5:b1d4:90c6:5b18::4"]
  ])("gives network %2$s of the agent %s its addresses", (key, n, ipv4, ipv6) => {
    assert.deepStrictEqual(addressesOf(key, n), { ipv4, ipv6 })
  })

  it("stays within the range and leaves the gateway alone, whatever the key", () => {
    for (const key of ["0a1b2c3d", "ffffffff", "7fffffff", "deadbeef"]) {
      for (let n = 1; n < 200_000; n += 997) {
        const { ipv4, ipv6 } = addressesOf(key, n)
        assert.isTrue(within(range4, ipv4) && within(range6, ipv6), `${ipv4} ${ipv6}`)
        assert.notStrictEqual(ipv4, gateway4)
      }
    }
  })

  it("does not use a number again before all were", () => {
    assert.strictEqual(next(0), 1)
    assert.strictEqual(next(maxNumber), 1)
    assert.strictEqual(maxNumber.toString(36), "zzzz")
  })

  it.each([
    ["198.18.1.2", "c6120102"],
    ["fe80::1", "fe800000000000000000000000000001"],
    ["::1", "00000000000000000000000000000001"],
    ["fd00::", "fd000000000000000000000000000000"],
    ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"]
  ])("writes %s as bytes", (address, hex) => {
    assert.strictEqual(bytesOf(address).toString("hex"), hex)
  })
})
