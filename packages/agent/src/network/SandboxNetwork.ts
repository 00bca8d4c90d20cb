/**
 * The network of each sandbox. What a sandbox holds is known by its container's id; the container's spec names the
 * namespace, from whose number all else follows, so that a restarted agent finds it again.
 *
 * Where private networks can't be had (no nftables, not enough rights), sandboxes have loopback only: never more than
 * they were meant to have.
 */
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import { Containers } from "@fast-sandbox/containerd/Containers"
import type { System } from "@fast-sandbox/containerd/MachineSetup"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import type * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import * as OwnedContainer from "@fast-sandbox/containerd/OwnedContainer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as PlatformError from "effect/PlatformError"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { closeSync, constants, ftruncateSync, mkdirSync, openSync, writeFileSync } from "node:fs"
import { isIPv6 } from "node:net"
import { basename } from "node:path"
import { AgentConfig, type Settings } from "../AgentConfig.ts"
import * as InstanceRecord from "../InstanceRecord.ts"
import * as Kernel from "./Kernel.ts"
import { type NetworkError, NetworkHelper } from "./NetworkHelper.ts"
import * as NetworkPool from "./NetworkPool.ts"
import * as Networks from "./Networks.ts"
import * as Nfnetlink from "./Nfnetlink.ts"
import * as Nftables from "./Nftables.ts"
import * as Resolution from "./Resolution.ts"
import * as RuleSet from "./RuleSet.ts"

/** How often it is looked whether the rules are still there: `nft flush ruleset` throws away everybody's. */
const guardPeriod = "1 second"

