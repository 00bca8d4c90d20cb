/**
 * How sandboxes find names: the files that they see below /etc, as pure functions of what the pool says and of how the
 * node finds names itself.
 */
import type { Dns, Egress } from "@fast-sandbox/core/NetworkPolicy"
import { limits } from "@fast-sandbox/core/NetworkPolicy"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"

/** Where the node says which nameservers it uses; the second one where the first only names a local stub. */
export const nodeFiles = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] as const

/** Where no usable nameserver is known. */
const publicNameservers = ["1.1.1.1", "8.8.8.8"]

const parse = (text: string): ReadonlyArray<NetAddress.IpAddress> =>
  text.split("\n").flatMap((line) => {
    const address = NetAddress.ipFromString(/^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? "")
    return Result.isSuccess(address) ? [address.success] : []
  })

/** Loopback is another place in a sandbox, and a link-local address is of another link. */
const isUsable = (address: NetAddress.IpAddress): boolean =>
  !NetAddress.isLoopback(address) && !NetAddress.isUnspecified(address) &&
  !(NetAddress.isIpv6Address(address) && NetAddress.isLinkLocal(address))

/**
 * The nameservers of sandboxes. The pool's, else the node's own as far as a sandbox can reach them, else public ones; none
 * when egress is closed and the pool names none, because names carry data out, too.
 */
export const nameservers = (
  dns: Dns,
  egress: Egress,
  nodeTexts: ReadonlyArray<string>
): ReadonlyArray<string> => {
  if (dns.nameservers !== undefined) {
    return dns.nameservers
  }
  if (egress.policy === "closed") {
    return []
  }
  const usable = nodeTexts.map((text) => parse(text).filter(isUsable)).find((found) => found.length > 0) ?? []
  return usable.length === 0
    ? publicNameservers
    : usable.slice(0, limits.nameservers).map((address) => NetAddress.formatIp(address))
}

/** A sandbox's /etc/resolv.conf. */
export const resolvConf = (servers: ReadonlyArray<string>, { options = [], searches = [] }: Dns): string =>
  [
    ...servers.map((server) => `nameserver ${server}`),
    ...(searches.length === 0 ? [] : [`search ${searches.join(" ")}`]),
    ...(options.length === 0 ? [] : [`options ${options.join(" ")}`]),
    ""
  ].join("\n")

/** A sandbox's /etc/hosts. */
export const hosts = (hostname: string, addresses: ReadonlyArray<string>): string =>
  [
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    ...addresses.map((address) => `${address}\t${hostname}`),
    ""
  ].join("\n")
