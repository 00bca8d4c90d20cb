/**
 * The agent, put together: containerd below, the runtime of sandboxes in the middle, gRPC above.
 */
import * as Containerd from "@fast-sandbox/containerd/Containerd"
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import { HostRoot } from "@fast-sandbox/containerd/HostRoot"
import { Introspection } from "@fast-sandbox/containerd/Introspection"
import type { System } from "@fast-sandbox/containerd/MachineSetup"
import * as RuntimeProfile from "@fast-sandbox/containerd/RuntimeProfile"
import * as RuntimeStreams from "@fast-sandbox/containerd/RuntimeStreams"
import { ShimGroups } from "@fast-sandbox/containerd/ShimGroups"
import * as UserNamespaces from "@fast-sandbox/containerd/UserNamespaces"
import { containerLabels } from "@fast-sandbox/core/Names"
import { Traffic } from "@fast-sandbox/core/Traffic"
import * as GrpcHealth from "@fast-sandbox/grpc/GrpcHealth"
import * as GrpcReflection from "@fast-sandbox/grpc/GrpcReflection"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as Probes from "@fast-sandbox/telemetry/Probes"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as PlatformError from "effect/PlatformError"
import { dirname } from "node:path"
import { AgentConfig } from "./AgentConfig.ts"
import * as AgentIdentity from "./AgentIdentity.ts"
import * as AgentServer from "./AgentServer.ts"
import { Creations } from "./Creations.ts"
import { Departure } from "./Departure.ts"
import * as DiskWatch from "./DiskWatch.ts"
import { Endings } from "./Endings.ts"
import { ImageCatalog } from "./ImageCatalog.ts"
import { Instances } from "./Instances.ts"
import { LogDirectory } from "./LogDirectory.ts"
import * as NativePrograms from "./NativePrograms.ts"
import { SandboxNetwork } from "./network/SandboxNetwork.ts"
import { NodeEvents } from "./NodeEvents.ts"
import { BlankSlots } from "./parked/BlankSlots.ts"
import { ParkedSlots } from "./parked/ParkedSlots.ts"
import { RootExchange } from "./parked/RootExchange.ts"
import { SlotFiles } from "./parked/SlotFiles.ts"
import * as ProcessorShare from "./ProcessorShare.ts"
import { SandboxContainer } from "./SandboxContainer.ts"
import { SandboxRuntime } from "./SandboxRuntime.ts"
import { Inside } from "./sessions/Inside.ts"
import * as SessionServer from "./SessionServer.ts"
import { Slots } from "./Slots.ts"
import { WatchHub } from "./WatchHub.ts"

/** Watchers are ended beforehand, so only the last answers are waited for. */
const serverGrace = "2 seconds"

/** The shims of sandboxes: shared ones, or one for each. */
const shims = Layer.unwrap(Effect.gen(function*() {
  const settings = yield* AgentConfig
  const { runtime } = yield* RuntimeProfile.RuntimeProfile
  const directory = `${settings.stateDirectory}/shims`
  if (runtime.problem !== undefined || settings.shimGroups === 0 || settings.runtimeType === "kata") {
    return ShimGroups.layerStock
  }
  return settings.runtimeType === "gvisor" ? ShimGroups.layerGvisor(directory) : ShimGroups.layer({
    directory,
    name: `fsb-${settings.podUid}`,
    count: settings.shimGroups,
    labels: {
      [containerLabels.managed]: "true",
      [containerLabels.agentName]: settings.podName,
      [containerLabels.agentUid]: settings.podUid
    },
    cgroupsPath: settings.cgroupParent
  })
}))

/** The first runc that enters a network, which is not the sandbox's users' own, before it becomes one of them. */
const joinsNetworksFirst = [1, 2] as const

/** The users of sandboxes. */
const users = Layer.unwrap(Effect.gen(function*() {
  const settings = yield* AgentConfig
  const { runtime, snapshotter } = yield* RuntimeProfile.RuntimeProfile
  const off = UserNamespaces.UserNamespaces.layerOff
  if (settings.runtimeType !== "container") {
    return off(`sandboxes of ${settings.runtimeType} have a kernel of their own`)
  }
  if (settings.hostUsers) {
    return off("the pool wants its sandboxes to share the node's users")
  }
  if (settings.idmapBinary === undefined) {
    return off("fsb-idmap is not there")
  }
  if (
    runtime.name === "runc" && settings.network !== "none" && !RuntimeProfile.isAtLeast(runtime, joinsNetworksFirst)
  ) {
    return off(
      `runc before ${joinsNetworksFirst.join(".")} can't execute a program in a sandbox with both: install crun`
    )
  }
  // crun opens the root file system beforehand, runc as the sandbox's root. Bundles lie beside the socket.
  const bundles = dirname(settings.containerdSocket)
  if (runtime.name === "runc" && !(yield* UserNamespaces.isOpen(bundles))) {
    return off(`runc needs every folder on the way to ${bundles} to be open to others: chmod o+x`)
  }
  return UserNamespaces.UserNamespaces.layer({
    directory: `${settings.stateDirectory}/layers`,
    binary: settings.idmapBinary,
    range: UserNamespaces.rangeOf(settings.podUid),
    snapshotter
  })
}))

