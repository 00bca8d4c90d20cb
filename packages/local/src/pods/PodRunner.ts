/**
 * What a kubelet is to a node, for the agents of one machine: it runs each agent Pod as a process, keeps the process
 * running, reports the Pod's state, and ends it in order when the Pod is deleted. The controllers see Pods as they see
 * them on a cluster, so that the same code serves both homes.
 *
 * Sandboxes are not its business: an agent that dies is started again and finds its sandboxes in containerd.
 */
import * as Cgroups from "@fast-sandbox/containerd/Cgroups"
import type { System } from "@fast-sandbox/containerd/MachineSetup"
import * as NetworkNamespaces from "@fast-sandbox/containerd/NetworkNamespaces"
import * as PodCgroups from "@fast-sandbox/containerd/PodCgroups"
import * as Names from "@fast-sandbox/core/Names"
import {
  Health,
  HealthCheckResponse_ServingStatus as ServingStatus
} from "@fast-sandbox/grpc/gen/grpc/health/v1/health_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import { type Condition, Pod, type PodStatus } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { KubeError } from "@fast-sandbox/kube/KubeError"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Home from "../Home.ts"
import * as AgentProcess from "./AgentProcess.ts"
import * as PodEnvironment from "./PodEnvironment.ts"
import * as PodLimits from "./PodLimits.ts"

/** Options of {@link layer}. */
export interface PodRunnerOptions {
  readonly home: Home.Home
  readonly nodeName: string
  /** What an agent Pod's container `agent` is on this machine: program and arguments. */
  readonly agentCommand: readonly [file: string, ...args: ReadonlyArray<string>]
  /** Variables for every agent, over those of its Pod. */
  readonly environment: Readonly<Record<string, string>>
}

/** The container of an agent Pod that is run; others have no place on one machine. */
const containerName = "agent"

/** The loopback addresses that agents are given, one each: a /16 that nothing else uses by default. */
const addressOf = (index: number): string => `127.88.${index >> 8}.${index & 0xff}`
const addressCount = 0xffff

/** Pauses between restarts, as the kubelet's but shorter: a machine of one's own has no thundering herd. */
const restartPause = { first: Duration.millis(100), most: Duration.seconds(10), stableAfter: Duration.seconds(10) }

/** The grace period of a Pod that names none: Kubernetes' default. */
const defaultGrace = Duration.seconds(30)

/** How often an agent that is coming up is asked whether it is ready. */
const readinessPeriod = Duration.millis(25)

/** Writes of a Pod's state are repeated while the API server is away: at most 10 s apart, for as long as it takes. */
const writePolicy = Schedule.min([Schedule.exponential("100 millis", 2), Schedule.spaced("10 seconds")]).pipe(
  Schedule.jittered
)

/** The Pod can't be run here; `reason` and `message` are shown in its status. */
class PodRejected extends Schema.TaggedError<PodRejected>()("PodRejected", {
  reason: Schema.String,
  message: Schema.String
}) {}

/** The Pod, or the incarnation that was meant, does not exist any more. */
const isGone = (error: KubeError): boolean => error.reason._tag === "NotFound" || error.reason._tag === "Conflict"

/** Gives an address for the time of the scope: the wanted one where it is free. */
const takeAddress = (taken: Set<number>, wanted: string | undefined): Effect.Effect<string, PodRejected, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const before = Array.from({ length: addressCount }, (_, n) => n + 1)
      const index = before.find((n) => addressOf(n) === wanted && !taken.has(n)) ?? before.find((n) => !taken.has(n))
      if (index === undefined) {
        return Effect.fail(new PodRejected({ reason: "OutOfAddresses", message: "every agent address is taken" }))
      }
      taken.add(index)
      return Effect.succeed(index)
    }),
    (index) => Effect.sync(() => taken.delete(index))
  ).pipe(Effect.map(addressOf))

const refOf = (pod: Pod) => ({
  namespace: pod.metadata.namespace ?? Names.defaultNamespace,
  name: pod.metadata.name
})

