/**
 * An agent for tests: on a private containerd with a busybox image, in this process or as a process of its own, and a
 * client that speaks to it over its socket.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Agent from "@fast-sandbox/agent/Agent"
import { AgentConfig, config, type Settings } from "@fast-sandbox/agent/AgentConfig"
import { Departure } from "@fast-sandbox/agent/Departure"
import { Images } from "@fast-sandbox/containerd/Images"
import * as OciArchive from "@fast-sandbox/containerd/OciArchive"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import {
  AgentService,
  type Capacity,
  type Instance,
  type InstanceSpecSchema,
  type WatchResponse
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { SessionService } from "@fast-sandbox/grpc/gen/agent/v1/session_pb"
import { Health } from "@fast-sandbox/grpc/gen/grpc/health/v1/health_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import { census, PrivateContainerd } from "@fast-sandbox/testkit/PrivateContainerd"
import * as TestImages from "@fast-sandbox/testkit/TestImages"
import { ConfigProvider, Effect, FileSystem, Layer, Queue, Schedule, type Scope, Stream } from "effect"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { randomUUID } from "node:crypto"
import { fileURLToPath } from "node:url"

export type AgentClient = GrpcClient.GrpcClient<typeof AgentService, BoundaryError>

export const slots = 8

const native = fileURLToPath(new URL("../native", import.meta.url))
const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))

/** Polls until true; fails the test with `what` after the deadline. */
export const eventually = <E, R>(what: string, condition: Effect.Effect<boolean, E, R>) =>
  condition.pipe(
    Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (isTrue) => isTrue }),
    Effect.timeoutOrElse({ duration: "15 seconds", orElse: () => Effect.die(new Error(`never: ${what}`)) })
  )

/** Loads busybox and builds the logger; once for a test file. */
export const prepareNode = Effect.gen(function*() {
  const { directory } = yield* PrivateContainerd
  execFileSync("make", ["-s", "-C", native, `OUT=${directory}/bin`])
  const recipe = yield* TestImages.busybox
  yield* Images.use((images) => images.load(OciArchive.make([recipe])))
})

export type Environment = Readonly<Record<string, string>>

/** The environment of an agent on the test's containerd. */
export const environmentOf = Effect.fnUntraced(function*(changes: Environment) {
  const { cgroupsPath, daemon, directory, namespace } = yield* PrivateContainerd
  const state = `${directory}/agent`
  return {
    POD_NAME: "agent-1",
    POD_UID: `uid-${randomUUID().slice(0, 8)}`,
    POD_NAMESPACE: "default",
    POD_IP: "127.0.0.9",
    NODE_NAME: "node-1",
    FSB_SLOTS: String(slots),
    FSB_AGENT_LISTEN: `unix:${state}/agent.sock`,
    FSB_CONTAINERD_SOCKET: daemon.socket,
    FSB_CONTAINERD_NAMESPACE: namespace,
    FSB_STATE_DIR: state,
    FSB_CGROUP_PARENT: cgroupsPath,
    FSB_LOGGER_BINARY: `${directory}/bin/fsb-logger`,
    FSB_IDMAP_BINARY: `${directory}/bin/fsb-idmap`,
    FSB_NETWORK_BINARY: `${directory}/bin/fsb-network`,
    FSB_RUNTIME_BINARY: `${daemon.runtimeDirectory}/crun`,
    FSB_SHIM_GROUPS: "1",
    FSB_BLANK_SLOTS: "0",
    ...changes
  }
})

export const settingsOf = (environment: Environment) =>
  config.parse(ConfigProvider.fromEnv({ env: { ...environment } })).pipe(Effect.orDie)

export const clientOf = (settings: Settings): Effect.Effect<AgentClient, never, Scope.Scope> =>
  GrpcClient.makeBoundary(AgentService, {
    address: settings.listen._tag === "Unix"
      ? `unix:${settings.listen.path}`
      : `${settings.listen.host}:${settings.listen.port}`
  })

export type SessionClient = GrpcClient.GrpcClient<typeof SessionService, BoundaryError>

