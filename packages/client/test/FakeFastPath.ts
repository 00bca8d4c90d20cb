/**
 * A Fast-Path server that runs nothing: what its sandboxes do is written in their arguments. `echo TEXT...` prints and
 * succeeds, `complain TEXT` prints on stderr and exits with 3, `die N` ends by signal N, `serve` prints `ready` and runs
 * until it is stopped (then prints `bye`), `slow` never answers its create.
 */
import {
  AlreadyExists,
  type BoundaryError,
  FailedPrecondition,
  InvalidArgument,
  NotFound,
  ResourceExhausted,
  Unauthenticated,
  Unavailable
} from "@fast-sandbox/core/Errors"
import * as Wire from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import type { CopyToRequest } from "@fast-sandbox/grpc/gen/fastpath/v1/session_pb"
import { GrpcMetadata } from "@fast-sandbox/grpc/GrpcCaller"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import * as HeaderFirst from "@fast-sandbox/grpc/HeaderFirst"
import { Context, Deferred, Effect, Layer, Option, Ref, Stream, SubscriptionRef } from "effect"

interface Line {
  readonly stream: Wire.LogStream
  readonly text: string
}

interface Entry {
  readonly request: Wire.CreateRequest
  readonly instance: number
  readonly phase: string
  readonly exitCode?: number | undefined
  readonly signal?: number | undefined
  readonly reason: string
  readonly message: string
  readonly restarts: number
  readonly labels: Readonly<Record<string, string>>
  readonly lines: ReadonlyArray<Line>
}

type State = ReadonlyMap<string, Entry>

/** Lets a test look into the server and break it. */
export class Fake extends Context.Service<Fake, {
  readonly state: SubscriptionRef.SubscriptionRef<State>
  /** Creates that came in, answered or not. */
  readonly creates: Ref.Ref<ReadonlyArray<Wire.CreateRequest>>
  readonly updates: Ref.Ref<ReadonlyArray<Wire.UpdateRequest>>
  readonly deletes: Ref.Ref<ReadonlyArray<string>>
  readonly loaded: Ref.Ref<number>
  /** What was copied into a sandbox last. */
  readonly archive: Ref.Ref<Uint8Array>
  /** The next so many creates are carried out but their answers get lost. */
  readonly loseAnswers: Ref.Ref<number>
  /** After this many lines each log stream breaks, once. */
  readonly breakLogsAfter: Ref.Ref<number>
  readonly createStarted: Deferred.Deferred<void>
  readonly pools: Ref.Ref<ReadonlyMap<string, unknown>>
  /** What happened to agents, in words. */
  readonly agentCalls: Ref.Ref<ReadonlyArray<string>>
  /** When set, calls must carry it. */
  readonly token: Ref.Ref<string | undefined>
}>()("test/FakeFastPath") {
  static readonly layer: Layer.Layer<Fake> = Layer.effect(
    Fake,
    Effect.gen(function*() {
      return Fake.of({
        state: yield* SubscriptionRef.make<State>(new Map()),
        creates: yield* Ref.make<ReadonlyArray<Wire.CreateRequest>>([]),
        updates: yield* Ref.make<ReadonlyArray<Wire.UpdateRequest>>([]),
        deletes: yield* Ref.make<ReadonlyArray<string>>([]),
        loaded: yield* Ref.make(0),
        archive: yield* Ref.make<Uint8Array>(new Uint8Array()),
        loseAnswers: yield* Ref.make(0),
        breakLogsAfter: yield* Ref.make(0),
        createStarted: yield* Deferred.make<void>(),
        pools: yield* Ref.make<ReadonlyMap<string, unknown>>(
          new Map([["default/default-pool", { spec: { capacity: { poolMin: 1 } } }]])
        ),
        agentCalls: yield* Ref.make<ReadonlyArray<string>>([]),
        token: yield* Ref.make<string | undefined>(undefined)
      })
    })
  )
}

const CREATED_AT_SECONDS = 1_700_000_000n
const BUSY = "busy"

const keyOf = (sandboxName: string, namespace: string) => `${namespace || "default"}/${sandboxName}`

const out = (text: string): Line => ({ stream: Wire.LogStream.STDOUT, text })
const complaint = (text: string): Line => ({ stream: Wire.LogStream.STDERR, text })

