/**
 * The rules around all sandboxes of one agent, as the text of one nftables table. It names no sandbox: rules match the
 * links of all of them by the start of their names, so that a sandbox that comes or goes changes nothing but the map of
 * published ports.
 *
 * Everything is out of a sandbox's reach but what `leaving` lets through. It is refused rather than dropped, so that a
 * program learns of it in a millisecond.
 */
import type { Egress, EgressPort } from "@fast-sandbox/core/NetworkPolicy"
import * as IpInterface from "effect/net/IpInterface"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import { isIPv6 } from "node:net"
import { range4, range6 } from "./Addresses.ts"
import type { Published } from "./Nfnetlink.ts"

/** The maps of published ports in the table. */
export const publishedMap = { ipv4: "published4", ipv6: "published6" } as const

/** Connections that one sandbox may have at a time: the kernel's table of connections is shared by the whole node. */
export const maxConnections = 2048

/** What the rules depend on. */
export interface Rules {
  readonly table: string
  /** How the names of the sandboxes' links begin. */
  readonly linkPrefix: string
  /** Where ports are published. */
  readonly agentAddress: string
  readonly egress: Egress
  /** Addresses that may be asked for names, wherever they are. */
  readonly nameservers: ReadonlyArray<string>
  /** Addresses of the node that are not local where the agent is. */
  readonly nodeAddresses: ReadonlyArray<string>
  readonly published: ReadonlyArray<Published>
}

/** Private, shared, local and reserved ranges (RFC 6890): not the internet. */
const notPublic = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "224.0.0.0/3",
  "::/96",
  "::ffff:0:0/96",
  "64:ff9b::/96",
  "64:ff9b:1::/48",
  "100::/64",
  "2002::/16",
  "fc00::/7",
  "fe80::/10",
  "ff00::/8"
]

/** Where clouds tell a machine its credentials, and addresses that mean this machine: no policy opens them. */
const neverOpen = [
  "0.0.0.0/8",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "100.100.100.200/32",
  "168.63.129.16/32",
  "::/96",
  "::ffff:0:0/96",
  "fd00:ec2::254/128",
  "fe80::/10"
]

const isOfVersion6 = (range: string): boolean => range.includes(":")

const set = (name: string, type: string, flags: string, elements: ReadonlyArray<string>): string =>
  [
    `  set ${name} {`,
    `    type ${type}`,
    ...(flags === "" ? [] : [`    flags ${flags}`, `    auto-merge`]),
    ...(elements.length === 0 ? [] : [`    elements = { ${elements.join(", ")} }`]),
    "  }"
  ].join("\n")

const ranges = (name: string, all: ReadonlyArray<string>): string =>
  [
    set(`${name}4`, "ipv4_addr", "interval", all.filter((range) => !isOfVersion6(range))),
    set(`${name}6`, "ipv6_addr", "interval", all.filter(isOfVersion6))
  ].join("\n")

/** In the kernel's own form, which has no bits behind the prefix. */
const canonical = (cidr: string): string =>
  IpNetwork.format(IpNetwork.fromInterface(IpInterface.fromStringUnsafe(cidr)))

const single = (address: string): string => NetAddress.formatIp(NetAddress.ipFromStringUnsafe(address))

const protocolsOf = ({ protocol }: EgressPort): ReadonlyArray<string> =>
  protocol === undefined ? ["tcp", "udp"] : [protocol.toLowerCase()]

const portsOf = ({ endPort, port }: EgressPort): string =>
  port === undefined ? "0-65535" : endPort === undefined || endPort <= port ? String(port) : `${port}-${endPort}`

const allowed = ({ allow = [] }: Egress): ReadonlyArray<string> =>
  allow.flatMap(({ cidr, ports = [{}] }) =>
    ports.flatMap((port) => protocolsOf(port).map((protocol) => `${canonical(cidr)} . ${protocol} . ${portsOf(port)}`))
  )

