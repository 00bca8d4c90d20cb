import { assert, describe, it } from "@effect/vitest"
import { Cidr, Dns, Egress } from "@fast-sandbox/core/NetworkPolicy"
import { Schema } from "effect"

const isCidr = Schema.is(Cidr)
const isDns = Schema.is(Dns)
const isEgress = Schema.is(Egress)

describe("NetworkPolicy", () => {
  it.each([
    "0.0.0.0/0",
    "10.1.2.3/16",
    "255.255.255.255/32",
    "::/0",
    "fd00:1::/32",
    "1:2:3:4:5:6:7:8/128",
    "::1/128",
    "fe80::1:2/64",
    "1::/127"
  ])("takes %s for a range", (text) => assert.isTrue(isCidr(text)))

  it.each([
    "",
    "10.0.0.0",
    "10.0.0/8",
    "256.0.0.0/8",
    "10.0.0.0/33",
    "01.0.0.0/8",
    "1::2::3/64",
    "::/129",
    "1:2/64",
    "10.0.0.0/8 }",
    "fe80::1%eth0/64",
    "::ffff:1.2.3.4/96",
    "10.0.0.0/8\n"
  ])("does not take %j for one", (text) => assert.isFalse(isCidr(text)))

  it("takes words only into resolv.conf", () => {
    assert.isTrue(isDns({ nameservers: ["1.1.1.1", "::1"], searches: ["a.b"], options: ["ndots:1"] }))
    assert.isFalse(isDns({ options: ["a\nnameserver 6.6.6.6"] }))
    assert.isFalse(isDns({ searches: ["a b"] }))
    assert.isFalse(isDns({ nameservers: ["one.one"] }))
  })

  it("takes ports as a NetworkPolicy has them", () => {
    assert.isTrue(isEgress({ allow: [{ cidr: "10.0.0.0/8", ports: [{ protocol: "TCP", port: 1, endPort: 9 }] }] }))
    assert.isFalse(isEgress({ allow: [{ cidr: "10.0.0.0/8", ports: [{ port: 0 }] }] }))
    assert.isFalse(isEgress({ policy: "open" }))
  })
})
