/**
 * One simulation: the real controller on a simulated cluster, with users that act at random and faults of every kind,
 * all drawn from one seed; then peace, and a look at whether the world comes to rest as the API says it is.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import { Unavailable } from "@fast-sandbox/core/Errors"
import { InstanceState } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Kinds from "@fast-sandbox/kube/FastSandbox"
import { Pod } from "@fast-sandbox/kube/Kinds"
import { KubeClient } from "@fast-sandbox/kube/KubeClient"
import { MemoryKube } from "@fast-sandbox/testkit/MemoryKube"
import * as Checker from "@fast-sandbox/testkit/sim/Checker"
import * as Faults from "@fast-sandbox/testkit/sim/Faults"
import { FaultyAgents } from "@fast-sandbox/testkit/sim/FaultyAgents"
import * as FaultyKube from "@fast-sandbox/testkit/sim/FaultyKube"
import { format, History } from "@fast-sandbox/testkit/sim/History"
import { Seed } from "@fast-sandbox/testkit/sim/Seed"
import * as SimCluster from "@fast-sandbox/testkit/sim/SimCluster"
import { epochMillis, Stuck, VirtualTime } from "@fast-sandbox/testkit/sim/VirtualTime"
import * as Workload from "@fast-sandbox/testkit/sim/Workload"
import { Cause, Context, Effect, Exit, Layer, Option } from "effect"
import { Controller, type ControllerOptions } from "./SimController.ts"

/** For how long users act and things break, in milliseconds: drawn between these. */
const chaosMillis = { least: 15_000, most: 45_000 } as const

/** How often the world is looked at once all is well, in milliseconds. */
const lookMillis = 10_000

/** By then all has to be at rest, in milliseconds: the longest pause of a queue, and starts, drains and stops after it. */
const restDeadlineMillis = 900_000

/** How a seed is run. */
export interface RunOptions {
  /** Replicas of the controller: drawn up to this. One alone leads without an election, as on one machine. */
  readonly mostReplicas: number
  /** Keeps the controllers' logs. */
  readonly verbose?: true | undefined
}

/** Short, so that leaders change within a simulation. */
const election = { leaseDuration: "6 seconds", renewDeadline: "4 seconds", retryPeriod: "1 second" } as const

/** What became of a simulation. */
export interface Result {
  readonly seed: number
  readonly mostReplicas: number
  readonly history: History
  readonly violations: ReadonlyArray<Checker.Violation>
  /** Virtual time until the world was at rest, in milliseconds. */
  readonly millis: number
}

const namespaceOf = ({ namespace }: { readonly namespace?: string | undefined }) => namespace ?? ""

/** Runs the simulation of one seed. */
export const run = (number: number, options: RunOptions): Result => {
  const seed = new Seed(number)
  const time = new VirtualTime(seed.fork("time"))
  const history = new History(() => time.now)
  const violations: Array<Checker.Violation> = []
  const online = Checker.watch(history)
  try {
    const exit = time.run(Effect.scoped(simulate(seed, time, history, online, options)))
    if (Exit.isFailure(exit)) {
      violations.push({ at: time.now, invariant: "the simulation itself works", problem: Cause.pretty(exit.cause) })
    } else {
      violations.push(...exit.value)
    }
  } catch (error) {
    if (!(error instanceof Stuck)) {
      throw error
    }
    violations.push({ at: time.now, invariant: "nothing runs in circles or waits for ever", problem: error.message })
  }
  return {
    seed: number,
    mostReplicas: options.mostReplicas,
    history,
    violations: [...online, ...violations],
    millis: time.now
  }
}