/** What a program prints, and how it ends. */
const behave = (args: ReadonlyArray<string>): Partial<Entry> => {
  const [verb = "serve", ...rest] = args
  switch (verb) {
    case "echo":
      return { phase: "Succeeded", exitCode: 0, reason: "Completed", lines: [out(rest.join(" "))] }
    case "complain":
      return {
        phase: "Failed",
        exitCode: 3,
        reason: "Error",
        message: "exit code 3",
        lines: [complaint(rest.join(" "))]
      }
    case "die":
      return { phase: "Failed", signal: Number(rest[0]), reason: "Error", message: `signal ${rest[0]}`, lines: [] }
    case "count":
      return {
        phase: "Succeeded",
        exitCode: 0,
        reason: "Completed",
        lines: Array.from({ length: Number(rest[0]) }, (_, index) => out(`line ${index + 1}`))
      }
    default:
      return { phase: "Running", lines: [out("ready")] }
  }
}

const startup = { tier: "parked", steps: [{ name: "claim", millis: 1.25 }, { name: "exec", millis: 2.5 }] }

const ended = (entry: Entry) => !["Pending", "Running"].includes(entry.phase)

const info = (key: string, entry: Entry) => {
  const [namespace = "", sandboxName = ""] = key.split("/")
  const resource = {
    apiVersion: "sandbox.fast.io/v1alpha1",
    kind: "Sandbox",
    metadata: {
      name: sandboxName,
      namespace,
      annotations: { "fast-sandbox.io/request-id": entry.request.requestId }
    },
    spec: { image: entry.request.image, poolRef: entry.request.poolRef },
    status: { phase: entry.phase }
  }
  return {
    sandboxId: `${sandboxName}-${entry.instance}`,
    sandboxName,
    namespace,
    phase: entry.phase,
    agentPod: "default-pool-agent-abcde",
    nodeName: "node-1",
    endpoints: entry.request.exposedPorts.map((port) => `10.0.0.7:${port}`),
    createdAt: CREATED_AT_SECONDS,
    startedAt: { seconds: CREATED_AT_SECONDS, nanos: 5_000_000 },
    ...(ended(entry) ? { finishedAt: { seconds: CREATED_AT_SECONDS + 2n, nanos: 0 } } : {}),
    image: entry.request.image,
    poolRef: entry.request.poolRef,
    ...(entry.exitCode === undefined ? {} : { exitCode: entry.exitCode }),
    signal: entry.signal ?? 0,
    reason: entry.reason,
    message: entry.message,
    restarts: entry.restarts,
    labels: { ...entry.labels },
    startup,
    resource: new TextEncoder().encode(JSON.stringify(resource))
  }
}

const find = Effect.fnUntraced(function*(sandboxName: string, namespace: string) {
  const { state } = yield* Fake
  const key = keyOf(sandboxName, namespace)
  const entry = (yield* SubscriptionRef.get(state)).get(key)
  if (entry === undefined) return yield* new NotFound({ kind: "sandbox", name: sandboxName })
  return { key, entry }
})

const put = (key: string, entry: Entry) =>
  Fake.use(({ state }) => SubscriptionRef.update(state, (all) => new Map(all).set(key, entry)))

const authorise = Effect.gen(function*() {
  const expected = yield* Ref.get((yield* Fake).token)
  const sent = (yield* GrpcMetadata).get("authorization")
  if (expected !== undefined && sent !== `Bearer ${expected}`) {
    return yield* new Unauthenticated({ problem: "a token is needed; set FSB_TOKEN" })
  }
})

const answer = (key: string, entry: Entry) => {
  const { agentPod, endpoints, namespace, sandboxId, sandboxName } = info(key, entry)
  return { agentPod, endpoints, namespace, sandboxId, sandboxName, startup }
}

const lost = Effect.gen(function*() {
  const { loseAnswers } = yield* Fake
  const left = yield* Ref.getAndUpdate(loseAnswers, (left) => Math.max(0, left - 1))
  if (left > 0) return yield* new Unavailable({ target: "server", problem: "the answer got lost" })
})

