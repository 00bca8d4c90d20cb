/**
 * What a sandbox is in containerd, and the order in which it is made and unmade.
 *
 * Made: network, container record, log directory and snapshot, task, start. The record comes first among what is in
 * containerd: it is what protects the snapshot from the garbage collector, and what a restarted agent finds after a crash
 * between any two lines; a network that no record names is taken for unused. Unmade: the task, the snapshot, the cgroup,
 * the network; last the log and the record. Every step may be repeated; what is gone counts as done.
 *
 * No call is ever cancelled half-way, because containerd may carry out a cancelled call later. Whoever makes a sandbox
 * may be interrupted between two steps only.
 */
import { create as createMessage } from "@bufbuild/protobuf"
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import { type ContainerdError, isNotFound } from "@fast-sandbox/containerd/ContainerdError"
import * as ContainerRemoval from "@fast-sandbox/containerd/ContainerRemoval"
import { Containers, type NewContainer } from "@fast-sandbox/containerd/Containers"
import * as OciSpec from "@fast-sandbox/containerd/OciSpec"
import * as RuntimeProfile from "@fast-sandbox/containerd/RuntimeProfile"
import { seccompProfile } from "@fast-sandbox/containerd/SeccompProfile"
import { ShimGroups } from "@fast-sandbox/containerd/ShimGroups"
import { type Mount, Snapshots, volatile } from "@fast-sandbox/containerd/Snapshots"
import { type ProcessStatus, Tasks } from "@fast-sandbox/containerd/Tasks"
import { UserNamespaces } from "@fast-sandbox/containerd/UserNamespaces"
import { AlreadyExists, type BoundaryError, Internal, Unavailable } from "@fast-sandbox/core/Errors"
import { type Instance, InstanceSchema, InstanceSpecSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { AgentConfig } from "./AgentConfig.ts"
import { toBoundary } from "./ContainerdFailure.ts"
import type { PreparedImage } from "./ImageCatalog.ts"
import * as InstanceRecord from "./InstanceRecord.ts"
import { LogDirectory } from "./LogDirectory.ts"
import { type Attachment, SandboxNetwork } from "./network/SandboxNetwork.ts"
import * as ExecFilter from "./parked/ExecFilter.ts"
import { SlotFiles } from "./parked/SlotFiles.ts"
import * as SandboxSecurity from "./SandboxSecurity.ts"
import { fromStart } from "./StartFailure.ts"
import { defaultStopSignal } from "./StopSignal.ts"

/** 20, 40 ... 640 ms: the kernel needs a moment to bury processes; containerd may be busy. */
const reclaimPolicy = Schedule.exponential("20 millis").pipe(Schedule.upTo({ times: 6 }))

/**
 * Part of a sandbox that could not be removed; or `record`, which must learn of the end before anything is. The slot
 * stays taken; the agent keeps trying.
 */
export class LeftBehind extends Schema.TaggedError<LeftBehind>()("LeftBehind", {
  containerId: Schema.String,
  what: Schema.Literals(["record", "task", "cgroup", "network", "log"]),
  problem: Schema.String
}) {
  override get message(): string {
    return `the ${this.what} of container ${this.containerId} could not be cleared up: ${this.problem}`
  }
  /** For callers of the agent. */
  get boundary(): Unavailable {
    return new Unavailable({
      target: `container ${this.containerId}`,
      problem: `${this.message}; its slot stays taken and the agent keeps trying, so try again`
    })
  }
}

/** The names of the steps of {@link SandboxContainer.make}, in order. */
export type Step = "network" | "record" | "snapshot" | "task" | "start"

/** Runs around each step: measures it, lets an interruption in before it. */
export type Around = (
  step: Step
) => <A>(self: Effect.Effect<A, BoundaryError>) => Effect.Effect<A, BoundaryError>

/** What containerd knows of a sandbox's program. `absent`: there is no task. */
export interface Observed {
  readonly status: ProcessStatus | "absent"
  readonly exitCode: number
  readonly exitedAtMillis: number
}

/** A slot's container. */
export interface MadeSlot {
  /** What it serves. */
  readonly served: OciSpec.Spec
  /** Its first process, as the node sees it. */
  readonly pid: number
  /** Its own, also the network's, which is no part of what it serves. */
  readonly namespaces: ReadonlyArray<OciSpec.Namespace>
}

/**
 * - `specOf` is what an instance's container is like.
 * - `make` makes and starts a sandbox. After a failure (but ALREADY_EXISTS, where something else has the id) or an
 *   interruption `reclaim` and `forget` must follow.
 * - `makeSlot` makes and starts a container that serves an instance later, and answers what it serves: `toSlot` makes its
 *   spec from the one of an instance that asks for nothing. Without an image its root file system is empty. After a failure
 *   `reclaim` and `forget` must follow.
 * - `rootOf` prepares the root file system of a container that has a record but no root of an image yet.
 * - `limit` sets a container's limits at once, in the kernel itself.
 * - `signal` and `kill` (every process) succeed also when there is nobody left to hear them.
 * - `reclaim` removes task, snapshot, cgroup and network, and has proof of it.
 * - `forget` removes the log, the record and, of a slot, its claim.
 */
export class SandboxContainer extends Context.Service<SandboxContainer, {
  readonly specOf: (instance: Instance, image: RunImage) => Effect.Effect<OciSpec.Spec, BoundaryError>
  readonly make: (instance: Instance, image: PreparedImage, around: Around) => Effect.Effect<void, BoundaryError>
  readonly makeSlot: (
    slotId: string,
    image: PreparedImage | undefined,
    toSlot: (spec: OciSpec.Spec) => OciSpec.Spec
  ) => Effect.Effect<MadeSlot, BoundaryError>
  readonly rootOf: (containerId: string, image: PreparedImage) => Effect.Effect<ReadonlyArray<Mount>, BoundaryError>
  readonly limit: (
    containerId: string,
    resources: OciSpec.LinuxResources
  ) => Effect.Effect<void, Cgroups.LimitRefused>
  readonly observe: (containerId: string) => Effect.Effect<Observed, ContainerdError>
  readonly signal: (containerId: string, signal: number) => Effect.Effect<void, ContainerdError>
  readonly kill: (containerId: string) => Effect.Effect<void, ContainerdError>
  readonly oomKills: (containerId: string) => Effect.Effect<number>
  readonly reclaim: (containerId: string) => Effect.Effect<void, LeftBehind>
  readonly forget: (containerId: string) => Effect.Effect<void, LeftBehind>
}>()("@fast-sandbox/agent/SandboxContainer") {
  static readonly layer: Layer.Layer<
    SandboxContainer,
    never,
    | AgentConfig
    | Containers
    | FileSystem.FileSystem
    | LogDirectory
    | RuntimeProfile.RuntimeProfile
    | SandboxNetwork
    | ShimGroups
    | SlotFiles
    | Snapshots
    | Tasks
    | UserNamespaces
  > = Layer.effect(SandboxContainer, Effect.suspend(() => make))
}

/** What of an image decides what a container is like. */
type RunImage = Pick<PreparedImage, "user"> & { readonly image: Pick<PreparedImage["image"], "config"> }

/** Of a container without one. */
const noImage: RunImage = {
  image: { config: { entrypoint: [], cmd: [], env: [], workingDir: "", user: "", stopSignal: "" } },
  user: { uid: 0, gid: 0 }
}

/** Room for the mount points of a root file system that has nothing else. */
const emptyRootBytes = 64 * 1024

/** A root file system with nothing in it, whose root may make mount points there. */
const emptyRoot = (users: OciSpec.IdRange | undefined): ReadonlyArray<Mount> => [{
  type: "tmpfs",
  source: "tmpfs",
  options: [
    `size=${emptyRootBytes}`,
    "mode=755",
    ...(users === undefined ? [] : [`uid=${users.hostId}`, `gid=${users.hostId}`])
  ]
}]

/** The longest name that Linux takes as a host name. */
const maxHostnameLength = 63

const hostnameOf = (instance: Instance): string =>
  (instance.claim?.sandboxName || instance.instanceId).slice(0, maxHostnameLength).replace(/[^A-Za-z0-9]+$/, "")

/** The spec of a container with its network, which is told from all others and so is no part of what an instance asks for. */
const attached = (spec: OciSpec.Spec, { mounts, netnsPath }: Attachment): OciSpec.Spec => {
  const joined = netnsPath === undefined ? spec : OciSpec.joinNetwork(spec, netnsPath)
  return { ...joined, mounts: [...joined.mounts, ...mounts] }
}

/** The instance that a slot is made for: nobody's, with a program that is never executed. */
const parkedInstance = (slotId: string): Instance => ({
  ...createMessage(InstanceSchema),
  instanceId: slotId,
  spec: createMessage(InstanceSpecSchema, { command: ["/"] })
})

const imageVanished = (image: string): Unavailable =>
  new Unavailable({ target: `image ${image}`, problem: "it was just removed or changed on this node; try again" })

const noNetwork = ({ message }: { readonly message: string }): Unavailable =>
  new Unavailable({ target: "the sandbox's network", problem: `${message}; try again` })

const left = (containerId: string, what: LeftBehind["what"]) => (error: { readonly message: string }) =>
  new LeftBehind({ containerId, what, problem: error.message })

const make = Effect.gen(function*() {
  const settings = yield* AgentConfig
  const containers = yield* Containers
  const logs = yield* LogDirectory
  const network = yield* SandboxNetwork
  const profile = yield* RuntimeProfile.RuntimeProfile
  const shims = yield* ShimGroups
  const slotFiles = yield* SlotFiles
  const snapshots = yield* Snapshots
  const tasks = yield* Tasks
  const users = yield* UserNamespaces
  const { snapshotter } = profile
  const context = yield* Effect.context<Containers | FileSystem.FileSystem | Snapshots | Tasks>()
  const asVolatile = RuntimeProfile.isOn(profile, "volatileOverlay") ? volatile : <A>(mounts: A) => mounts

  const cgroupOf = (containerId: string): string => `${settings.cgroupParent}/${containerId}`

  const openFiles = yield* Effect.sync(SandboxSecurity.ownOpenFiles)
  const ceiling = { limitsSwap: yield* Cgroups.limitsSwap, cores: yield* Cgroups.cores(settings.cgroupParent) }

  const specOf = Effect.fnUntraced(function*(
    instance: Instance,
    { image, user }: RunImage
  ): Effect.fn.Return<OciSpec.Spec, BoundaryError> {
    if (seccompProfile === undefined) {
      return yield* new Internal({ problem: `there is no seccomp profile for ${process.arch}` })
    }
    return yield* Effect.fromResult(OciSpec.make({
      image: image.config,
      user: yield* Effect.fromResult(SandboxSecurity.userOf(instance.spec, user)),
      openFiles,
      readonlyRoot: instance.spec?.readOnlyRootFilesystem,
      command: instance.spec?.command,
      args: instance.spec?.args,
      env: Object.fromEntries(instance.spec?.envs.map(({ name, value }) => [name, value]) ?? []),
      workingDir: instance.spec?.workingDir === "" ? undefined : instance.spec?.workingDir,
      hostname: hostnameOf(instance),
      cgroupsPath: cgroupOf(instance.instanceId),
      resources: SandboxSecurity.resourcesOf(settings.limits, instance.spec, ceiling),
      users: users.range,
      terminal: instance.spec?.tty,
      seccomp: seccompProfile
    })).pipe(Effect.mapError(toBoundary))
  })

  /** The program has the weight that was asked for. Where the kernel shows no such cgroup, in a machine, nothing was changed. */
  const settle = (containerId: string, { linux: { resources: { cpu } } }: OciSpec.Spec) =>
    Effect.ignore(Cgroups.limit(cgroupOf(containerId), { cpu: { shares: cpu?.shares } }), { log: "Debug" })

  const rootOf = Effect.fn("SandboxContainer.rootOf")((id: string, { image }: PreparedImage) =>
    snapshots.prepare(id, image.chainId, { snapshotter }).pipe(
      Effect.mapError((error) => error.isNotFound ? imageVanished(image.name) : toBoundary(error)),
      Effect.flatMap((mounts) =>
        Effect.mapError(users.rootfs(mounts), ({ message }) => new Internal({ problem: message }))
      ),
      Effect.map(asVolatile)
    )
  )

  const makeContainer = Effect.fnUntraced(
    function*({ around, hasStdin, id, image, ports, record, root, spec: bare }: {
      readonly id: string
      readonly record: Pick<NewContainer, "labels" | "extensions">
      readonly spec: OciSpec.Spec
      readonly hasStdin: boolean
      readonly image: string | undefined
      readonly root: Effect.Effect<ReadonlyArray<Mount>, BoundaryError>
      readonly ports: ReadonlyArray<number>
      readonly around: Around
    }): Effect.fn.Return<Omit<MadeSlot, "served">, BoundaryError, Scope.Scope> {
      const scope = yield* Effect.scope
      const runtime = yield* shims.next
      const attachment = yield* network.take(id, bare.hostname).pipe(Effect.mapError(noNetwork), around("network"))
      const spec = attached(bare, attachment)
      const startFailure = fromStart(spec.process.args[0] ?? "")
      yield* containers.create({
        id,
        ...record,
        image,
        runtime,
        spec: OciSpec.whileStarting({ ...spec, annotations: { ...spec.annotations, ...runtime.annotations } }),
        snapshotter
      }).pipe(
        Effect.mapError((error) =>
          error.isAlreadyExists
            ? new AlreadyExists({ kind: "container", name: id, hint: "choose another instance id" })
            : toBoundary(error)
        ),
        // What has this id already is not ours to remove, but what was just taken is.
        Effect.tapError(() => Effect.ignore(network.release(id), { log: "Warn" })),
        around("record")
      )
      const [stdio, mounts] = yield* Effect.all([
        logs.prepare(id, { tty: spec.process.terminal, stdin: hasStdin }).pipe(
          Scope.provide(scope),
          Effect.catchTag(
            "PlatformError",
            (error) => Effect.fail(new Internal({ problem: `the log directory could not be made: ${error.message}` }))
          )
        ),
        root,
        network.publish(id, ports).pipe(Effect.mapError(noNetwork))
      ], { concurrency: 3 }).pipe(around("snapshot"))
      const pid = yield* tasks.create({ containerId: id, rootfs: mounts, runtime, stdio }).pipe(
        Effect.mapError(startFailure),
        Effect.tap(settle(id, spec)),
        around("task")
      )
      yield* tasks.start({ containerId: id }).pipe(Effect.mapError(startFailure), around("start"))
      return { pid, namespaces: spec.linux.namespaces }
    },
    Effect.scoped
  )

  const makeSandbox = Effect.fn("SandboxContainer.make")(function*(
    instance: Instance,
    image: PreparedImage,
    around: Around
  ): Effect.fn.Return<void, BoundaryError> {
    const record = InstanceRecord.recordOf(settings, { instance, stopSignal: image.stopSignal })
    const hasStdin = instance.spec?.stdin ?? false
    const spec = yield* specOf(instance, image)
    const ports = instance.spec?.exposedPorts ?? []
    const id = instance.instanceId
    yield* makeContainer({
      id,
      record,
      spec,
      hasStdin,
      image: image.image.name,
      root: rootOf(id, image),
      ports,
      around
    })
  })

  const makeSlot = Effect.fn("SandboxContainer.makeSlot")(function*(
    id: string,
    image: PreparedImage | undefined,
    toSlot: (spec: OciSpec.Spec) => OciSpec.Spec
  ): Effect.fn.Return<MadeSlot, BoundaryError> {
    const served = yield* specOf(parkedInstance(id), image ?? noImage)
    const record = { labels: InstanceRecord.slotLabelsOf(settings, image?.stopSignal ?? defaultStopSignal) }
    const made = yield* makeContainer({
      id,
      record,
      spec: toSlot(served),
      hasStdin: false,
      image: image?.image.name,
      root: image === undefined ? Effect.succeed(emptyRoot(users.range)) : rootOf(id, image),
      ports: [],
      around: () => identity
    })
    yield* ExecFilter.close({
      runtime: profile.runtime.name,
      namespace: settings.containerdNamespace,
      containerId: id
    }).pipe(
      Effect.provideContext(context),
      // What is executed there may then call what its capabilities refuse it anyway.
      Effect.ignore({ log: "Warn" })
    )
    return { served, ...made }
  })

  const observe = Effect.fn("SandboxContainer.observe")((containerId: string) =>
    tasks.get({ containerId }).pipe(
      Effect.catchIf(isNotFound, () => Effect.succeed<Observed>({ status: "absent", exitCode: 0, exitedAtMillis: 0 }))
    )
  )

  const proveCgroupGone = (containerId: string) =>
    Effect.filterOrFail(
      Cgroups.remove(cgroupOf(containerId)),
      (isGone) => isGone,
      () =>
        new LeftBehind({
          containerId,
          what: "cgroup",
          problem: `processes are left in ${cgroupOf(containerId)}`
        })
    )

  return SandboxContainer.of({
    specOf,
    make: makeSandbox,
    makeSlot,
    rootOf,
    limit: (containerId, resources) => Cgroups.limit(cgroupOf(containerId), resources),
    observe,
    signal: Effect.fn("SandboxContainer.signal")((containerId, signal) =>
      ContainerRemoval.unheard(tasks.kill({ containerId }, signal))
    ),
    kill: (containerId) => Effect.provideContext(ContainerRemoval.kill(containerId), context),
    oomKills: (containerId) => Cgroups.oomKills(cgroupOf(containerId)),
    reclaim: Effect.fn("SandboxContainer.reclaim")((containerId) =>
      ContainerRemoval.reclaimAt({ id: containerId, snapshotKey: containerId, snapshotter }).pipe(
        Effect.provideContext(context),
        Effect.mapError(left(containerId, "task")),
        Effect.andThen(proveCgroupGone(containerId)),
        Effect.andThen(Effect.mapError(network.release(containerId), left(containerId, "network"))),
        Effect.asVoid,
        Effect.retry(reclaimPolicy)
      )
    ),
    forget: Effect.fn("SandboxContainer.forget")((containerId) =>
      logs.remove(containerId).pipe(
        Effect.mapError(left(containerId, "log")),
        Effect.andThen(
          ContainerRemoval.forget(containerId).pipe(
            Effect.provideContext(context),
            Effect.mapError(left(containerId, "record"))
          )
        ),
        Effect.andThen(slotFiles.settle(containerId)),
        Effect.retry(reclaimPolicy)
      )
    )
  })
})