const simulate = Effect.fnUntraced(function*(
  seed: Seed,
  time: VirtualTime,
  history: History,
  online: ReadonlyArray<Checker.Violation>,
  { mostReplicas, verbose }: RunOptions
) {
  const scope = yield* Effect.scope
  const services = yield* Layer.build(MemoryKube.layer)
  const memory = Context.get(services, KubeClient)
  const stored = new Map()
  const plan = Faults.draw(seed.fork("plan"))
  history.note(`plan: ${JSON.stringify(plan)}`)
  const outage: FaultyKube.Outage & { isDown: boolean } = { isDown: false }
  const networks: Array<Faults.Network> = []
  let isHealed = false

  const network = (name: string, isDead: () => boolean): Faults.Network => {
    const made = new Faults.Network({
      seed: seed.fork(`network of ${name}`),
      scope,
      world: time.context,
      now: () => time.now,
      isDead
    })
    made.isHealed = isHealed
    networks.push(made)
    return made
  }

  const kubeOf = (name: string, over: Faults.Network) =>
    FaultyKube.make(SimCluster.recording(memory, history, stored, name), {
      network: over,
      plan,
      seed: seed.fork(`watches of ${name}`),
      outage
    })

  const agents = new FaultyAgents(plan)

  yield* Workload.addPools(memory, seed.fork("pools"))
  yield* SimCluster.runKubelets({
    api: SimCluster.recording(memory, history, stored, "kubelet"),
    agents,
    world: { seed: seed.fork("programs"), history, now: () => time.now },
    seed: seed.fork("kubelets")
  })

  // -------------------------------------------------------------------------------------------------------------------
  // the replicas of the controller, each again and again

  let terms = 0
  const replicas = 1 + seed.fork("replicas").below(mostReplicas)
  const controllers = new Map<number, Controller>()
  const startController = Effect.fnUntraced(function*(replica: number) {
    const term = ++terms
    const process = time.process()
    const own = network(`controller ${term}`, process.isDead)
    history.add({ _tag: "ControllerStarted", term })
    const options: ControllerOptions = {
      term,
      process,
      kube: kubeOf(`controller ${term}`, own),
      agents: agents.over(own, seed.fork(`agents of controller ${term}`)),
      leaderElection: replicas === 1
        ? undefined
        : { ...election, name: "controller", namespace: Workload.namespace, identity: `controller-${term}` },
      history: verbose === undefined ? undefined : history,
      onDeath: (why) => history.add({ _tag: "ControllerDied", term, why })
    }
    controllers.set(replica, yield* Controller.start(options))
  })

  const balancer = seed.fork("balancer")
  const fastPath = <A>(call: (port: Workload.FastPathPort) => Effect.Effect<A, BoundaryError>) =>
    Effect.suspend(() =>
      balancer.pick([...controllers.values()])?.call(call) ??
        Effect.fail(new Unavailable({ target: "the controller", problem: "connection refused" }))
    )

  // -------------------------------------------------------------------------------------------------------------------
  // disturbances

  const disturb = Effect.fnUntraced(function*(
    name: string,
    meanMillis: number,
    disturbance: (lots: Seed) => Effect.Effect<void>
  ) {
    const lots = seed.fork(name)
    if (Number.isFinite(meanMillis)) {
      yield* Effect.suspend(() => Effect.sleep(lots.exponential(meanMillis))).pipe(
        Effect.andThen(Effect.suspend(() => isHealed ? Effect.void : disturbance(lots))),
        Effect.forever,
        Effect.forkIn(scope)
      )
    }
  })

  for (let replica = 0; replica < replicas; replica++) {
    yield* startController(replica)
    yield* disturb(`crashes of controller ${replica}`, plan.controllerCrashMillis, (lots) =>
      Effect.gen(function*() {
        const last = controllers.get(replica)
        controllers.delete(replica)
        if (last !== undefined) {
          history.add({ _tag: "ControllerCrashed", term: last.term })
          yield* lots.chance(0.3) ? last.stop : Effect.sync(last.kill)
        }
        yield* Effect.sleep(lots.exponential(2_000))
        yield* startController(replica)
      }))
  }
  yield* disturb("agent crashes", plan.agentCrashMillis, (lots) =>
    Effect.gen(function*() {
      const agent = lots.pick(agents.all)
      if (agent !== undefined && agent.isRunning) {
        history.add({ _tag: "AgentSilent", agent: agent.options.uid })
        history.note(`agent ${agent.options.uid}: crashes`)
        yield* agent.crash
        yield* Effect.sleep(lots.exponential(3_000))
        yield* agent.start
        if (!agents.isSilent(agent.options.uid)) {
          history.add({ _tag: "AgentReachable", agent: agent.options.uid })
        }
      }
    }))
  yield* disturb("agents fall silent", plan.agentSilenceMillis, (lots) =>
    Effect.gen(function*() {
      const agent = lots.pick(agents.all)
      if (agent !== undefined && !agents.isSilent(agent.options.uid)) {
        const { uid } = agent.options
        agents.silence(uid)
        history.add({ _tag: "AgentSilent", agent: uid })
        yield* Effect.sleep(lots.exponential(25_000))
        agents.wake(uid)
        if (agent.isRunning) {
          history.add({ _tag: "AgentReachable", agent: uid })
        }
      }
    }))
  yield* disturb("pods are lost", plan.podLossMillis, (lots) =>
    Effect.gen(function*() {
      const agent = lots.pick(agents.all)
      if (agent !== undefined) {
        history.note(`pod ${agent.options.pod} is deleted by somebody`)
        yield* Workload.losePod(memory, agent.options.pod)
      }
    }))
  yield* disturb("the API is down", plan.apiOutageMillis, (lots) =>
    Effect.gen(function*() {
      outage.isDown = true
      history.note("the API is down")
      yield* Effect.sleep(lots.exponential(8_000))
      outage.isDown = false
      history.note("the API is back")
    }))

  // -------------------------------------------------------------------------------------------------------------------
  // users, then peace

  const users = network("users", () => false)
  yield* Workload.run({
    seed: seed.fork("users"),
    history,
    kube: kubeOf("user", users),
    fastPath,
    millis: seed.fork("length").between(chaosMillis.least, chaosMillis.most)
  })
  isHealed = true
  outage.isDown = false
  for (const made of networks) {
    made.isHealed = true
  }
  for (const agent of agents.all) {
    agents.wake(agent.options.uid)
    yield* agent.start
    history.add({ _tag: "AgentReachable", agent: agent.options.uid })
  }
  history.add({ _tag: "Healed" })

  const census = Effect.gen(function*() {
    const sandboxes = (yield* memory.list(Kinds.Sandbox)).items
    const pools = (yield* memory.list(Kinds.SandboxPool)).items
    const pods = (yield* memory.list(Pod)).items
    const freeSlots = new Map<string, number>()
    const countedFree = new Map<string, number>()
    for (const pool of pools) {
      const key = `${namespaceOf(pool.metadata)}/${pool.metadata.name ?? ""}`
      const own = pods.filter(({ metadata }) => metadata.labels?.["fast-sandbox.io/pool"] === pool.metadata.name)
      let free = 0
      for (const pod of own) {
        const agent = agents.get(pod.metadata.uid)
        const isDraining = pod.metadata.annotations?.["fast-sandbox.io/drain"] !== undefined ||
          pod.metadata.deletionTimestamp !== undefined
        if (agent !== undefined && agent.isRunning && !isDraining) {
          free += agent.options.slots - agent.instances.filter(({ state }) => state !== InstanceState.EXITED).length
        }
      }
      freeSlots.set(key, free)
      for (const controller of controllers.values()) {
        const usage = yield* controller.usage(namespaceOf(pool.metadata), pool.metadata.name ?? "")
        if (Option.isSome(usage) && (countedFree.get(key) ?? free) === free) {
          countedFree.set(key, usage.value.free)
        }
      }
    }
    return Checker.atRest({
      now: time.now,
      sandboxes,
      instances: agents.all.flatMap((agent) =>
        agent.instances.map(({ claim, instanceId, state }) => ({
          instanceId,
          agent: agent.options.uid,
          live: state !== InstanceState.EXITED,
          claimUid: claim?.claimUid ?? "",
          resourceUid: claim?.resourceUid ?? "",
          sandbox: `${claim?.namespace ?? ""}/${claim?.sandboxName ?? ""}`
        }))
      ),
      freeSlots,
      countedFree,
      pinned: new Set()
    })
  })

  for (let waited = 0;; waited += lookMillis) {
    yield* Effect.sleep(lookMillis)
    const problems = yield* census
    if (problems.length === 0 || waited > restDeadlineMillis || online.length > 0) {
      const lost = Checker.neverWritten(history).map((problem) => ({
        at: time.now,
        invariant: "nothing acknowledged is lost",
        problem
      }))
      return online.length > 0 ? [] : [...problems, ...lost]
    }
  }
})

/** What a person needs to understand a failed simulation, and to see it again. */
export const explain = ({ history, mostReplicas, seed, violations }: Result, lines = 60): string =>
  [
    ...violations.map(({ at, invariant, problem }) =>
      `violated at ${((at - epochMillis) / 1000).toFixed(3)}: ${invariant}: ${problem}`
    ),
    "",
    ...history.entries.slice(-lines).map(format),
    "",
    `replay: FSB_SIM_SEED=${seed} FSB_SIM_REPLICAS=${mostReplicas} npx vitest run --project unit packages/local/test/simulation`
  ].join("\n")