/** What this machine offers. `fsb-runtime` lies beside the other native programs, of which some may not be there. */
const profile = Layer.effect(
  RuntimeProfile.RuntimeProfile,
  Effect.gen(function*() {
    const { idmapBinary, loggerBinary, runtimeBinary, runtimeDirectory, runtimeType, sharedDirectory } =
      yield* AgentConfig
    const sibling = idmapBinary ?? loggerBinary
    const found = yield* RuntimeProfile.detect({ type: runtimeType, binary: runtimeBinary, runtimeDirectory })
    const runtime = sibling === undefined ? found.runtime : yield* RuntimeStreams.guard(found.runtime, {
      directory: `${sharedDirectory}/runtimes`,
      binary: `${dirname(sibling)}/fsb-runtime`
    })
    return { ...found, runtime }
  })
)

/** containerd, and what this machine makes of it. */
export const node = Layer.mergeAll(shims, users).pipe(
  Layer.provideMerge(profile),
  Layer.provideMerge(
    Layer.unwrap(
      Effect.map(
        AgentConfig,
        ({ containerdNamespace, containerdSocket }) =>
          Containerd.layer({ socket: containerdSocket, namespace: containerdNamespace })
      )
    )
  ),
  Layer.provide(Layer.effect(HostRoot, Effect.map(AgentConfig, ({ hostRoot }) => hostRoot)))
)

/** Sandboxes on that containerd, and what goes on inside of them. */
export const runtime = Layer.mergeAll(SandboxRuntime.layer, SessionServer.layer).pipe(
  Layer.provideMerge(Layer.mergeAll(Creations.layer, DiskWatch.layer, NodeEvents.layer, ProcessorShare.layer)),
  Layer.provideMerge(Layer.mergeAll(Endings.layer, ParkedSlots.layer)),
  Layer.provideMerge(Traffic.layer),
  Layer.provideMerge(BlankSlots.layer),
  Layer.provideMerge(Layer.mergeAll(ImageCatalog.layer, RootExchange.layer, SandboxContainer.layer, Slots.layer)),
  Layer.provideMerge(Layer.mergeAll(Instances.layer, LogDirectory.layer, SandboxNetwork.layer)),
  Layer.provideMerge(SlotFiles.layer),
  Layer.provideMerge(Inside.layer),
  Layer.provideMerge(WatchHub.layer)
)

const services = [AgentServer.service, SessionServer.service, GrpcHealth.service] as const

/** Where the agent listens. On the network it does so with a certificate of its controllers' authority only. */
const listener = Effect.gen(function*() {
  const { enrollment, listen, stateDirectory } = yield* AgentConfig
  if (listen._tag === "Unix") {
    const files = yield* FileSystem.FileSystem
    yield* files.makeDirectory(dirname(listen.path), { recursive: true })
    return GrpcServer.unix(listen.path)
  }
  const address = `${listen.host}:${listen.port}`
  if (enrollment === undefined) {
    return yield* new GrpcServer.BindError({
      address,
      problem:
        "an agent takes calls from the network with certificates only: set FSB_CONTROLLER, FSB_AUTHORITIES and " +
        "FSB_TOKEN_FILE, or listen at a unix socket"
    })
  }
  return GrpcServer.tcp(listen.host, listen.port, { tls: yield* AgentIdentity.make(enrollment, stateDirectory) })
})

/** The server. It is built last, so that it serves only when everything else is ready. */
export const server = Layer.unwrap(Effect.gen(function*() {
  const where = yield* listener
  return GrpcServer.layer({
    services: [...services, ...GrpcReflection.make(services.map(({ descriptor }) => descriptor))],
    listeners: [where],
    // whoever may open the unix socket is let in as it is
    authenticate: where._tag === "Tcp" ? AgentIdentity.authenticate : undefined,
    grace: serverGrace
  })
})).pipe(Layer.provideMerge(GrpcHealth.layer))

/** Leaves in order, while the server still serves: watchers see every sandbox end. */
const departure = Layer.effectDiscard(Effect.gen(function*() {
  const hub = yield* WatchHub
  const runtime = yield* SandboxRuntime
  const shims = yield* ShimGroups
  const { sandboxes } = yield* Departure
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      const what = yield* sandboxes
      yield* Effect.logInfo("going away", { sandboxes: what })
      yield* runtime.drain(what)
      if (what === "stop") {
        yield* shims.remove.pipe(Effect.ignore({ log: "Warn" }))
      }
      yield* hub.end
    })
  )
}))

/**
 * Serves metrics and probes where the configuration says; ready as long as containerd answers and calls are taken, which
 * on the network takes a certificate.
 */
const telemetry = Layer.unwrap(Effect.gen(function*() {
  const { metrics } = yield* AgentConfig
  const { version } = yield* Introspection
  const health = yield* GrpcHealth.GrpcHealth
  return metrics === undefined ? Layer.empty : Probes.layer(metrics, [
    Probes.answers("containerd", version),
    { name: "API", problem: GrpcHealth.problem(health) }
  ])
})).pipe(Layer.provide(GrpcHealth.layer))

/** The whole agent. */
export const layer: Layer.Layer<
  GrpcServer.GrpcServer,
  ContainerdError | Probes.ProbesError | GrpcServer.BindError | PlatformError.PlatformError,
  AgentConfig | Departure | System
> = departure.pipe(
  Layer.provideMerge(server),
  Layer.provide(runtime),
  Layer.merge(telemetry),
  Layer.provide(node),
  Layer.provide(Layer.effectDiscard(NativePrograms.install))
)
