/**
 * The rtnetlink messages that a sandbox's network is made of: links, addresses, routes. Each is acknowledged, and each
 * fails where what it makes is there already.
 * https://docs.kernel.org/networking/netlink_spec/rt-link.html
 */
import { isIPv6 } from "node:net"
import { bytesOf } from "./Addresses.ts"
import { attribute, Flag, message, nested, text, u16, u32 } from "./Netlink.ts"

/** From include/uapi/linux/rtnetlink.h */
const Type = { newLink: 16, newAddress: 20, newRoute: 24 } as const

/** From include/uapi/linux/if_link.h and veth.h */
const Link = { name: 3, mtu: 4, info: 18, namespaceOfProcess: 19, infoKind: 1, infoData: 2, vethPeer: 1 } as const

/** From include/uapi/linux/if_addr.h; duplicate detection would keep an address unusable for a second. */
const Address = { address: 1, local: 2, noDuplicateDetection: 2 } as const

/** From include/uapi/linux/rtnetlink.h; the protocol is "boot": set up by hand. */
const Route = { destination: 1, outLink: 4, gateway: 5, mainTable: 254, protocolBoot: 3, unicast: 1 } as const
const Scope = { universe: 0, link: 253 } as const

const Family = { unspecified: 0, ipv4: 2, ipv6: 10 } as const
const upFlag = 1

/** The index of loopback in every namespace. */
export const loopbackIndex = 1

const makes = Flag.acknowledge | Flag.create | Flag.exclusive

const familyOf = (address: string): number => isIPv6(address) ? Family.ipv6 : Family.ipv4

const linkHeader = (index: number, flags: number): Buffer =>
  Buffer.concat([Buffer.from([Family.unspecified, 0]), u16(0), u32(index), u32(flags), u32(flags)])

/** One end of a pair. */
export interface VethEnd {
  readonly name: string
  readonly mtu: number
}

/**
 * Makes a pair of links: the near end here, with a given index; its peer in the namespace of the process with the id
 * `peerProcess`, with an index of the kernel's choice.
 */
export const newVeth = (
  near: VethEnd & { readonly index: number },
  peer: VethEnd,
  peerProcess: number
): Buffer =>
  message(
    Type.newLink,
    makes,
    linkHeader(near.index, 0),
    attribute(Link.name, text(near.name)),
    attribute(Link.mtu, u32(near.mtu)),
    nested(
      Link.info,
      attribute(Link.infoKind, text("veth")),
      nested(
        Link.infoData,
        nested(
          Link.vethPeer,
          linkHeader(0, 0),
          attribute(Link.name, text(peer.name)),
          attribute(Link.mtu, u32(peer.mtu)),
          attribute(Link.namespaceOfProcess, u32(peerProcess))
        )
      )
    )
  )

/** Turns a link on. */
export const up = (index: number): Buffer => message(Type.newLink, Flag.acknowledge, linkHeader(index, upFlag))

/** Gives a link an address. */
export const newAddress = (index: number, address: string, prefixLength: number): Buffer => {
  const bytes = bytesOf(address)
  return message(
    Type.newAddress,
    makes,
    Buffer.from([familyOf(address), prefixLength, Address.noDuplicateDetection, Scope.universe]),
    u32(index),
    attribute(Address.local, bytes),
    attribute(Address.address, bytes)
  )
}

const route = (index: number, family: number, prefixLength: number, scope: number, ...more: ReadonlyArray<Buffer>) =>
  message(
    Type.newRoute,
    makes,
    Buffer.from([family, prefixLength, 0, 0, Route.mainTable, Route.protocolBoot, scope, Route.unicast]),
    u32(0),
    attribute(Route.outLink, u32(index)),
    ...more
  )

/** Says that an address is right behind a link. */
export const routeTo = (index: number, address: string): Buffer => {
  const bytes = bytesOf(address)
  // IPv6 knows no such scope.
  const scope = isIPv6(address) ? Scope.universe : Scope.link
  return route(index, familyOf(address), bytes.length * 8, scope, attribute(Route.destination, bytes))
}

/** Sends everything else through a gateway behind a link. */
export const defaultRoute = (index: number, gateway: string): Buffer =>
  route(index, familyOf(gateway), 0, Scope.universe, attribute(Route.gateway, bytesOf(gateway)))