const concatenated = (name: string, elements: ReadonlyArray<string>): string => {
  const one = (version: 4 | 6) =>
    [
      `  set ${name}${version} {`,
      `    type ipv${version}_addr . inet_proto . inet_service`,
      "    flags interval",
      ...elementsOf(elements.filter((element) => isOfVersion6(element) === (version === 6))),
      "  }"
    ].join("\n")
  return `${one(4)}\n${one(6)}`
}

const elementsOf = (elements: ReadonlyArray<string>): ReadonlyArray<string> =>
  elements.length === 0 ? [] : [`    elements = { ${[...new Set(elements)].join(", ")} }`]

const map = (name: string, version: 4 | 6, published: ReadonlyArray<Published>): string =>
  [
    `  map ${name} {`,
    `    type inet_proto . inet_service : ipv${version}_addr`,
    ...elementsOf(
      published.filter(({ address }) => isIPv6(address) === (version === 6))
        .map(({ address, port, protocol }) => `${protocol} . ${port} : ${address}`)
    ),
    "  }"
  ].join("\n")

/** The transaction that replaces the whole table, for `nft -f -`. */
export const make = (rules: Rules): string => {
  const { agentAddress, egress, linkPrefix, nameservers, nodeAddresses, published, table } = rules
  const own = `"${linkPrefix}*"`
  const here = isIPv6(agentAddress)
    ? `ip6 daddr ${agentAddress} dnat ip6 to meta l4proto . th dport map @${publishedMap.ipv6}`
    : `ip daddr ${agentAddress} dnat ip to meta l4proto . th dport map @${publishedMap.ipv4}`
  const denied = [...(egress.deny ?? []).map(canonical), ...nodeAddresses.map(single)]
  return `table inet ${table}
delete table inet ${table}
table inet ${table} {
${ranges("never", neverOpen)}
${ranges("notPublic", notPublic)}
${ranges("denied", denied)}
${ranges("nameservers", nameservers.map(single))}
${concatenated("allowed", allowed(egress))}
${map(publishedMap.ipv4, 4, published)}
${map(publishedMap.ipv6, 6, published)}
  set connections {
    type ifname
    size 65535
    flags dynamic
  }

  chain arriving {
    type filter hook prerouting priority raw; policy accept
    iifname != ${own} accept
    ip daddr 127.0.0.0/8 drop
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    fib saddr . iif oif missing drop
  }

  chain publishing {
    type nat hook prerouting priority dstnat; policy accept
    iifname ${own} accept
    ${here}
  }

  chain publishing_here {
    type nat hook output priority -100; policy accept
    ${here}
  }

  chain to_agent {
    type filter hook input priority filter; policy accept
    iifname != ${own} accept
    ct state established,related accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    jump asking
    goto refused
  }

  chain through {
    type filter hook forward priority filter; policy accept
    iifname != ${own} oifname != ${own} accept
    ct state established,related accept
    ct state invalid drop
    iifname ${own} goto leaving
    ct status dnat accept
    drop
  }

  chain leaving {
    ip daddr ${range4} goto refused
    ip6 daddr ${range6} goto refused
    ct state new add @connections { iifname ct count over ${maxConnections} } goto refused
    jump asking
    ip daddr @never4 goto refused
    ip6 daddr @never6 goto refused
    ip daddr @denied4 goto refused
    ip6 daddr @denied6 goto refused
    ip daddr . meta l4proto . th dport @allowed4 accept
    ip6 daddr . meta l4proto . th dport @allowed6 accept
    ip daddr @notPublic4 goto refused
    ip6 daddr @notPublic6 goto refused
    ${egress.policy === "closed" ? "goto refused" : "accept"}
  }

  chain asking {
    ip daddr @nameservers4 meta l4proto { tcp, udp } th dport 53 accept
    ip6 daddr @nameservers6 meta l4proto { tcp, udp } th dport 53 accept
  }

  chain refused {
    meta l4proto tcp counter reject with tcp reset
    counter reject with icmpx type admin-prohibited
  }

  chain masquerading {
    type nat hook postrouting priority srcnat; policy accept
    oifname ${own} ip saddr 127.0.0.0/8 masquerade
    oifname ${own} accept
    ip saddr ${range4} masquerade
    ip6 saddr ${range6} masquerade
  }
}
`
}
