/**
 * The real controller in a process of a simulation: everything that it is made of, on a simulated API and simulated
 * agents. It can be stopped, and it can be killed.
 */
import { AgentAddress } from "@fast-sandbox/controller/agents/AgentAddress"
import { AgentConnector } from "@fast-sandbox/controller/agents/AgentConnector"
import * as ControllerLayer from "@fast-sandbox/controller/Controller"
import { Directory } from "@fast-sandbox/controller/fastpath/Directory"
import { FastPath } from "@fast-sandbox/controller/fastpath/FastPath"
import { Placement } from "@fast-sandbox/controller/fastpath/Placement"
import { SandboxLocks } from "@fast-sandbox/controller/fastpath/SandboxLocks"
import { WriteBehind } from "@fast-sandbox/controller/fastpath/WriteBehind"
import { type PoolUsage, Registry } from "@fast-sandbox/controller/registry/Registry"
import { type BoundaryError, Unavailable } from "@fast-sandbox/core/Errors"
import { Traffic } from "@fast-sandbox/core/Traffic"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import type { LeaderElectionOptions } from "@fast-sandbox/kube/LeaderElection"
import type { AgentClient } from "@fast-sandbox/testkit/sim/FaultyAgents"
import type { History } from "@fast-sandbox/testkit/sim/History"
import type { Process } from "@fast-sandbox/testkit/sim/VirtualTime"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Option, References, type Scope } from "effect"

/** What a controller stands on. */
export interface ControllerOptions {
  readonly term: number
  readonly process: Process
  readonly kube: KubeClient["Service"]
  /** Opens a connection to the agent whose Pod has this uid. */
  readonly agents: (uid: string) => Effect.Effect<AgentClient, never, Scope.Scope>
  /** Present where it shares the API with other replicas. */
  readonly leaderElection: LeaderElectionOptions | undefined
  /** Takes up the controller's log, when somebody wants to read it. */
  readonly history: History | undefined
  /** The controller ended by itself. */
  readonly onDeath: (why: string) => void
}

interface Ready {
  readonly fastPath: FastPath["Service"]
  readonly registry: Registry["Service"]
}

const fastPath = FastPath.layer.pipe(
  Layer.provide(WriteBehind.layer),
  Layer.provide(Layer.mergeAll(Placement.layer, SandboxLocks.layer, Traffic.layer)),
  Layer.provideMerge(Directory.layer)
)

/** A running controller. */
export class Controller {
  /** Counts the starts of all controllers of a simulation. */
  readonly term: number
  private readonly fiber: Fiber.Fiber<never>
  private readonly process: Process
  private readonly context: Context.Context<never>
  private readonly ready: Deferred.Deferred<Ready>
  private readonly died: Deferred.Deferred<never, BoundaryError>
  private isEnding = false

  private constructor(options: ControllerOptions) {
    const { agents, kube, leaderElection, onDeath, process } = options
    this.term = options.term
    this.process = process
    this.ready = Deferred.makeUnsafe()
    this.died = Deferred.makeUnsafe()
    const world = Layer.mergeAll(
      Layer.succeed(KubeClient, kube),
      Layer.succeed(
        AgentAddress,
        AgentAddress.of({
          resolve: ({ metadata, status }) =>
            Effect.succeed(
              status?.podIP === undefined ? Option.none() : Option.some({ address: metadata.uid })
            )
        })
      ),
      Layer.succeed(AgentConnector, ({ address }) => agents(address))
    )
    const program = Effect.gen({ self: this }, function*() {
      const services = yield* Layer.build(
        Layer.merge(fastPath, ControllerLayer.controllers({ agentImage: "registry.example/agent:1", leaderElection }))
          .pipe(
            Layer.provideMerge(ControllerLayer.shared),
            Layer.provideMerge(world)
          )
      )
      // As the server does: who is answered before the caches are filled is told that nothing exists.
      yield* Context.get(services, Directory).synced
      yield* Deferred.succeed(this.ready, {
        fastPath: Context.get(services, FastPath),
        registry: Context.get(services, Registry)
      })
      return yield* Effect.never
    }).pipe(Effect.scoped)
    this.context = process.context.pipe(
      Context.add(Logger.CurrentLoggers, new Set(options.history === undefined ? [] : [loggerTo(options.history)])),
      Context.add(References.MinimumLogLevel, options.history === undefined ? "None" : "Debug")
    )
    this.fiber = Effect.runForkWith(this.context)(program)
    this.fiber.addObserver((exit) => {
      if (!this.isEnding) {
        onDeath(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "it was done")
      }
    })
  }

  static start(options: ControllerOptions): Effect.Effect<Controller> {
    return Effect.sync(() => new Controller(options))
  }

  private hangUp(): void {
    this.isEnding = true
    Deferred.doneUnsafe(
      this.died,
      Effect.fail(new Unavailable({ target: "the controller", problem: "the connection broke" }))
    )
  }

  /** Ends it as SIGTERM does. */
  get stop(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.hangUp()
      return Fiber.interrupt(this.fiber)
    })
  }

  /** Ends it as SIGKILL does. */
  readonly kill = (): void => {
    this.hangUp()
    this.process.kill()
  }

  /** A call of a user that the controller serves; when the controller ends, nobody knows what became of the call. */
  call<A>(work: (port: FastPath["Service"]) => Effect.Effect<A, BoundaryError>): Effect.Effect<A, BoundaryError> {
    return Effect.suspend(() => {
      const served = Effect.callback<A, BoundaryError>((resume) => {
        const fiber = Effect.runForkWith(this.context)(
          Effect.flatMap(Deferred.await(this.ready), ({ fastPath }) => work(fastPath))
        )
        fiber.addObserver((exit) => resume(exit))
        return Effect.sync(() => {
          if (!this.process.isDead()) {
            fiber.interruptUnsafe()
          }
        })
      })
      return Effect.raceFirst(served, Deferred.await(this.died))
    })
  }

  /** What it counts. */
  usage(namespace: string, pool: string): Effect.Effect<Option.Option<PoolUsage>> {
    return Effect.flatMap(Deferred.await(this.ready), ({ registry }) => registry.usage(namespace, pool))
  }
}

const loggerTo = (history: History) =>
  Logger.make(({ cause, fiber, logLevel, message }) => {
    const annotations = Object.entries(fiber.getRef(References.CurrentLogAnnotations))
      .map(([name, value]) => `${name}=${String(value)}`).join(" ")
    const text = Array.isArray(message) ? message.map(String).join(" ") : String(message)
    history.note(
      `log: ${logLevel}: ${text} ${annotations}${cause.reasons.length === 0 ? "" : ` ${Cause.pretty(cause)}`}`
    )
  })