const create = Effect.fnUntraced(function*(request: Wire.CreateRequest) {
  yield* authorise
  const { createStarted, creates, state } = yield* Fake
  yield* Ref.update(creates, (all) => [...all, request])
  const name = request.name || `sandbox-${(yield* Ref.get(creates)).length}`
  const key = keyOf(name, request.namespace)
  if (request.image === "") return yield* new InvalidArgument({ field: "image", problem: "must not be empty" })
  const badPort = request.exposedPorts.findIndex((port) => port < 1 || port > 65535)
  if (badPort >= 0) {
    return yield* new InvalidArgument({ field: `exposedPorts[${badPort}]`, problem: "must be between 1 and 65535" })
  }
  if (request.poolRef === BUSY) {
    return yield* new ResourceExhausted({ resource: "slots", problem: "pool busy is full", retryAfterMillis: 1500 })
  }
  if (request.poolRef !== "default-pool") {
    return yield* new NotFound({ kind: "pool", name: request.poolRef, hint: "fsb-ctl pool list shows those there are" })
  }
  if (request.image.includes("nowhere")) {
    return yield* new FailedPrecondition({
      reason: "ImagePullFailed",
      problem: `can't pull ${request.image}: no such host`
    })
  }
  if (request.args[0] === "not-there") {
    return yield* new FailedPrecondition({ reason: "CommandNotFound", problem: "not-there: no such file or directory" })
  }
  const existing = (yield* SubscriptionRef.get(state)).get(key)
  if (existing !== undefined) {
    if (existing.request.requestId === request.requestId) {
      yield* lost
      return answer(key, existing)
    }
    return yield* new AlreadyExists({ kind: "sandbox", name })
  }
  const entry: Entry = {
    request,
    instance: 1,
    phase: "Running",
    reason: "",
    message: "",
    restarts: 0,
    labels: request.labels,
    lines: [],
    ...behave(request.args)
  }
  yield* put(key, entry)
  yield* Deferred.succeed(createStarted, undefined)
  if (request.args[0] === "slow") return yield* Effect.never
  yield* lost
  return answer(key, entry)
})

const update = Effect.fnUntraced(function*(request: Wire.UpdateRequest) {
  const { updates } = yield* Fake
  const { entry, key } = yield* find(request.sandboxName, request.namespace)
  yield* Ref.update(updates, (all) => [...all, request])
  const labels = Object.fromEntries(
    Object.entries({ ...entry.labels, ...request.labels }).filter(([, value]) => value !== "")
  )
  const stops = request.update.case === "expireTimeSeconds" && request.update.value !== 0n &&
    request.update.value < 2_000_000_000n
  const next: Entry = stops && !ended(entry)
    ? { ...entry, labels, phase: "Expired", reason: "Expired", lines: [...entry.lines, out("bye")] }
    : { ...entry, labels }
  yield* put(key, next)
  return { success: true, message: "", sandbox: info(key, next) }
})

const remove = Effect.fnUntraced(function*({ namespace, sandboxName }: Wire.DeleteRequest) {
  const { deletes, state } = yield* Fake
  const { key } = yield* find(sandboxName, namespace)
  yield* Ref.update(deletes, (all) => [...all, key])
  yield* SubscriptionRef.update(state, (all) => new Map([...all].filter(([other]) => other !== key)))
  return { success: true }
})

const reset = Effect.fnUntraced(function*({ namespace, sandboxName }: Wire.ResetRequest) {
  const { entry, key } = yield* find(sandboxName, namespace)
  const next: Entry = { ...entry, instance: entry.instance + 1, restarts: entry.restarts + 1, phase: "Running" }
  yield* put(key, next)
  return info(key, next)
})

const selects = (selector: string, entry: Entry): boolean =>
  selector === "" || selector.split(",").every((pair) => {
    const [key = "", value = ""] = pair.split("=")
    return entry.labels[key] === value
  })

const chosen = (state: State, namespace: string, selector: string, name = "") =>
  [...state].filter(([key, entry]) =>
    (namespace === "*" || key.startsWith(`${namespace || "default"}/`)) && selects(selector, entry) &&
    (name === "" || key.endsWith(`/${name}`))
  )

const differences = (before: State | undefined, after: State, request: Wire.WatchRequest) => {
  const { labelSelector, namespace, sandboxName } = request
  const now = chosen(after, namespace, labelSelector, sandboxName)
  const was = new Map(before === undefined ? [] : chosen(before, namespace, labelSelector, sandboxName))
  const changed = now.filter(([key, entry]) => was.get(key) !== entry).map(([key, entry]) => ({
    type: was.has(key) ? Wire.WatchEvent_Type.MODIFIED : Wire.WatchEvent_Type.ADDED,
    sandbox: info(key, entry)
  }))
  const left = [...was].filter(([key]) => !after.has(key)).map(([key, entry]) => ({
    type: Wire.WatchEvent_Type.DELETED,
    sandbox: info(key, entry)
  }))
  return [...changed, ...left, ...(before === undefined ? [{ type: Wire.WatchEvent_Type.SYNCED }] : [])]
}

