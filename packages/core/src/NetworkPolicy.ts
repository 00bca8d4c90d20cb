/**
 * What sandboxes may reach, and how they find names: the part of a pool's spec that its agents turn into rules.
 *
 * Whatever the policy says, nothing opens siblings, the agent, the node's own services or a cloud's metadata service.
 */
import * as Schema from "effect/Schema"

/** Bounds of a policy; each entry becomes rules of every agent. */
export const limits = { entries: 128, ports: 32, nameservers: 3, searches: 6, options: 8 } as const

// API servers check patterns only, so these say all of it: what they let pass, agents can do.

const octet = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
const ipv4 = `${octet}(\\.${octet}){3}`

const group = "[0-9a-fA-F]{1,4}"
/** All groups, or fewer of them around, before or after a double colon. */
const ipv6 = [
  `(${group}:){7}${group}`,
  `(${group}:){1,7}:`,
  ...[1, 2, 3, 4, 5, 6].map((before) => `(${group}:){${before}}(:${group}){1,${7 - before}}`),
  `:(:${group}){1,7}`,
  "::"
].join("|")

const addressPattern = new RegExp(`^(${ipv4}|${ipv6})$`)
const cidrPattern = new RegExp(`^(${ipv4}/(3[0-2]|[12]?[0-9])|(${ipv6})/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$`)

/** A range of addresses, such as `10.1.0.0/16` or `fd00:1::/32`. */
export const Cidr = Schema.String.check(
  Schema.isPattern(cidrPattern, { message: "must be a range of addresses such as 10.1.0.0/16" })
)

const Port = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }))

/** Ports of one protocol, in the terms of Kubernetes' NetworkPolicy. */
export const EgressPort = Schema.Struct({
  protocol: Schema.optionalKey(
    Schema.Literals(["TCP", "UDP"]).annotate({ description: "Both when absent." })
  ),
  port: Schema.optionalKey(Port.annotate({ description: "All ports when absent." })),
  endPort: Schema.optionalKey(Port.annotate({ description: "The last of a range that begins with port." }))
})

/** Ports of one protocol. */
export type EgressPort = typeof EgressPort.Type

/** Somewhere that sandboxes may connect to. */
export const EgressRule = Schema.Struct({
  cidr: Cidr,
  ports: Schema.optionalKey(
    Schema.Array(EgressPort).check(Schema.isMaxLength(limits.ports)).annotate({
      description: "All TCP and UDP ports when absent."
    })
  )
})

/** Somewhere that sandboxes may connect to. */
export type EgressRule = typeof EgressRule.Type

/** Where sandboxes may connect to. */
export const Egress = Schema.Struct({
  policy: Schema.optionalKey(
    Schema.Literals(["internet", "closed"]).annotate({
      description: "internet: all public addresses; closed: only what is allowed by name.",
      default: "internet"
    })
  ),
  allow: Schema.optionalKey(
    Schema.Array(EgressRule).check(Schema.isMaxLength(limits.entries)).annotate({
      description: "What may be reached besides, such as a service in a private range."
    })
  ),
  deny: Schema.optionalKey(
    Schema.Array(Cidr).check(Schema.isMaxLength(limits.entries)).annotate({
      description: "What may not be reached although it is public or allowed."
    })
  )
})

/** Where sandboxes may connect to. */
export type Egress = typeof Egress.Type

const Nameserver = Schema.String.check(Schema.isPattern(addressPattern, { message: "must be an IP address" }))

/** A word of resolv.conf: one without spaces, so that it stays one. */
const Word = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9._:-]{1,253}$/))

/** How sandboxes find names, in the terms of a Pod's dnsConfig. */
export const Dns = Schema.Struct({
  nameservers: Schema.optionalKey(
    Schema.Array(Nameserver).check(Schema.isMaxLength(limits.nameservers)).annotate({
      description: "Instead of the node's. They may be asked for names wherever they are."
    })
  ),
  searches: Schema.optionalKey(
    Schema.Array(Word).check(Schema.isMaxLength(limits.searches)).annotate({ description: "Search domains." })
  ),
  options: Schema.optionalKey(
    Schema.Array(Word).check(Schema.isMaxLength(limits.options)).annotate({
      description: "Options of the resolver, such as ndots:1."
    })
  )
})

/** How sandboxes find names. */
export type Dns = typeof Dns.Type
