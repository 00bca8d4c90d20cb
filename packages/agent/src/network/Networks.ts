/**
 * Makes and unmakes the networks of sandboxes: a namespace with loopback and one end of a pair, whose other end is where
 * the agent is. The routes to the sandbox's addresses are made last and exclusively: they decide whose the addresses are
 * where several agents share a namespace.
 */
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import { addressesOf, gateway4, gateway6, next, type SandboxAddresses } from "./Addresses.ts"
import * as Kernel from "./Kernel.ts"
import { type NetworkError, NetworkHelper } from "./NetworkHelper.ts"
import * as Rtnetlink from "./Rtnetlink.ts"

/** The sandbox's end of the pair, with an index that no tunnel that the kernel puts into every namespace has. */
const inside = { name: "eth0", index: 100 } as const

/** Another agent may have taken a row of addresses; so many in a row mean that something else is wrong. */
const maxAttempts = 64

/** A sandbox's network. All of it follows from its number. */
export interface Network extends SandboxAddresses {
  readonly n: number
  /** The name of its namespace. */
  readonly name: string
  /** The file that holds its namespace. */
  readonly path: string
  /** The near end of its pair. */
  readonly link: string
}

/** Whose networks they are, and what is the same for all of them. */
export interface Options {
  readonly stateDirectory: string
  readonly mtu: number
  readonly hasIpv6: boolean
  /** Whether ports are published on a loopback address. */
  readonly routesLoopback: boolean
}

/** The n-th network of an agent. */
export const numbered = (stateDirectory: string, n: number): Network => {
  const name = NetworkNamespaces.nameOf(stateDirectory, n)
  return {
    n,
    name,
    path: `${NetworkNamespaces.directory}/${name}`,
    link: NetworkNamespaces.linkOf(stateDirectory, n),
    ...addressesOf(NetworkNamespaces.keyOf(stateDirectory), n)
  }
}

const insideMessages = ({ ipv4, ipv6, link }: Network, { hasIpv6, mtu }: Options): ReadonlyArray<Buffer> => [
  Rtnetlink.newVeth({ ...inside, mtu }, { name: link, mtu }, process.pid),
  Rtnetlink.up(Rtnetlink.loopbackIndex),
  Rtnetlink.newAddress(inside.index, ipv4, 32),
  ...(hasIpv6 ? [Rtnetlink.newAddress(inside.index, ipv6, 128)] : []),
  Rtnetlink.up(inside.index),
  Rtnetlink.routeTo(inside.index, gateway4),
  Rtnetlink.defaultRoute(inside.index, gateway4),
  ...(hasIpv6 ? [Rtnetlink.defaultRoute(inside.index, gateway6)] : [])
]

const nearMessages = ({ ipv4, ipv6 }: Network, { hasIpv6 }: Options, index: number): ReadonlyArray<Buffer> => [
  Rtnetlink.newAddress(index, gateway4, 32),
  ...(hasIpv6 ? [Rtnetlink.newAddress(index, gateway6, 64)] : []),
  Rtnetlink.up(index),
  Rtnetlink.routeTo(index, ipv4),
  ...(hasIpv6 ? [Rtnetlink.routeTo(index, ipv6)] : [])
]

const makeOne = Effect.fnUntraced(function*(network: Network, options: Options) {
  const helper = yield* NetworkHelper
  const { link, path } = network
  yield* helper.make(path, insideMessages(network, options))
  yield* helper.index(link).pipe(
    Effect.flatMap((index) => helper.route(link, nearMessages(network, options, index))),
    Effect.andThen(options.routesLoopback ? Kernel.routeLoopback(link) : Effect.void),
    Effect.tapError(() => Effect.ignore(helper.drop(path)))
  )
})

const isTaken = (error: NetworkError | PlatformError.PlatformError): boolean =>
  error._tag === "NetworkError" && error.code === "EEXIST"

/** Makes the first network from the n-th on whose name and addresses are free. */
export const make = (
  n: number,
  options: Options,
  attempts = maxAttempts
): Effect.Effect<Network, NetworkError | PlatformError.PlatformError, NetworkHelper | FileSystem.FileSystem> => {
  const network = numbered(options.stateDirectory, n)
  return makeOne(network, options).pipe(
    Effect.as(network),
    Effect.uninterruptible,
    Effect.catchIf(
      (error) => attempts > 1 && isTaken(error),
      () => make(next(n), options, attempts - 1)
    )
  )
}