const watch = (request: Wire.WatchRequest) =>
  Stream.unwrap(Fake.useSync(({ state }) =>
    SubscriptionRef.changes(state).pipe(
      Stream.mapAccum((): State | undefined => undefined, (before, after) => [
        after,
        differences(before, after, request)
      ])
    )
  ))

/** Line N of a log was printed N milliseconds after the sandbox was created; lines 2 and 3 share a time stamp. */
const timeOf = (index: number) => {
  const millis = index === 2 ? 1 : index
  return { seconds: CREATED_AT_SECONDS + BigInt(Math.floor(millis / 1000)), nanos: millis % 1000 * 1_000_000 }
}

const logs = (request: Wire.LogsRequest) =>
  Stream.unwrap(Effect.gen(function*() {
    const { breakLogsAfter, state } = yield* Fake
    const { key, entry: first } = yield* find(request.sandboxName, request.namespace)
    const breakAfter = yield* Ref.getAndSet(breakLogsAfter, 0)
    const start = request.tailLines === undefined ? 0 : Math.max(0, first.lines.length - Number(request.tailLines))
    const lines = (request.follow ? SubscriptionRef.changes(state) : Stream.succeed(yield* SubscriptionRef.get(state)))
      .pipe(
        Stream.map((all) => Option.fromUndefinedOr(all.get(key))),
        Stream.takeUntil((entry) => Option.isNone(entry) || ended(entry.value)),
        Stream.mapAccum(() => start, (told, entry) => {
          const all = Option.isNone(entry) ? [] : entry.value.lines
          return [Math.max(told, all.length), all.slice(told).map((line, at) => ({ line, index: told + at }))]
        }),
        Stream.map(({ index, line }) => ({
          time: timeOf(index),
          stream: line.stream,
          text: new TextEncoder().encode(line.text),
          partial: false
        })),
        Stream.filter(({ time }) =>
          request.since === undefined || time.seconds > request.since.seconds ||
          (time.seconds === request.since.seconds && time.nanos >= request.since.nanos)
        ),
        Stream.filter(({ stream }) => request.stream === undefined || stream === request.stream),
        Stream.map((line) => ({ lines: [line] }))
      )
    return breakAfter === 0
      ? lines
      : Stream.concat(
        Stream.take(lines, breakAfter),
        Stream.fail(new Unavailable({ target: "server", problem: "it restarts" }))
      )
  }))

const DIGEST = `sha256:${"a".repeat(64)}`

const pull = ({ image }: Wire.PullImageRequest) =>
  image.includes("nowhere")
    ? Stream.fail(new FailedPrecondition({ reason: "ImagePullFailed", problem: `can't pull ${image}: no such host` }))
    : Stream.make(
      { node: "node-1", image, status: "transferring", currentBytes: 512n, totalBytes: 1024n },
      { node: "node-1", image, status: "unpacking", currentBytes: 1024n, totalBytes: 1024n },
      { node: "node-1", image, status: "done", currentBytes: 1024n, totalBytes: 1024n, digest: DIGEST }
    )

const poolInfo = (key: string, pool: unknown) => {
  const [namespace = "", name = ""] = key.split("/")
  return {
    name,
    namespace,
    agentsReady: 1,
    agentsDesired: 2,
    slotsUsed: 3,
    slotsTotal: 10,
    slotsParked: 4,
    createdAt: CREATED_AT_SECONDS,
    problem: "fewer agents answer than are wanted",
    resource: new TextEncoder().encode(JSON.stringify(pool))
  }
}

const findPool = Effect.fnUntraced(function*(name: string, namespace: string) {
  const key = keyOf(name, namespace)
  const pool = (yield* Ref.get((yield* Fake).pools)).get(key)
  return pool === undefined ? yield* new NotFound({ kind: "pool", name: key }) : poolInfo(key, pool)
})

const createPool = Effect.fnUntraced(function*({ resource }: Wire.CreatePoolRequest) {
  const pool = JSON.parse(new TextDecoder().decode(resource))
  const key = keyOf(pool.metadata.name, pool.metadata.namespace)
  yield* Ref.update((yield* Fake).pools, (all) => new Map(all).set(key, pool))
  return poolInfo(key, pool)
})