/** The client of what goes on inside of the sandboxes of an agent that `start` started with the same changes. */
export const sessions = Effect.fnUntraced(function*(changes: Environment = {}) {
  const { FSB_AGENT_LISTEN } = yield* environmentOf(changes)
  return yield* GrpcClient.makeBoundary(SessionService, { address: FSB_AGENT_LISTEN })
})

/** An agent in this process, until the scope closes; it stops its sandboxes then. */
export const start = Effect.fnUntraced(function*(changes: Environment = {}) {
  const settings = yield* settingsOf(yield* environmentOf(changes))
  yield* Layer.build(
    Layer.provide(
      Agent.layer,
      Departure.layer.pipe(
        Layer.provideMerge(Layer.succeed(AgentConfig, settings)),
        Layer.provideMerge(NodeServices.layer)
      )
    )
  )
  return yield* clientOf(settings)
})

/** An agent as a process of its own. */
export interface AgentProcess {
  readonly child: ChildProcess
  readonly client: AgentClient
  readonly output: () => string
  readonly exited: Effect.Effect<number | string>
}

/**
 * Starts the agent's process, by the command `through` that executes its arguments where one is given, and waits until it
 * serves. It is killed (its sandboxes stay) with the scope.
 */
export const startProcess = Effect.fnUntraced(function*(
  changes: Environment = {},
  through: ReadonlyArray<string> = []
) {
  const environment = yield* environmentOf(changes)
  const settings = yield* settingsOf(environment)
  let output = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const [program = process.execPath, ...args] = [...through, process.execPath, main]
      const child = spawn(program, args, {
        env: { PATH: process.env["PATH"] ?? "", ...environment },
        stdio: ["pipe", "pipe", "pipe"]
      })
      child.stdout.on("data", (text) => output += text)
      child.stderr.on("data", (text) => output += text)
      return child
    }),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const exited = Effect.callback<number | string>((resume) => {
    const done = () => resume(Effect.succeed(child.exitCode ?? child.signalCode ?? -1))
    if (child.exitCode !== null || child.signalCode !== null) {
      return done()
    }
    child.once("exit", done)
  })
  const health = yield* GrpcClient.make(Health, { address: environment.FSB_AGENT_LISTEN })
  yield* eventually(
    `the agent serves`,
    health.check({}).pipe(Effect.as(true), Effect.orElseSucceed(() => false))
  ).pipe(Effect.tapCause(() => Effect.logError(output)))
  return { child, client: yield* clientOf(settings), output: () => output, exited } satisfies AgentProcess
})

export const kill = (agent: AgentProcess, signal: NodeJS.Signals) =>
  Effect.sync(() => agent.child.kill(signal)).pipe(Effect.andThen(agent.exited))

/** Kills an agent so soon after it was asked for sandboxes; gives the ids of those that it has answered for. */
export const killAmidCreates = Effect.fnUntraced(function*(
  agent: AgentProcess,
  requests: ReadonlyArray<ReturnType<typeof request>>,
  millis: number
) {
  const answered: Array<string> = []
  yield* Effect.forEach(requests, (request) =>
    agent.client.create(request).pipe(
      Effect.tap(() => Effect.sync(() => answered.push(request.instanceId))),
      Effect.ignore
    ), { concurrency: "unbounded" }).pipe(Effect.forkChild({ startImmediately: true }))
  yield* Effect.sleep(millis)
  yield* kill(agent, "SIGKILL")
  return [...answered]
})

/** A request for a sandbox of busybox. */
export const request = (
  command: ReadonlyArray<string>,
  spec: Omit<MessageInitShape<typeof InstanceSpecSchema>, "$typeName"> = {}
) => ({
  instanceId: `i-${randomUUID().slice(0, 13)}`,
  claim: { namespace: "default", sandboxName: "box", claimUid: "claim-1", manifest: new Uint8Array([123, 125]) },
  spec: { image: "busybox", command: [...command], terminationGracePeriodSeconds: 2, ...spec }
})

export const sleeper = ["sleep", "1000"]

/** The instance as the agent lists it. */
export const listed = (client: AgentClient, instanceId: string): Effect.Effect<Instance | undefined, BoundaryError> =>
  Effect.map(client.list({}), ({ instances }) => instances.find((instance) => instance.instanceId === instanceId))

