/**
 * An agent without containers, as agent.v1 describes it: it admits by slots and ports, starts and ends programs in its
 * own time, answers repeats as it answered first, keeps records until they are deleted, and tells its watchers every
 * change. Its process can crash and come back (what runs goes on), and its node can be lost with everything.
 *
 * It records what really happens, whoever hears of it.
 */
import { create as message, equals, type MessageInitShape } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { heartbeatInterval } from "@fast-sandbox/core/AgentProtocol"
import {
  AlreadyExists,
  type BoundaryError,
  FailedPrecondition,
  NotFound,
  ResourceExhausted,
  Unavailable
} from "@fast-sandbox/core/Errors"
import { RecentSet } from "@fast-sandbox/core/RecentSet"
import {
  type Claim,
  ClaimSchema,
  type CreateRequest,
  CreateRequestSchema,
  type Instance,
  InstanceSchema,
  InstanceSpecSchema,
  InstanceState,
  type WatchResponse,
  WatchResponseSchema
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import type { History } from "./History.ts"
import type { Seed } from "./Seed.ts"

/** What an agent is. */
export interface SimAgentOptions {
  readonly uid: string
  readonly pod: string
  readonly node: string
  readonly slots: number
}

/** The world that an agent lives in. */
export interface SimAgentWorld {
  readonly seed: Seed
  readonly history: History
  readonly now: () => number
}

/** A start takes this long, most of the time, in milliseconds. */
const startMillis = 30

/** A start that has to pull its image, in milliseconds. */
const coldStartMillis = 4_000

const coldStarts = 0.1

/** Deleted instances that it remembers; more than a simulation has. */
const maxForbidden = 10_000

/** Images whose programs can't be started. */
const brokenImage = "docker.io/library/broken:latest"

const live = (instance: Instance): boolean => instance.state !== InstanceState.EXITED

const unbound = (claim: Claim | undefined): Claim =>
  claim === undefined ? message(ClaimSchema) : { ...claim, resourceUid: "" }

const isSame = (request: CreateRequest, known: Instance): boolean =>
  equals(
    InstanceSpecSchema,
    request.spec ?? message(InstanceSpecSchema),
    known.spec ?? message(InstanceSpecSchema)
  ) && equals(ClaimSchema, unbound(request.claim), unbound(known.claim))

/** How a program ends by itself; its image says so. */
const endingOf = (image: string): { readonly exitCode: number; readonly reason: string } | undefined =>
  image.includes("/job")
    ? { exitCode: 0, reason: "Completed" }
    : image.includes("/crash")
    ? { exitCode: 1, reason: "Error" }
    : image.includes("/hungry")
    ? { exitCode: 137, reason: "OOMKilled" }
    : undefined

/** How long a program that ends by itself runs, in milliseconds. */
const runMillis = 8_000

/** What the process of the agent knows and what is running are two things: the second one outlives the first. */
interface Running {
  instance: Instance
  /** Done when nothing of the instance runs any more. */
  readonly ended: Deferred.Deferred<void>
  isStopRequested: boolean
}

/** One agent. */
export class SimAgent {
  readonly options: SimAgentOptions
  private readonly world: SimAgentWorld
  private readonly seed: Seed
  private readonly table = new Map<string, Running>()
  private readonly creations = new Map<string, Fiber.Fiber<Instance, BoundaryError>>()
  /** Deleted instances, as its process knows them. */
  private forbidden = new RecentSet<string>(maxForbidden)
  private readonly watchers = new Set<Queue.Queue<WatchResponse, Cause.Done | BoundaryError>>()
  /** The node: programs end with it. */
  private readonly node: Scope.Closeable
  /** The agent's process: what it does ends with it. */
  private process: Scope.Closeable | undefined
  private isDraining = false
  private revision = 0n
  isGone = false
  /** How often its process was started: what was sent to one process never reaches the next. */
  starts = 0

  private constructor(options: SimAgentOptions, world: SimAgentWorld, node: Scope.Closeable) {
    this.options = options
    this.world = world
    this.seed = world.seed.fork(`agent ${options.uid}`)
    this.node = node
  }

  /** An agent whose process is not started yet. */
  static make(options: SimAgentOptions, world: SimAgentWorld, scope: Scope.Scope): Effect.Effect<SimAgent> {
    return Effect.map(Scope.fork(scope), (node) => new SimAgent(options, world, node))
  }

  /** All instances that it has. */
  get instances(): ReadonlyArray<Instance> {
    return Array.from(this.table.values(), ({ instance }) => instance)
  }

  get isRunning(): boolean {
    return this.process !== undefined
  }

  // -------------------------------------------------------------------------------------------------------------------
  // the process and the node

  /** Starts the process; what was going to end when the last one crashed is ended now. */
  readonly start: Effect.Effect<void> = Effect.gen({ self: this }, function*() {
    if (this.isGone || this.process !== undefined) {
      return
    }
    const process = yield* Scope.fork(this.node)
    this.process = process
    this.starts++
    this.forbidden = new RecentSet(maxForbidden)
    yield* Effect.forEach(
      [...this.table.values()].filter(({ instance }) => instance.state === InstanceState.STOPPING),
      (running) => Effect.forkIn(this.terminate(running), process),
      { discard: true }
    )
    yield* Effect.forkIn(
      Effect.forever(Effect.andThen(
        Effect.sleep(heartbeatInterval),
        Effect.sync(() => this.tell({ case: "heartbeat", value: {} }))
      )),
      process
    )
  })

  /** Ends the process without a word. A start that was under way is unmade by the next one. */
  readonly crash: Effect.Effect<void> = Effect.gen({ self: this }, function*() {
    const { process } = this
    this.process = undefined
    if (process === undefined) {
      return
    }
    for (const watcher of this.watchers) {
      Queue.failCauseUnsafe(watcher, Cause.fail(this.broken))
    }
    this.watchers.clear()
    this.creations.clear()
    yield* Scope.close(process, Exit.void)
    for (const running of this.table.values()) {
      if (running.instance.state === InstanceState.CREATING) {
        this.forget(running, "the agent crashed during its start")
      }
    }
  })

  /** The Pod goes, and everything with it. */
  readonly remove: Effect.Effect<void> = Effect.gen({ self: this }, function*() {
    yield* this.crash
    this.isGone = true
    for (const running of this.table.values()) {
      this.forget(running, "its node was taken away")
    }
    this.world.history.add({ _tag: "AgentGone", agent: this.options.uid })
    yield* Scope.close(this.node, Exit.void)
  })

  /** Admits nothing more. */
  drain(): void {
    this.isDraining = true
    this.tell({ case: "capacityChanged", value: this.capacity() })
  }

  /** What a caller hears when there is nobody. */
  private get broken(): BoundaryError {
    return new Unavailable({ target: this.options.pod, problem: "the connection broke" })
  }

  // -------------------------------------------------------------------------------------------------------------------
  // calls

  /** Runs in the process: a caller that goes away does not end it, a crash does. */
  private inProcess<A>(effect: Effect.Effect<A, BoundaryError>): Effect.Effect<A, BoundaryError> {
    return Effect.suspend(() =>
      this.process === undefined
        ? Effect.fail(this.broken)
        : Effect.flatMap(Effect.forkIn(effect, this.process), (fiber) =>
          Effect.catchCause(
            Fiber.join(fiber),
            (cause) => Cause.hasInterruptsOnly(cause) ? Effect.fail(this.broken) : Effect.failCause(cause)
          ))
    )
  }

  create(init: MessageInitShape<typeof CreateRequestSchema>): Effect.Effect<Instance, BoundaryError> {
    const request = message(CreateRequestSchema, init)
    return this.inProcess(Effect.suspend(() => {
      const known = this.table.get(request.instanceId)
      if (this.forbidden.has(request.instanceId)) {
        return Effect.fail(
          new FailedPrecondition({
            reason: "InstanceDeleted",
            problem: "the instance was deleted before it was created"
          })
        )
      }
      if (known === undefined) {
        return this.begin(request)
      }
      if (!isSame(request, known.instance)) {
        return Effect.fail(
          new AlreadyExists({ kind: "instance", name: request.instanceId, hint: "it has another claim or spec" })
        )
      }
      const creation = this.creations.get(request.instanceId)
      return creation === undefined ? Effect.succeed(known.instance) : Fiber.join(creation)
    }))
  }

  private begin(request: CreateRequest): Effect.Effect<Instance, BoundaryError> {
    const { process } = this
    const { claim, instanceId, spec } = request
    const ports = spec?.exposedPorts ?? []
    const capacity = this.capacity()
    const port = ports.find((port) => capacity.portsUsed.includes(port))
    if (process === undefined) {
      return Effect.fail(this.broken)
    }
    if (this.isDraining || capacity.slotsUsed >= capacity.slots || port !== undefined) {
      return Effect.fail(
        new ResourceExhausted({
          resource: port === undefined ? "slots" : `port ${port}`,
          problem: `agent ${this.options.pod} has none`,
          retryAfterMillis: 1_000
        })
      )
    }
    const running: Running = {
      instance: message(InstanceSchema, {
        instanceId,
        ...(claim === undefined ? {} : { claim }),
        ...(spec === undefined ? {} : { spec }),
        state: InstanceState.CREATING,
        createdAt: timestampFromMs(this.world.now()),
        endpoints: ports.map((port) => `${this.options.node}:${port}`)
      }),
      ended: Deferred.makeUnsafe(),
      isStopRequested: false
    }
    this.table.set(instanceId, running)
    this.world.history.add({
      _tag: "InstanceAdmitted",
      instance: {
        instanceId,
        agent: this.options.uid,
        namespace: claim?.namespace ?? "",
        name: claim?.sandboxName ?? "",
        claimUid: claim?.claimUid ?? "",
        resourceUid: claim?.resourceUid ?? "",
        ports
      }
    })
    this.put(running, {})
    const seed = this.seed
    const takes = seed.exponential(seed.chance(coldStarts) ? coldStartMillis : startMillis)
    const launch = Effect.sleep(takes).pipe(
      Effect.andThen(Effect.suspend(() =>
        spec?.image === brokenImage
          ? Effect.fail(new FailedPrecondition({ reason: "ImageNotRunnable", problem: "the program can't be started" }))
          : Effect.succeed(this.put(running, {
            state: InstanceState.RUNNING,
            startedAt: timestampFromMs(this.world.now()),
            startup: message(InstanceSchema, { startup: { tier: "parked", steps: [] } }).startup
          }))
      )),
      Effect.tap(Effect.forkIn(this.program(running), this.node)),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          this.creations.delete(instanceId)
          if (Exit.isFailure(exit) && this.process === process && this.table.get(instanceId) === running) {
            this.forget(running, "its start failed")
          }
        })
      )
    )
    return Effect.flatMap(Effect.forkIn(launch, process), (fiber) => {
      this.creations.set(instanceId, fiber)
      return Fiber.join(fiber)
    })
  }

  bind({ instanceId = "", resourceUid = "" }): Effect.Effect<void, BoundaryError> {
    return this.inProcess(Effect.suspend(() => {
      const running = this.table.get(instanceId)
      if (running === undefined) {
        return Effect.fail(new NotFound({ kind: "instance", name: instanceId }))
      }
      const { claim } = running.instance
      if (claim !== undefined && claim.resourceUid !== resourceUid) {
        this.world.history.add({ _tag: "InstanceBound", agent: this.options.uid, instanceId, resourceUid })
        this.put(running, { claim: { ...claim, resourceUid } })
      }
      return Effect.void
    }))
  }

  stop({ instanceId = "" }): Effect.Effect<Instance, BoundaryError> {
    const absent = () => Effect.fail(new NotFound({ kind: "instance", name: instanceId }))
    return this.inProcess(Effect.suspend(() => {
      const running = this.table.get(instanceId)
      if (running === undefined) {
        return absent()
      }
      const creation = this.creations.get(instanceId)
      return (creation === undefined ? Effect.void : Fiber.await(creation)).pipe(
        Effect.andThen(Effect.suspend(() => this.holds(running) ? this.terminate(running) : absent())),
        Effect.map(() => running.instance)
      )
    }))
  }

  delete({ instanceId = "" }): Effect.Effect<void, BoundaryError> {
    return this.inProcess(Effect.suspend(() => {
      const running = this.table.get(instanceId)
      this.forbidden.add(instanceId)
      if (running === undefined) {
        return Effect.fail(new NotFound({ kind: "instance", name: instanceId }))
      }
      const creation = this.creations.get(instanceId)
      return (creation === undefined ? Effect.void : Fiber.interrupt(creation)).pipe(
        Effect.andThen(this.terminate(running)),
        Effect.map(() => this.forget(running, "deleted"))
      )
    }))
  }

  /** Its state, then every change of it. Fails when the process ends. */
  readonly watch: Effect.Effect<Queue.Dequeue<WatchResponse, Cause.Done | BoundaryError>, BoundaryError, Scope.Scope> =
    Effect.suspend(() =>
      this.process === undefined ? Effect.fail(this.broken) : Effect.acquireRelease(
        Effect.map(Queue.unbounded<WatchResponse, Cause.Done | BoundaryError>(), (watcher) => {
          const { node, pod, uid } = this.options
          this.watchers.add(watcher)
          Queue.offerUnsafe(
            watcher,
            message(WatchResponseSchema, {
              event: {
                case: "state",
                value: {
                  agentUid: uid,
                  agentName: pod,
                  nodeName: node,
                  capacity: this.capacity(),
                  instances: [...this.instances]
                }
              }
            })
          )
          return watcher
        }),
        (watcher) =>
          Effect.sync(() => {
            this.watchers.delete(watcher)
          })
      )
    )

  // -------------------------------------------------------------------------------------------------------------------
  // inside

  private holds(running: Running): boolean {
    return this.table.get(running.instance.instanceId) === running
  }

  private capacity() {
    const holders = this.instances.filter(live)
    return {
      slots: this.options.slots,
      slotsUsed: holders.length,
      portsUsed: holders.flatMap(({ spec }) => spec?.exposedPorts ?? []),
      draining: this.isDraining,
      revision: ++this.revision
    }
  }

  private tell(event: NonNullable<MessageInitShape<typeof WatchResponseSchema>["event"]>): void {
    if (this.watchers.size > 0) {
      const response = message(WatchResponseSchema, { event })
      for (const watcher of this.watchers) {
        Queue.offerUnsafe(watcher, response)
      }
    }
  }

  private put(running: Running, change: Partial<Instance>): Instance {
    running.instance = { ...running.instance, ...change }
    if (this.process !== undefined) {
      this.tell({ case: "instanceChanged", value: running.instance })
      this.tell({ case: "capacityChanged", value: this.capacity() })
    }
    return running.instance
  }

  private end(running: Running, reason: string, exitCode: number): void {
    if (!live(running.instance) || !this.holds(running)) {
      return
    }
    const { instanceId } = running.instance
    this.world.history.add({ _tag: "InstanceEnded", agent: this.options.uid, instanceId, why: reason })
    Deferred.doneUnsafe(running.ended, Effect.void)
    this.put(running, {
      state: InstanceState.EXITED,
      reason,
      exitCode,
      finishedAt: timestampFromMs(this.world.now())
    })
  }

  private forget(running: Running, why: string): void {
    const { instanceId } = running.instance
    if (!this.holds(running)) {
      return
    }
    if (live(running.instance)) {
      this.world.history.add({ _tag: "InstanceEnded", agent: this.options.uid, instanceId, why })
      Deferred.doneUnsafe(running.ended, Effect.void)
    }
    this.table.delete(instanceId)
    this.world.history.add({ _tag: "InstanceForgotten", agent: this.options.uid, instanceId })
    this.tell({ case: "instanceRemoved", value: { instanceId } })
    this.tell({ case: "capacityChanged", value: this.capacity() })
  }

  private program(running: Running): Effect.Effect<void> {
    const ending = endingOf(running.instance.spec?.image ?? "")
    return ending === undefined
      ? Effect.void
      : Effect.sleep(this.seed.exponential(runMillis)).pipe(
        Effect.map(() => this.end(running, running.isStopRequested ? "Stopped" : ending.reason, ending.exitCode))
      )
  }

  /** Asks the program to end, and makes it when its grace period is over. */
  private terminate(running: Running): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (!live(running.instance) || !this.holds(running)) {
        return Effect.void
      }
      const grace = (running.instance.spec?.terminationGracePeriodSeconds ?? 0) * 1000
      const takes = this.seed.chance(0.8) ? this.seed.exponential(50) : grace
      running.isStopRequested = true
      if (running.instance.state !== InstanceState.STOPPING) {
        this.put(running, { state: InstanceState.STOPPING })
      }
      return Effect.sleep(Math.min(takes, grace)).pipe(
        Effect.map(() => this.end(running, "Stopped", takes < grace ? 143 : 137)),
        Effect.raceFirst(Deferred.await(running.ended))
      )
    })
  }
}