const scalePool = Effect.fnUntraced(function*({ name, namespace, poolMin }: Wire.ScalePoolRequest) {
  yield* findPool(name, namespace)
  const pool = { spec: { capacity: { poolMin } } }
  yield* Ref.update((yield* Fake).pools, (all) => new Map(all).set(keyOf(name, namespace), pool))
  return poolInfo(keyOf(name, namespace), pool)
})

const deletePool = Effect.fnUntraced(function*({ force, name, namespace }: Wire.DeletePoolRequest) {
  yield* findPool(name, namespace)
  if (name === "default-pool" && !force) {
    return yield* new FailedPrecondition({ reason: "PoolInUse", problem: `pool ${name} holds 3 sandboxes` })
  }
  yield* Ref.update((yield* Fake).pools, (all) => new Map([...all].filter(([key]) => key !== keyOf(name, namespace))))
  return {}
})

const agentInfo = (name: string, state: Wire.AgentInfo_State) => ({
  name,
  namespace: "default",
  poolRef: "default-pool",
  nodeName: "node-1",
  state,
  slotsUsed: 3,
  slotsTotal: 10,
  images: 2,
  since: CREATED_AT_SECONDS,
  notes: ["runs crun"]
})

const moveAgent = (verb: string, state: Wire.AgentInfo_State) =>
  Effect.fnUntraced(function*({ name }: { readonly name: string }) {
    if (name !== "default-pool-agent-abcde") return yield* new NotFound({ kind: "agent", name })
    yield* Ref.update((yield* Fake).agentCalls, (all) => [...all, `${verb} ${name}`])
    return agentInfo(name, state)
  })

const events = ({ follow, kind, name }: Wire.WatchEventsRequest) => {
  const told = [
    { kind: "SandboxPool", name: "default-pool", type: "Normal", reason: "Created", message: "an agent was made" },
    { kind: "Sandbox", name: "web", type: "Normal", reason: "Running", message: "the program runs" },
    { kind: "Sandbox", name: "web", type: "Warning", reason: "OOMKilled", message: "out of memory" }
  ].filter((event) => (kind === "" || event.kind === kind) && (name === "" || event.name === name))
    .map((event, at) => ({
      ...event,
      namespace: "default",
      uid: `uid-${event.name}`,
      count: at + 1,
      first: timeOf(0),
      last: timeOf(at),
      source: "fast-sandbox-controller"
    }))
  return follow ? Stream.concat(Stream.fromIterable(told), Stream.never) : Stream.fromIterable(told)
}