/** A network can't be had or changed now. */
export class NetworkUnavailable extends Schema.TaggedError<NetworkUnavailable>()("NetworkUnavailable", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** What a container's spec says about its network. */
export interface Attachment {
  /** The namespace to join; a new one with loopback only when absent. */
  readonly netnsPath?: string | undefined
  readonly mounts: ReadonlyArray<OciSpec.SpecMount>
}

/**
 * - `take` gives a container its network, under its host name. What it held before is the caller's to release.
 * - `rename` tells a container that was made ahead what it is called now.
 * - `publish` opens the agent's ports to it, TCP and UDP; they must be free.
 * - `release` takes away all that the container holds, when nothing runs in it any more; safe to repeat.
 * - `endpoints` says where ports that are published are reached.
 * - `notes` tell people what sandboxes have, and why.
 */
export class SandboxNetwork extends Context.Service<SandboxNetwork, {
  readonly take: (containerId: string, hostname: string) => Effect.Effect<Attachment, NetworkUnavailable>
  readonly rename: (containerId: string, hostname: string) => Effect.Effect<void, NetworkUnavailable>
  readonly publish: (
    containerId: string,
    ports: ReadonlyArray<number>
  ) => Effect.Effect<void, NetworkUnavailable>
  readonly release: (containerId: string) => Effect.Effect<void, NetworkUnavailable>
  readonly endpoints: (ports: ReadonlyArray<number>) => ReadonlyArray<string>
  readonly notes: ReadonlyArray<string>
}>()("@fast-sandbox/agent/network/SandboxNetwork") {
  /** As the agent's settings say. */
  static readonly layer: Layer.Layer<
    SandboxNetwork,
    ContainerdError,
    AgentConfig | Containers | System
  > = Layer.effect(SandboxNetwork, Effect.suspend(() => make))
}

/** Loopback only. */
const none = (note: string): SandboxNetwork["Service"] => ({
  take: () => Effect.succeed({ mounts: [] }),
  rename: () => Effect.void,
  publish: () => Effect.void,
  release: () => Effect.void,
  endpoints: () => [],
  notes: [note]
})

const endpointsAt = (address: string) => (ports: ReadonlyArray<number>): ReadonlyArray<string> =>
  ports.map((port) => isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`)

const unavailable = ({ message }: { readonly message: string }): NetworkUnavailable =>
  new NetworkUnavailable({ problem: message })

/** Files of the agent's in a sandbox: read-only, because what is written to them would be on the node's disk. */
const bind = (source: string, destination: string): OciSpec.SpecMount => ({
  destination,
  type: "bind",
  source,
  options: ["bind", "ro", "nosuid", "nodev", "noexec"]
})

/**
 * The file itself is mounted, so it has to stay the same one. It is never empty in between: what was is written to disk by
 * ext4 when it is closed (`auto_da_alloc`, see ext4(5)), which takes longer than all else.
 */
const rewrite = (path: string, text: string): void => {
  const file = openSync(path, constants.O_WRONLY | constants.O_CREAT)
  try {
    writeFileSync(file, text)
    ftruncateSync(file, Buffer.byteLength(text))
  } finally {
    closeSync(file)
  }
}

const unwritten = (cause: unknown) =>
  new NetworkUnavailable({ problem: `its files could not be written: ${String(cause)}` })

/** The files below /etc that tell a sandbox its names. Those of containers that are not in `present` are removed. */
const makeFiles = Effect.fnUntraced(function*(
  settings: Settings,
  resolvConf: string,
  present: ReadonlySet<string>
) {
  const files = yield* FileSystem.FileSystem
  const directory = `${settings.stateDirectory}/networks`
  const resolvConfPath = `${settings.stateDirectory}/resolv.conf`
  const pathOf = (id: string): string => `${directory}/${id}`
  yield* files.makeDirectory(directory, { recursive: true })
  yield* Effect.forEach(
    (yield* files.readDirectory(directory)).filter((id) => !present.has(id)),
    (id) => files.remove(pathOf(id), { recursive: true, force: true }),
    { discard: true }
  )
  yield* files.writeFileString(resolvConfPath, resolvConf)
  return {
    make: (id: string) => Effect.try({ try: () => mkdirSync(pathOf(id), { recursive: true }), catch: unwritten }),
    // At once, without threads in between: a claim of a parked slot waits for it.
    write: (id: string, hostname: string, addresses: ReadonlyArray<string>) =>
      Effect.try({
        try: () => {
          rewrite(`${pathOf(id)}/hosts`, Resolution.hosts(hostname, addresses))
          rewrite(`${pathOf(id)}/hostname`, `${hostname}\n`)
        },
        catch: unwritten
      }),
    mounts: (id: string): ReadonlyArray<OciSpec.SpecMount> => [
      bind(resolvConfPath, "/etc/resolv.conf"),
      bind(`${pathOf(id)}/hosts`, "/etc/hosts"),
      bind(`${pathOf(id)}/hostname`, "/etc/hostname")
    ],
    remove: (id: string) => files.remove(pathOf(id), { recursive: true, force: true })
  }
})

const nodeTexts = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  return yield* Effect.forEach(
    Resolution.nodeFiles,
    (path) => Effect.orElseSucceed(files.readFileString(path), () => "")
  )
})

/**
 * Takes away all networks that an earlier life of this agent made, also those of sandboxes that still run: without
 * somebody who keeps their rules they would have more than they were meant to have.
 */
const dropAll = ({ stateDirectory }: Settings) =>
  NetworkNamespaces.removeAll(stateDirectory).pipe(Effect.ignore({ log: "Warn" }))

/** The agent's own namespace, for all. */
const shared = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<
  SandboxNetwork["Service"],
  ContainerdError | NetworkError | PlatformError.PlatformError,
  Containers | NetworkHelper | System
> {
  const helper = yield* NetworkHelper
  const { path } = Networks.numbered(settings.stateDirectory, 0)
  // The shared one of an earlier life may be another's by now.
  yield* dropAll(settings)
  yield* helper.share(path)
  const [resolvConf = ""] = yield* nodeTexts
  const containers = yield* (yield* Containers).list(InstanceRecord.filterOf(settings))
  const files = yield* makeFiles(settings, resolvConf, new Set(containers.map(({ id }) => id)))
  const write = (id: string, hostname: string) => files.write(id, hostname, [settings.podIp])
  return {
    take: (id, hostname) =>
      Effect.as(Effect.andThen(files.make(id), write(id, hostname)), { netnsPath: path, mounts: files.mounts(id) }),
    rename: write,
    publish: () => Effect.void,
    release: (id) => Effect.mapError(files.remove(id), unavailable),
    endpoints: endpointsAt(settings.podIp),
    notes: ["network pod: sandboxes share the agent's network and can reach what it can reach"]
  }
})

/** What a container holds. */
interface Held {
  readonly network: Networks.Network
  readonly ports: ReadonlyArray<number>
}

const publishedBy = (
  { network: { ipv4, ipv6 }, ports }: Held,
  agentAddress: string
): ReadonlyArray<Nfnetlink.Published> =>
  ports.flatMap((port) =>
    (["tcp", "udp"] as const).map((protocol) => ({
      protocol,
      port,
      address: isIPv6(agentAddress) ? ipv6 : ipv4
    }))
  )

/** What the containers of an earlier life of this agent hold. Their ports are published by who knows the instances. */
const found = Effect.fnUntraced(function*(settings: Settings) {
  const containers = yield* Containers
  const present = new Set((yield* NetworkNamespaces.list).map(({ name }) => name))
  const all = yield* containers.list(InstanceRecord.filterOf(settings))
  const held = new Map<string, Held>()
  for (const container of all) {
    const name = basename(OwnedContainer.networkNamespaceOf(container) ?? "")
    const n = present.has(name) ? NetworkNamespaces.numberOf(settings.stateDirectory, name) : undefined
    if (n !== undefined && n > 0) {
      held.set(container.id, { network: Networks.numbered(settings.stateDirectory, n), ports: [] })
    }
  }
  return held
})

/** Names of this agent's that no container holds. */
const dropUnheld = Effect.fnUntraced(function*(settings: Settings, held: ReadonlyMap<string, Held>) {
  const helper = yield* NetworkHelper
  const names = new Set([...held.values()].map(({ network }) => network.name))
  for (const { name } of yield* NetworkNamespaces.list) {
    if (NetworkNamespaces.numberOf(settings.stateDirectory, name) !== undefined && !names.has(name)) {
      yield* helper.drop(`${NetworkNamespaces.directory}/${name}`)
    }
  }
})

const privately = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<
  SandboxNetwork["Service"],
  ContainerdError | Nftables.NftablesError | NetworkError | PlatformError.PlatformError,
  Containers | NetworkHelper | System | Scope.Scope
> {
  const helper = yield* NetworkHelper
  const system = yield* Effect.context<System>()
  const { dns, egress, nodeIp, podIp, slots, stateDirectory } = settings
  const table = NetworkNamespaces.tableOf(stateDirectory)
  const map = isIPv6(podIp) ? RuleSet.publishedMap.ipv6 : RuleSet.publishedMap.ipv4
  const nameservers = Resolution.nameservers(dns, egress, yield* nodeTexts)
  const held = yield* found(settings)

  /** Replaces all rules by those that ought to be there. */
  const load = Effect.suspend(() =>
    Nftables.load(RuleSet.make({
      table,
      linkPrefix: NetworkNamespaces.linkPrefixOf(stateDirectory),
      agentAddress: podIp,
      egress,
      nameservers,
      nodeAddresses: nodeIp === undefined ? [] : [nodeIp],
      published: [...held.values()].flatMap((one) => publishedBy(one, podIp))
    }))
  ).pipe(Effect.provideContext(system))

  // The rules come before anything that they have to hold back.
  yield* load
  const changes = yield* Kernel.forward
  yield* dropUnheld(settings, held)
  yield* Effect.addFinalizer(() =>
    // Sandboxes that go on running stay behind their rules.
    held.size > 0
      ? Effect.void
      : NetworkNamespaces.removeTable(table).pipe(Effect.provideContext(system), Effect.ignore({ log: "Warn" }))
  )
  const hasIpv6 = yield* Kernel.hasIpv6
  const files = yield* makeFiles(settings, Resolution.resolvConf(nameservers, dns), new Set(held.keys()))
  const pool = yield* NetworkPool.make({
    stateDirectory,
    mtu: yield* Kernel.uplinkMtu,
    hasIpv6,
    routesLoopback: podIp.startsWith("127.")
  }, Math.min(slots, NetworkPool.maxAhead))

  const isTableGone = (error: NetworkError) => error.code === "ENOENT"
  const reload = Effect.andThen(
    Effect.logWarning("somebody removed the rules of the sandboxes' networks; they are made anew", { table }),
    load
  )
  yield* helper.netfilter(table, Nfnetlink.getTable(table)).pipe(
    Effect.catchIf(isTableGone, () => reload),
    Effect.tapError((error) =>
      Effect.logError("the rules of the sandboxes' networks are not known to be there", error)
    ),
    Effect.ignore,
    Effect.repeat(Schedule.spaced(guardPeriod)),
    Effect.forkScoped
  )

  const write = (id: string, { ipv4, ipv6 }: Networks.Network, hostname: string) =>
    files.write(id, hostname, hasIpv6 ? [ipv4, ipv6] : [ipv4])

  const change = (elements: ReadonlyArray<Nfnetlink.Published>, transaction: typeof Nfnetlink.addElements) =>
    elements.length === 0
      ? Effect.void
      : helper.netfilter(table, transaction(table, map, elements)).pipe(
        // Rules made anew have the ports that are held now.
        Effect.catchIf(isTableGone, () => reload),
        Effect.mapError(unavailable)
      )

  return {
    take: Effect.fn("SandboxNetwork.take")((id, hostname) =>
      Effect.mapError(pool.take, unavailable).pipe(
        Effect.tap((network) => Effect.sync(() => held.set(id, { network, ports: [] }))),
        Effect.uninterruptible,
        Effect.tap((network) => Effect.andThen(files.make(id), write(id, network, hostname))),
        Effect.map(({ path }) => ({ netnsPath: path, mounts: files.mounts(id) }))
      )
    ),
    rename: (id, hostname) =>
      Effect.suspend(() => {
        const own = held.get(id)
        return own === undefined ? Effect.void : write(id, own.network, hostname)
      }),
    publish: (id, ports) =>
      Effect.suspend(() => {
        const own = held.get(id)
        if (own === undefined || ports.length === 0) {
          return Effect.void
        }
        held.set(id, { ...own, ports })
        return change(publishedBy({ ...own, ports }, podIp), Nfnetlink.addElements)
      }),
    release: Effect.fn("SandboxNetwork.release")((id) =>
      Effect.suspend(() => {
        const own = held.get(id)
        if (own === undefined) {
          return Effect.void
        }
        held.set(id, { ...own, ports: [] })
        return change(publishedBy(own, podIp), Nfnetlink.deleteElements).pipe(
          Effect.andThen(Effect.mapError(helper.drop(own.network.path), unavailable)),
          Effect.andThen(Effect.mapError(files.remove(id), unavailable)),
          Effect.andThen(Effect.sync(() => held.delete(id)))
        )
      })
    ),
    endpoints: endpointsAt(podIp),
    notes: [
      `network private: ${egress.policy === "closed" ? "closed" : "internet"} egress` +
      `, names by ${nameservers.length === 0 ? "nobody" : nameservers.join(", ")}`,
      ...changes
    ]
  }
})

const make = Effect.gen(function*() {
  const settings = yield* AgentConfig
  const files = yield* FileSystem.FileSystem
  const { network, networkBinary } = settings
  const withLoopbackOnly = (note: string) => Effect.as(dropAll(settings), none(`${note}; sandboxes have loopback only`))
  const off = (problem: string) =>
    Effect.logWarning("sandboxes' networks are off", { network, problem }).pipe(
      Effect.andThen(withLoopbackOnly(`network ${network} off: ${problem}`))
    )
  if (network === "none") {
    return yield* withLoopbackOnly("network none")
  }
  if (networkBinary === undefined || !(yield* Effect.orElseSucceed(files.exists(networkBinary), () => false))) {
    return yield* off("fsb-network is not there")
  }
  const helper = yield* Layer.build(NetworkHelper.layer(networkBinary))
  return yield* (network === "pod" ? shared(settings) : privately(settings)).pipe(
    Effect.provideContext(helper),
    Effect.catchTag(
      ["NetworkError", "NftablesError", "PlatformError"],
      ({ message }) => off(message)
    )
  )
})