const condition = (type: string, value: boolean, at: string, reason?: string): Condition => ({
  type,
  status: value ? "True" : "False",
  lastTransitionTime: at,
  ...(reason === undefined ? {} : { reason })
})

interface Observed {
  readonly ready: boolean
  readonly restarts: number
  readonly startedAt: string
  readonly podIP: string
  readonly waiting?: { readonly reason: string; readonly message: string } | undefined
}

const statusOf = (pod: Pod, image: string, now: string, observed: Observed): PodStatus => ({
  phase: observed.restarts === 0 && !observed.ready ? "Pending" : "Running",
  podIP: observed.podIP,
  podIPs: [{ ip: observed.podIP }],
  hostIP: observed.podIP,
  startTime: pod.status?.startTime ?? observed.startedAt,
  conditions: [
    condition("PodScheduled", true, observed.startedAt),
    condition("Initialized", true, observed.startedAt),
    condition("ContainersReady", observed.ready, now, observed.waiting?.reason),
    condition("Ready", observed.ready, now, observed.waiting?.reason)
  ],
  containerStatuses: [{
    name: containerName,
    ready: observed.ready,
    started: observed.ready,
    restartCount: observed.restarts,
    image,
    imageID: "",
    state: observed.waiting === undefined
      ? { running: { startedAt: observed.startedAt } }
      : { waiting: observed.waiting }
  }]
})

/** Done when the agent behind the socket says that it serves. */
const untilServing = (socket: string): Effect.Effect<void> =>
  Effect.gen(function*() {
    const health = yield* GrpcClient.make(Health, { address: `unix:${socket}` })
    yield* health.watch({ service: "" }).pipe(
      Stream.filter((answer) => answer.status === ServingStatus.SERVING),
      Stream.take(1),
      Stream.runDrain
    )
  }).pipe(Effect.scoped, Effect.retry(Schedule.spaced(readinessPeriod)), Effect.orDie)

/** Runs agent Pods as processes of this machine. */
export class PodRunner extends Context.Service<PodRunner, {
  /** The process ids of the agents that run now, by Pod uid. */
  readonly processes: Effect.Effect<ReadonlyMap<string, number>>
}>()("@fast-sandbox/local/pods/PodRunner") {}

