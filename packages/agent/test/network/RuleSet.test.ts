import { assert, describe, it } from "@effect/vitest"
import * as RuleSet from "@fast-sandbox/agent/network/RuleSet"

const rules: RuleSet.Rules = {
  table: "fsb_0a1b2c3d",
  linkPrefix: "fsb0a1b2c3d",
  agentAddress: "127.88.0.1",
  egress: {},
  nameservers: ["10.0.0.53", "2001:4860:4860::8888"],
  nodeAddresses: ["203.0.113.7"],
  published: []
}

/** The elements of a set or map. */
const elementsOf = (text: string, name: string): ReadonlyArray<string> =>
  new RegExp(`(?:set|map) ${name} \\{[^}]*?elements = \\{ (.*?) \\}`, "s").exec(text)?.[1]?.split(", ") ?? []

const chain = (text: string, name: string): string =>
  new RegExp(`chain ${name} \\{(.*?)\\n  \\}`, "s").exec(text)?.[1] ?? ""

describe("RuleSet", () => {
  it("replaces the table as a whole", () => {
    assert.match(RuleSet.make(rules), /^table inet fsb_0a1b2c3d\ndelete table inet fsb_0a1b2c3d\ntable inet /)
  })

  it("matches the agent's own links only", () => {
    const text = RuleSet.make(rules)
    for (const [, name] of text.matchAll(/[io]ifname (?:!= )?"(.*?)"/g)) {
      assert.strictEqual(name, "fsb0a1b2c3d*")
    }
  })

  it("knows addresses by their version", () => {
    const text = RuleSet.make(rules)
    assert.deepStrictEqual(elementsOf(text, "nameservers4"), ["10.0.0.53"])
    assert.deepStrictEqual(elementsOf(text, "nameservers6"), ["2001:4860:4860::8888"])
    assert.deepStrictEqual(elementsOf(text, "denied4"), ["203.0.113.7"])
    assert.deepStrictEqual(elementsOf(text, "denied6"), [])
  })

  it("refuses what nothing opens before it looks at what is allowed", () => {
    const text = RuleSet.make({ ...rules, egress: { allow: [{ cidr: "0.0.0.0/0" }] } })
    const leaving = chain(text, "leaving")
    const at = (rule: string) => {
      assert.include(leaving, rule)
      return leaving.indexOf(rule)
    }
    assert.isBelow(at("198.18.0.0/15 goto refused"), at("@allowed4"))
    assert.isBelow(at("@never4"), at("@allowed4"))
    assert.isBelow(at("@denied4"), at("@allowed4"))
    assert.isBelow(at("@allowed4"), at("@notPublic4"))
    assert.includeMembers([...elementsOf(text, "never4")], ["169.254.0.0/16", "127.0.0.0/8"])
  })

  it("ends with the policy", () => {
    assert.match(chain(RuleSet.make(rules), "leaving"), /accept$/)
    assert.match(chain(RuleSet.make({ ...rules, egress: { policy: "closed" } }), "leaving"), /goto refused$/)
  })

  it.each(
    [
      [{}, ["10.1.0.0/16 . tcp . 0-65535", "10.1.0.0/16 . udp . 0-65535"]],
      [{ ports: [{ protocol: "TCP", port: 443 }] }, ["10.1.0.0/16 . tcp . 443"]],
      [{ ports: [{ port: 8000, endPort: 8010 }] }, ["10.1.0.0/16 . tcp . 8000-8010", "10.1.0.0/16 . udp . 8000-8010"]],
      [{ ports: [{ protocol: "UDP" }] }, ["10.1.0.0/16 . udp . 0-65535"]]
    ] as const
  )("allows %j", (ports, expected) => {
    const text = RuleSet.make({ ...rules, egress: { allow: [{ cidr: "10.1.2.3/16", ...ports }] } })
    assert.deepStrictEqual(elementsOf(text, "allowed4"), expected)
  })

  it("publishes on the agent's address, of either version", () => {
    const published = { protocol: "tcp", port: 80, address: "198.18.0.5" } as const
    assert.deepStrictEqual(elementsOf(RuleSet.make({ ...rules, published: [published] }), "published4"), [
      "tcp . 80 : 198.18.0.5"
    ])
    assert.include(RuleSet.make({ ...rules, agentAddress: "2001:db8::1" }), "ip6 daddr 2001:db8::1 dnat ip6 to")
  })
})