const service = GrpcService.make(Wire.FastPathService, {
  createSandbox: create,
  deleteSandbox: remove,
  updateSandbox: update,
  getSandbox: Effect.fnUntraced(function*({ namespace, sandboxName }: Wire.GetRequest) {
    yield* authorise
    const { entry, key } = yield* find(sandboxName, namespace)
    return info(key, entry)
  }),
  listSandboxes: Effect.fnUntraced(function*({ labelSelector, namespace }: Wire.ListRequest) {
    yield* authorise
    const state = yield* SubscriptionRef.get((yield* Fake).state)
    return { items: chosen(state, namespace, labelSelector).map(([key, entry]) => info(key, entry)) }
  }),
  watchSandboxes: watch,
  resetSandbox: reset,
  logs,
  // `cat` gives its input back, anything else prints its words and exits with the number of them
  exec: (requests) =>
    Stream.unwrap(Effect.gen(function*() {
      const { header, rest } = yield* HeaderFirst.open(requests)
      const { command, sandbox } = header.value
      yield* find(sandbox?.sandboxName ?? "", sandbox?.namespace ?? "")
      const ended = (exitCode: number) => ({ part: { case: "ended", value: { exitCode } } }) as const
      const printed = (value: Uint8Array) => ({ part: { case: "stdout", value } }) as const
      return command[0] === "cat"
        ? Stream.concat(
          Stream.flatMap(
            rest,
            ({ part }) => part.case === "stdin" ? Stream.make(printed(part.value)) : Stream.empty
          ),
          Stream.make(ended(0))
        )
        : Stream.make(printed(new TextEncoder().encode(`${command.join(" ")}\n`)), ended(command.length))
    })),
  // prints `$ ` and gives back what is typed, until control-D
  attach: (requests) =>
    Stream.unwrap(Effect.gen(function*() {
      const { rest } = yield* HeaderFirst.open(requests)
      const printed = (value: Uint8Array) => ({ part: { case: "stdout", value } }) as const
      return Stream.concat(
        Stream.make({ part: { case: "started", value: { tty: true } } } as const, printed(Buffer.from("$ "))),
        rest.pipe(
          Stream.flatMap(({ part }) => part.case === "stdin" ? Stream.make(part.value) : Stream.empty),
          Stream.takeWhile((bytes) => !bytes.includes(4)),
          Stream.map(printed)
        )
      )
    })),
  copyTo: Effect.fnUntraced(function*(requests: Stream.Stream<CopyToRequest, BoundaryError>) {
    const { rest } = yield* HeaderFirst.open(requests)
    const { archive } = yield* Fake
    const parts = yield* Stream.runCollect(rest)
    const bytes = Buffer.concat(parts.flatMap(({ part }) => part.case === "data" ? [part.value] : []))
    yield* Ref.set(archive, bytes)
    return { entries: 1n, bytes: BigInt(bytes.length) }
  }, Effect.scoped),
  // as of a server whose agents are elsewhere
  copyDirectly: () => Stream.fail(new FailedPrecondition({ reason: "NotLocal", problem: "copy through calls" })),
  copyFrom: () => Stream.fromEffect(Effect.map(Fake.use(({ archive }) => Ref.get(archive)), (data) => ({ data }))),
  portForward: (requests) =>
    Stream.map(requests, ({ part }) => ({ data: part.case === "data" ? part.value : new Uint8Array() })),
  stats: () => Stream.make({ cpuNanos: 5n, pids: 2n, readBytes: 7n }),
  processes: () => Effect.succeed({ processes: [{ pid: 1, state: "S", command: ["sleep", "1"] }] }),
  listImages: () =>
    Effect.succeed({
      items: [{ name: "docker.io/library/alpine:latest", digest: DIGEST, sizeBytes: 3_400_000n, nodes: ["node-1"] }]
    }),
  pullImage: pull,
  loadImage: (requests) =>
    Stream.unwrap(Effect.gen(function*() {
      const { loaded } = yield* Fake
      yield* Stream.runForEach(requests, ({ part }) =>
        part.case === "data" ? Ref.update(loaded, (bytes) => bytes + part.value.length) : Effect.void)
      return Stream.make({ node: "node-1", image: "docker.io/library/loaded:latest", status: "done", digest: DIGEST })
    })),
  removeImage: ({ image }) =>
    image === "none"
      ? Effect.fail(new NotFound({ kind: "image", name: image }))
      : Effect.succeed({ nodes: ["node-1"] }),
  listPools: Effect.fnUntraced(function*({ namespace }: Wire.ListPoolsRequest) {
    const pools = yield* Ref.get((yield* Fake).pools)
    return {
      items: [...pools].filter(([key]) => namespace === "*" || key.startsWith(`${namespace || "default"}/`))
        .map(([key, pool]) => poolInfo(key, pool))
    }
  }),
  getPool: ({ name, namespace }) => findPool(name, namespace),
  createPool,
  scalePool,
  deletePool,
  listAgents: () => Effect.succeed({ items: [agentInfo("default-pool-agent-abcde", Wire.AgentInfo_State.READY)] }),
  drainAgent: moveAgent("drain", Wire.AgentInfo_State.DRAINING),
  resumeAgent: moveAgent("resume", Wire.AgentInfo_State.READY),
  watchEvents: events,
  getVersion: () => Effect.succeed({ version: "0.0.9", node: "v24.0.0" })
})

/** The server, and its inside for the tests; on a free port of the loopback, or on a unix socket. */
export const layer = (socket?: string): Layer.Layer<GrpcServer.GrpcServer | Fake, GrpcServer.BindError> =>
  GrpcServer.layer({
    services: [service],
    listeners: [socket === undefined ? GrpcServer.tcp("127.0.0.1", 0) : GrpcServer.unix(socket)],
    grace: "10 millis"
  }).pipe(Layer.provideMerge(Fake.layer))

/** The endpoint of the server. */
export const endpoint: Effect.Effect<string, never, GrpcServer.GrpcServer> = GrpcServer.GrpcServer.useSync(
  ({ addresses }) => addresses[0] ?? ""
)