const make = (options: PodRunnerOptions) =>
  Effect.gen(function*() {
    yield* PodCgroups.giveWay(options.home.cgroupParent)
    const kube = yield* KubeClient
    const files = yield* FileSystem.FileSystem
    const system = yield* Effect.context<System>()
    const processes = new Map<string, number>()
    const taken = new Set<number>()
    const deletions = new Map<string, Deferred.Deferred<Duration.Duration>>()
    const runs = yield* FiberMap.make<string, void, never>()
    const store = yield* Reflector.make(Pod, {
      labelSelector: `${Names.agentAppLabel.key}=${Names.agentAppLabel.value}`
    })

    /** The agent's sandboxes are in it; the agent itself is not, so that they can't crowd it out. */
    const cgroupOf = (pod: Pod): string => `${options.home.cgroupParent}/${PodCgroups.nameOf(pod.metadata.uid)}`

    /** A Pod that is gone needs no report. */
    const report = (pod: Pod, status: PodStatus): Effect.Effect<void> =>
      kube.patchStatus(Pod, refOf(pod), {
        type: "merge",
        body: { metadata: { uid: pod.metadata.uid }, status }
      }).pipe(
        Effect.asVoid,
        Effect.catchIf(isGone, () => Effect.void),
        Effect.retry(writePolicy),
        Effect.orDie
      )

    const place = (pod: Pod): Effect.Effect<void> =>
      pod.spec.nodeName === options.nodeName ? Effect.void : kube.patch(Pod, refOf(pod), {
        type: "merge",
        body: { metadata: { uid: pod.metadata.uid }, spec: { nodeName: options.nodeName } }
      }).pipe(
        Effect.asVoid,
        Effect.catchIf(isGone, () => Effect.void),
        Effect.retry(writePolicy),
        Effect.orDie
      )

    /** One life of the process: until it ends, or was ended because the Pod is deleted. */
    const runOnce = Effect.fnUntraced(function*(
      pod: Pod,
      deletion: Deferred.Deferred<Duration.Duration>,
      podIP: string,
      restarts: number
    ) {
      const container = pod.spec.containers.find(({ name }) => name === containerName)
      if (container === undefined) {
        return yield* new PodRejected({
          reason: "InvalidPod",
          message: `the Pod has no container named ${containerName}`
        })
      }
      const environment = PodEnvironment.resolve(pod, container, { nodeName: options.nodeName, podIP })
      if (Result.isFailure(environment)) {
        return yield* new PodRejected({
          reason: "CreateContainerConfigError",
          message: `the source of the variable ${environment.failure} is not known on one machine`
        })
      }
      yield* Cgroups.make(cgroupOf(pod), PodLimits.resourcesOf(container)).pipe(
        Effect.mapError(({ message }) => new PodRejected({ reason: "CreateContainerConfigError", message }))
      )
      const directory = Home.agentDirectory(options.home, pod.metadata.name)
      const socket = Home.agentSocket(options.home, pod.metadata.name)
      yield* files.makeDirectory(directory, { recursive: true, mode: 0o700 }).pipe(Effect.orDie)
      const [file, ...args] = options.agentCommand
      const agent = yield* AgentProcess.start({
        file,
        args,
        workingDirectory: directory,
        log: `${directory}/agent.log`,
        environment: {
          ...environment.success,
          ...options.environment,
          FSB_AGENT_LISTEN: `unix:${socket}`,
          FSB_STATE_DIR: directory,
          FSB_SHARED_DIR: options.home.directory,
          FSB_LOG_DIR: options.home.logsDirectory,
          FSB_CGROUP_PARENT: cgroupOf(pod),
          FSB_EXIT_WITH_PARENT: "1",
          // What a container needs and a process of the machine has not: no port is opened without being asked for.
          FSB_HOST_ROOT: "",
          FSB_METRICS_LISTEN: ""
        }
      }, defaultGrace)
      yield* Effect.acquireRelease(
        Effect.sync(() => processes.set(pod.metadata.uid, agent.pid)),
        () => Effect.sync(() => processes.delete(pod.metadata.uid))
      )
      const startedAt = DateTime.formatIso(yield* DateTime.now)
      const image = container.image ?? ""
      const tell = (observed: Pick<Observed, "ready" | "waiting">) =>
        Effect.gen(function*() {
          const now = DateTime.formatIso(yield* DateTime.now)
          yield* report(pod, statusOf(pod, image, now, { ...observed, restarts, startedAt, podIP }))
        })
      yield* tell({ ready: false })
      yield* untilServing(socket).pipe(Effect.andThen(tell({ ready: true })), Effect.forkScoped)
      const end = yield* Effect.raceFirst(
        agent.exited,
        Deferred.await(deletion).pipe(Effect.flatMap((grace) => agent.stop(grace)))
      )
      return { end, tell }
    })

    const remove = (pod: Pod): Effect.Effect<void> =>
      kube.delete(Pod, refOf(pod), { gracePeriodSeconds: 0, preconditions: { uid: pod.metadata.uid } }).pipe(
        Effect.catchIf(isGone, () => Effect.void),
        Effect.retry(writePolicy),
        Effect.orDie,
        // An agent that was killed left them, and its directory is what tells whose they are.
        Effect.andThen(
          NetworkNamespaces.removeAll(Home.agentDirectory(options.home, pod.metadata.name)).pipe(
            Effect.provideContext(system),
            Effect.ignore({ log: "Warn" })
          )
        ),
        Effect.andThen(Cgroups.removeEmpty(cgroupOf(pod))),
        Effect.andThen(
          Effect.forEach(
            [Home.agentDirectory(options.home, pod.metadata.name), Home.agentSockets(options.home, pod.metadata.name)],
            (path) => files.remove(path, { recursive: true, force: true }).pipe(Effect.ignore({ log: "Warn" })),
            { discard: true }
          )
        )
      )

    const run = (pod: Pod, deletion: Deferred.Deferred<Duration.Duration>): Effect.Effect<void> =>
      Effect.gen(function*() {
        const podIP = yield* takeAddress(taken, pod.status?.podIP)
        yield* place(pod)
        let restarts = (pod.status?.containerStatuses?.[0]?.restartCount ?? -1) + 1
        let pause = restartPause.first
        while (!(yield* Deferred.isDone(deletion))) {
          const startedAt = yield* Clock.currentTimeMillis
          yield* runOnce(pod, deletion, podIP, restarts).pipe(
            Effect.tap(({ end, tell }) =>
              Effect.gen(function*() {
                if (!(yield* Deferred.isDone(deletion))) {
                  const message = `the agent ended with ${end.signal ?? `code ${end.code}`}; see its agent.log`
                  yield* Effect.logWarning("agent ended").pipe(Effect.annotateLogs({ pod: pod.metadata.name, ...end }))
                  yield* tell({ ready: false, waiting: { reason: "CrashLoopBackOff", message } })
                }
              })
            ),
            Effect.scoped,
            Effect.catchTag("AgentStartError", ({ message }) =>
              Effect.logError("agent not started", message).pipe(
                Effect.andThen(report(pod, { phase: "Pending", reason: "CreateContainerError", message }))
              ))
          )
          restarts++
          const lived = (yield* Clock.currentTimeMillis) - startedAt
          pause = lived >= Duration.toMillis(restartPause.stableAfter)
            ? restartPause.first
            : Duration.min(Duration.times(pause, 2), restartPause.most)
          yield* Effect.raceFirst(Effect.sleep(pause), Deferred.await(deletion))
        }
        yield* remove(pod)
      }).pipe(
        Effect.scoped,
        Effect.catchTag("PodRejected", ({ message, reason }) => report(pod, { phase: "Failed", reason, message })),
        Effect.annotateLogs({ pod: pod.metadata.name })
      )

    const observe = (pod: Pod): Effect.Effect<void> =>
      Effect.gen(function*() {
        if (pod.spec.nodeName !== undefined && pod.spec.nodeName !== options.nodeName) {
          return
        }
        const { uid } = pod.metadata
        let deletion = deletions.get(uid)
        if (deletion === undefined) {
          deletion = yield* Deferred.make<Duration.Duration>()
          deletions.set(uid, deletion)
        }
        if (pod.metadata.deletionTimestamp !== undefined) {
          const seconds = pod.metadata.deletionGracePeriodSeconds
          yield* Deferred.succeed(deletion, seconds === undefined ? defaultGrace : Duration.seconds(seconds))
        }
        yield* FiberMap.run(runs, uid, run(pod, deletion), { onlyIfMissing: true })
      })

    yield* store.changes.pipe(
      Stream.runForEach((change) => {
        switch (change._tag) {
          case "Added":
          case "Modified":
            return observe(change.object)
          case "Deleted":
            // Taken away without its grace period (force): the process must not outlive its Pod.
            return Effect.suspend(() => {
              const deletion = deletions.get(change.object.metadata.uid)
              deletions.delete(change.object.metadata.uid)
              return deletion === undefined ? Effect.void : Deferred.succeed(deletion, Duration.zero)
            })
          case "Synced":
            return Effect.void
        }
      }),
      Effect.forkScoped
    )
    return PodRunner.of({ processes: Effect.sync(() => new Map(processes)) })
  })

/** Runs the agent Pods of the API that {@link KubeClient} points to; closing it ends them in order. */
export const layer = (options: PodRunnerOptions): Layer.Layer<PodRunner, never, KubeClient | System> =>
  Layer.effect(PodRunner, make(options))
