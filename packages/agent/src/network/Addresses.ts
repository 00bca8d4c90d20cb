/**
 * What the n-th network of an agent is called and which addresses it has, as pure functions of the agent's key and n, so
 * that a restarted agent knows all of a network by its name.
 *
 * Every sandbox has one address of 198.18.0.0/15, which is set aside for benchmarks and so is nobody's LAN, and one of an
 * IPv6 prefix of our own. They never leave the machine. Agents that share a machine share the range: each begins at a
 * place of its own in it, and where two meet, the kernel refuses the second route to an address. Numbers are not used
 * again for as long as possible, because connections and processes may outlive a sandbox's name.
 */
import { isIPv6 } from "node:net"

/** The range of all sandboxes of a machine. */
export const range4 = "198.18.0.0/15"

/** A unique local prefix, chosen at random. */
export const range6 = "fdf5:b1d4:90c6:5b18::/64"

/** Where the near end of each pair answers: the gateway of every sandbox. */
export const gateway4 = "198.18.0.1"
export const gateway6 = "fe80::1"

const prefix6 = "fdf5:b1d4:90c6:5b18::"
const firstHost = 2
/** Without the first two and the last address of the /15. */
const hosts = 2 ** 17 - 3

/** Four digits of base 36, which is what an interface's name has room for. */
export const maxNumber = 36 ** 4 - 1

/** The addresses of a sandbox. */
export interface SandboxAddresses {
  readonly ipv4: string
  readonly ipv6: string
}

/** The addresses of the n-th network of the agent with that key (eight hex digits). */
export const addressesOf = (key: string, n: number): SandboxAddresses => {
  const host = firstHost + (Number.parseInt(key, 16) + n) % hosts
  return {
    ipv4: `198.${18 + (host >> 16)}.${(host >> 8) & 0xff}.${host & 0xff}`,
    ipv6: `${prefix6}${host > 0xffff ? "1:" : ""}${(host & 0xffff).toString(16)}`
  }
}

/** The number after n; none is used again before all were. 0 is the agent's own network. */
export const next = (n: number): number => n >= maxNumber ? 1 : n + 1

const groups = (text: string): ReadonlyArray<number> =>
  text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16))

/** The bytes of an address that is written in one of the two usual forms (no IPv4 inside IPv6, no zone). */
export const bytesOf = (address: string): Buffer => {
  if (!isIPv6(address)) {
    return Buffer.from(address.split(".").map(Number))
  }
  const [left = "", right = ""] = address.split("::")
  const head = groups(left)
  const tail = groups(right)
  const bytes = Buffer.alloc(16)
  head.forEach((group, at) => bytes.writeUInt16BE(group, at * 2))
  tail.forEach((group, at) => bytes.writeUInt16BE(group, 16 - (tail.length - at) * 2))
  return bytes
}