/** Waits until the agent lists the instance in `state`. */
export const untilState = (client: AgentClient, instanceId: string, state: number) =>
  Effect.andThen(
    eventually(
      `state ${state}`,
      Effect.map(listed(client, instanceId), (instance) => instance?.state === state)
    ),
    listed(client, instanceId)
  )

/** The messages that load busybox under another name. */
export const archive = (name: string) =>
  Effect.map(TestImages.variant(name, { cmd: ["sh", "-c", "true"] }), (recipe) =>
    Stream.concat(
      Stream.make({ part: { case: "header", value: { name } } } as const),
      Stream.map(OciArchive.make([recipe]), (value) => ({ part: { case: "data", value } }) as const)
    ))

/** Loads an image as another program of the node would. */
export const loadBehindItsBack = Effect.fnUntraced(function*(name: string) {
  const recipe = yield* TestImages.variant(name, { cmd: ["sh", "-c", "true"] })
  yield* Images.use((images) => images.load(OciArchive.make([recipe])))
})

/** The ids of the containers that have a network. */
const networksInUse = Effect.gen(function*() {
  const { directory } = yield* PrivateContainerd
  const files = yield* FileSystem.FileSystem
  return yield* Effect.orElseSucceed(files.readDirectory(`${directory}/agent/networks`), (): Array<string> => [])
})

const own = (names: ReadonlyArray<string>) => names.filter((name) => !/anchor|\/agent\/layers\//.test(name))

/** What there is beside agents' own things (anchors, layers, sockets, networks made ahead). */
export const world = Effect.map(Effect.all([census, networksInUse]), ([all, networks]) => ({
  containers: own(all.containers),
  tasks: own(all.tasks),
  snapshots: all.snapshots,
  leases: all.leases,
  mounts: own(all.mounts),
  cgroups: own(all.cgroups),
  runtimeState: own(all.runtimeState),
  networks,
  networkNamespacesTooMany: all.networkNamespaces.slice(slots)
}))

export const logsOf = (client: AgentClient, instanceId: string, follow = false) =>
  client.logs({ instanceId, follow }).pipe(
    Stream.runCollect,
    Effect.map((answers) => answers.flatMap(({ lines }) => lines.map(({ text }) => Buffer.from(text).toString())))
  )

/** Watches into a queue, so that a test can wait for what it is told. */
export const watch = Effect.fnUntraced(function*(client: AgentClient) {
  const events = yield* Queue.unbounded<WatchResponse["event"]>()
  yield* client.watch({}).pipe(Stream.runForEach(({ event }) => Queue.offer(events, event)), Effect.forkScoped)
  const until = <A>(choose: (event: WatchResponse["event"]) => A | undefined): Effect.Effect<A> =>
    Effect.flatMap(Queue.take(events), (event) => {
      const chosen = choose(event)
      return chosen === undefined ? until(choose) : Effect.succeed(chosen)
    })
  return {
    until: <A>(choose: (event: WatchResponse["event"]) => A | undefined) => Effect.timeout(until(choose), "15 seconds")
  }
})

/** Waits for a capacity, at once or later. */
const untilTold = Effect.fnUntraced(function*(client: AgentClient, isWanted: (capacity: Capacity) => boolean) {
  const watched = yield* watch(client)
  return yield* watched.until((event) => {
    const capacity = event.case === "capacityChanged"
      ? event.value
      : event.case === "state"
      ? event.value.capacity
      : undefined
    return capacity !== undefined && isWanted(capacity) ? capacity : undefined
  })
}, Effect.scoped)

/** Waits until what is parked is as wanted. */
export const untilCapacity = (client: AgentClient, isWanted: (parked: Capacity["parked"]) => boolean) =>
  Effect.map(untilTold(client, ({ parked }) => isWanted(parked)), ({ parked }) => parked)

/** Waits until so many slots without an image are parked. */
export const untilBlank = (client: AgentClient, count: number) =>
  untilTold(client, ({ parkedBlank }) => parkedBlank === count)

/** Waits until so many slots of an image are parked. */
export const untilParked = (client: AgentClient, count: number, image = "busybox") =>
  untilCapacity(
    client,
    (parked) => parked.some((one) => one.image === `docker.io/library/${image}:latest` && one.ready === count)
  )
