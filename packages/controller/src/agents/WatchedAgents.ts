/**
 * Agents as their Pods and their own streams show them: for each agent Pod one connection and one Watch stream on it,
 * which is begun again whenever it ends, and taken for dead when it is silent for too long.
 */
import { heartbeatInterval } from "@fast-sandbox/core/AgentProtocol"
import { Unavailable } from "@fast-sandbox/core/Errors"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import { RecentSet } from "@fast-sandbox/core/RecentSet"
import type { Capacity, Instance } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as Kinds from "@fast-sandbox/kube/Kinds"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Reflector from "@fast-sandbox/kube/Reflector"
import type { Change } from "@fast-sandbox/kube/Store"
import * as Instruments from "@fast-sandbox/telemetry/Instruments"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Registry } from "../registry/Registry.ts"
import { AgentAddress, type Endpoint } from "./AgentAddress.ts"
import { type AgentClient, AgentConnector, type SessionClient, SessionConnector } from "./AgentConnector.ts"
import { type AgentChange, Agents, type AgentView, NotConnected } from "./Agents.ts"
import * as AgentViews from "./internal/AgentViews.ts"
import * as ChangeFeed from "./internal/ChangeFeed.ts"

/** A stream that is silent for this long is dead: three heartbeats in a row got lost. */
export const silenceLimit = Duration.times(heartbeatInterval, 3)

/** An agent says what it holds at once; one that does not within this time is tried again. */
export const firstStateLimit = Duration.seconds(5)

/** 100 ms, 200 ms, 400 ms ... capped at 5 s, each scaled by 0.8 to 1.2, without end: agents come back. */
export const reconnectPolicy = Schedule.min([
  Schedule.exponential("100 millis", 2),
  Schedule.spaced("5 seconds")
]).pipe(Schedule.jittered)

/** A short call that an agent answers from memory. */
const shortDeadline = Duration.seconds(10)

/** What ending an instance may take beyond its grace period: the agent proves that everything of it is gone. */
const endDeadline = Duration.seconds(60)

/** Removed instances that are remembered for each agent, so that a late answer does not bring one back. */
const maxRemoved = 1024

const connectionGauge = Instruments.gauge("fsb_controller_agents", "Agent Pods, by connection")

/** What is kept for each agent Pod. */
interface Connection {
  view: AgentView
  pod: Kinds.Pod
  endpoint: Option.Option<Endpoint>
  /** Present while the stream is up. */
  client: Option.Option<AgentClient>
  /** Present with the client. */
  sessions: Option.Option<SessionClient>
  saidDraining: boolean
  /** Instances that were removed since the stream began. */
  removed: RecentSet<string>
  /** Done when the agent has synced or could not be reached once. */
  readonly tried: Deferred.Deferred<void>
}

const instanceOf = (call: string, instance: Instance | undefined): Effect.Effect<Instance, Unavailable> =>
  instance === undefined
    ? Effect.fail(new Unavailable({ target: "the agent", problem: `it answered ${call} without an instance` }))
    : Effect.succeed(instance)

const addressOf = (endpoint: Option.Option<Endpoint>): string | undefined => Option.getOrUndefined(endpoint)?.address

const graceOf = (gracePeriodSeconds: number | undefined) =>
  gracePeriodSeconds === undefined ? {} : { gracePeriodSeconds }

/** Watches agents until the scope closes. */
export const make: Effect.Effect<
  Agents["Service"],
  never,
  KubeClient | AgentAddress | Registry | Scope.Scope
> = Effect.gen(function*() {
  const scope = yield* Effect.scope
  const addresses = yield* AgentAddress
  const connect = yield* AgentConnector
  const connectSessions = yield* SessionConnector
  const registry = yield* Registry
  const pods = yield* Reflector.make(Kinds.Pod, { labelSelector: AgentViews.podSelector })
  const streams = yield* FiberMap.make<string>()
  const connections = new Map<string, Connection>()
  const feed = ChangeFeed.make(() => connections.keys())
  const firstSync = yield* Deferred.make<void>()

  const setView = (connection: Connection, view: AgentView): void => {
    const draining = connection.saidDraining || AgentViews.isPodDraining(connection.pod)
    connection.view = view.draining === draining ? view : { ...view, draining }
  }

  /** The Registry hears of every change before anybody else does, so that a slot is never counted twice or not at all. */
  const tell = (connection: Connection, changes: ReadonlyArray<AgentChange>): Effect.Effect<void> =>
    Effect.suspend(() =>
      connections.get(connection.view.uid) === connection ? registry.upsertAgent(connection.view) : Effect.void
    ).pipe(Effect.map(() => feed.publish(changes)))

  const agentChanged = (connection: Connection) =>
    tell(connection, [{ _tag: "AgentChanged", uid: connection.view.uid }])

  // -------------------------------------------------------------------------------------------------------------------
  // the stream of one agent

  const disconnected = (connection: Connection): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      connection.client = Option.none()
      connection.sessions = Option.none()
      const { view } = connection
      if (view.connection !== "synced") {
        return Effect.void
      }
      setView(connection, { ...view, connection: "stale", since: now })
      return agentChanged(connection)
    })

  /** Follows the agent until its stream breaks. Succeeds with whether the agent had said anything by then. */
  const followOnce = (connection: Connection, endpoint: Endpoint): Effect.Effect<boolean> =>
    Effect.gen(function*() {
      const { address } = endpoint
      const client = yield* connect(endpoint)
      const sessions = yield* connectSessions(endpoint)
      const silent = (limit: Duration.Duration) => () =>
        Stream.fail(
          new Unavailable({ target: address, problem: `it said nothing for ${Duration.format(limit)}` })
        )
      let synced = false
      const messages = client.watch({}).pipe(
        Stream.timeoutOrElse({ duration: silenceLimit, orElse: silent(silenceLimit) })
      )
      const failure = yield* messages.pipe(
        Stream.runForEachArray((batch) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            if (!synced) {
              // No answer from before comes any more, and what the agent did not finish is started again by its old id.
              connection.removed = new RecentSet(maxRemoved)
            }
            connection.client = Option.some(client)
            connection.sessions = Option.some(sessions)
            const followed = AgentViews.follow(connection.view, batch, now, connection.removed)
            for (const instanceId of connection.view.instances.keys()) {
              if (synced && !followed.view.instances.has(instanceId)) {
                connection.removed.add(instanceId)
              }
            }
            synced = true
            connection.saidDraining = followed.saidDraining ?? connection.saidDraining
            setView(connection, followed.view)
            return Effect.andThen(tell(connection, followed.changes), Deferred.succeed(connection.tried, undefined))
          })
        ),
        Effect.raceFirst(
          Effect.sleep(firstStateLimit).pipe(
            Effect.flatMap(() =>
              synced ? Effect.never : new Unavailable({ target: address, problem: "it did not say what it holds" })
            )
          )
        ),
        Effect.result
      )
      yield* failure._tag === "Failure" && synced
        ? Effect.logInfo("the stream of an agent broke", failure.failure)
        : failure._tag === "Failure"
        ? Effect.logDebug("an agent can't be reached", failure.failure)
        : Effect.logInfo("an agent ended its stream")
      return synced
    }).pipe(
      Effect.scoped,
      Effect.ensuring(disconnected(connection)),
      Effect.tap(() => Deferred.succeed(connection.tried, undefined)),
      Effect.annotateLogs({ agent: connection.view.pod, address: endpoint.address })
    )

  /** Follows the agent for ever. The pauses grow until it answers, and start anew after it did. */
  const followForever = (connection: Connection): Effect.Effect<never> =>
    Effect.suspend(() =>
      Option.match(connection.endpoint, {
        onNone: () => Effect.as(Deferred.succeed(connection.tried, undefined), false),
        onSome: (endpoint) => followOnce(connection, endpoint)
      })
    ).pipe(
      Effect.repeat({ schedule: reconnectPolicy, until: (synced) => synced }),
      Effect.andThen(Effect.sleep("100 millis")),
      Effect.forever
    )

  // -------------------------------------------------------------------------------------------------------------------
  // Pods

  const joined = Effect.fnUntraced(function*(pod: Kinds.Pod) {
    const now = yield* Clock.currentTimeMillis
    const connection: Connection = {
      view: AgentViews.ofPod(pod, now),
      pod,
      endpoint: yield* addresses.resolve(pod),
      client: Option.none(),
      sessions: Option.none(),
      saidDraining: false,
      removed: new RecentSet(maxRemoved),
      tried: yield* Deferred.make<void>()
    }
    setView(connection, connection.view)
    connections.set(pod.metadata.uid, connection)
    yield* agentChanged(connection)
    yield* FiberMap.run(streams, pod.metadata.uid, followForever(connection))
  })

  const moved = Effect.fnUntraced(function*(connection: Connection, pod: Kinds.Pod) {
    const endpoint = yield* addresses.resolve(pod)
    connection.pod = pod
    setView(connection, {
      ...connection.view,
      node: connection.view.node === "" ? pod.spec.nodeName ?? "" : connection.view.node
    })
    yield* agentChanged(connection)
    const hasMoved = addressOf(endpoint) !== addressOf(connection.endpoint)
    connection.endpoint = endpoint
    if (hasMoved) {
      yield* FiberMap.run(streams, pod.metadata.uid, followForever(connection))
    }
  })

  const gone = Effect.fnUntraced(function*({ tried, view }: Connection) {
    yield* FiberMap.remove(streams, view.uid)
    connections.delete(view.uid)
    yield* registry.removeAgent(view.uid)
    // Who waits for the first word of every agent must not wait for one that will never say it.
    yield* Deferred.succeed(tried, undefined)
    feed.publish([{ _tag: "AgentGone", uid: view.uid, pod: view.pod, namespace: view.namespace }])
  })

  const takeIn = (change: Change<Kinds.Pod>): Effect.Effect<void> => {
    if (change._tag === "Synced") {
      return Effect.forkIn(
        Effect.forEach([...connections.values()], ({ tried }) => Deferred.await(tried), { discard: true }).pipe(
          Effect.andThen(Deferred.succeed(firstSync, undefined))
        ),
        scope
      )
    }
    const known = connections.get(change.object.metadata.uid)
    if (change._tag === "Deleted") {
      return known === undefined ? Effect.void : gone(known)
    }
    return known === undefined ? joined(change.object) : moved(known, change.object)
  }

  yield* pods.changes.pipe(Stream.runForEach(takeIn), Effect.forkScoped)

  yield* Effect.gen(function*() {
    const counts = { connecting: 0, synced: 0, stale: 0 }
    for (const { view } of connections.values()) {
      counts[view.connection]++
    }
    for (const [connection, count] of Object.entries(counts)) {
      yield* Metric.update(Metric.withAttributes(connectionGauge, { connection }), count)
    }
  }).pipe(Effect.repeat(Schedule.spaced(heartbeatInterval)), Effect.forkScoped)

  // -------------------------------------------------------------------------------------------------------------------
  // calls

  /** A client of an agent that answers, at once or not at all. */
  const connectedBy = <A>(
    uid: string,
    choose: (connection: Connection) => Option.Option<A>
  ): Effect.Effect<readonly [Connection, A], NotConnected> =>
    Effect.suspend(() => {
      const connection = connections.get(uid)
      if (connection === undefined) {
        return Effect.fail(new NotConnected({ target: `agent ${uid}`, problem: "its Pod is gone" }))
      }
      return Option.match(choose(connection), {
        onNone: () =>
          Effect.fail(
            new NotConnected({
              target: `agent ${connection.view.pod}`,
              problem: "there is no connection to it at the moment; try again"
            })
          ),
        onSome: (client) => Effect.succeed([connection, client] as const)
      })
    })

  const connected = (uid: string) => connectedBy(uid, ({ client }) => client)

  /** What an agent answered shows in its view at once, so that whoever asked finds it there. */
  const answered = (connection: Connection, instance: Instance): Effect.Effect<Instance> => {
    const { instanceId } = instance
    if (connection.removed.has(instanceId) || AgentViews.isOlder(instance, connection.view.instances.get(instanceId))) {
      return Effect.succeed(instance)
    }
    setView(connection, AgentViews.withInstance(connection.view, instance))
    return Effect.as(tell(connection, [AgentViews.instanceChange(connection.view.uid, instance)]), instance)
  }

  const forget = (
    connection: Connection,
    instanceId: string,
    capacity: Capacity | undefined
  ): Effect.Effect<void> => {
    const instance = connection.view.instances.get(instanceId)
    connection.removed.add(instanceId)
    setView(connection, AgentViews.withoutInstance(connection.view, instanceId, capacity))
    // the stream may have told the end of the instance already, but not yet the room that it left
    return instance === undefined
      ? agentChanged(connection)
      : tell(connection, [AgentViews.instanceChange(connection.view.uid, instance)])
  }

  /** Of an ending instance: its grace period and what proving its end may take. */
  const endWithin = (
    { view }: Connection,
    instanceId: string,
    gracePeriodSeconds: number | undefined
  ): GrpcClient.CallOptions => ({
    deadline: Duration.sum(
      endDeadline,
      Duration.seconds(
        gracePeriodSeconds ?? view.instances.get(instanceId)?.spec?.terminationGracePeriodSeconds ?? 0
      )
    )
  })

  const onStream = <A>(
    uid: string,
    call: (client: AgentClient) => Stream.Stream<A, BoundaryError>
  ): Stream.Stream<A, BoundaryError> => Stream.unwrap(Effect.map(connected(uid), ([, client]) => call(client)))

  return Agents.of({
    list: Effect.sync(() => Array.from(connections.values(), ({ view }) => view)),
    get: (uid) => Effect.sync(() => Option.map(Option.fromNullishOr(connections.get(uid)), ({ view }) => view)),
    findInstance: (instanceId) =>
      Effect.sync(() => {
        for (const { view } of connections.values()) {
          const instance = view.instances.get(instanceId)
          if (instance !== undefined) {
            return Option.some({ agent: view, instance })
          }
        }
        return Option.none()
      }),
    firstSync: Deferred.await(firstSync),
    changes: feed.changes,
    create: Effect.fnUntraced(function*(uid, request) {
      yield* Effect.annotateCurrentSpan({ "agent.uid": uid, "instance.id": request.instanceId })
      const [connection, client] = yield* connected(uid)
      const { instance } = yield* client.create(request)
      return yield* answered(connection, yield* instanceOf("Create", instance))
    }),
    bind: Effect.fn("Agents.bind")(function*(uid, instanceId, resourceUid) {
      const [connection, client] = yield* connected(uid)
      yield* client.bind({ instanceId, resourceUid }, { deadline: shortDeadline })
      const instance = connection.view.instances.get(instanceId)
      if (instance?.claim !== undefined && instance.claim.resourceUid !== resourceUid) {
        yield* answered(connection, { ...instance, claim: { ...instance.claim, resourceUid } })
      }
    }),
    stop: Effect.fn("Agents.stop")(function*(uid, instanceId, gracePeriodSeconds) {
      const [connection, client] = yield* connected(uid)
      const { instance } = yield* client.stop(
        { instanceId, ...graceOf(gracePeriodSeconds) },
        endWithin(connection, instanceId, gracePeriodSeconds)
      )
      return yield* answered(connection, yield* instanceOf("Stop", instance))
    }),
    delete: Effect.fn("Agents.delete")(function*(uid, instanceId, gracePeriodSeconds) {
      const [connection, client] = yield* connected(uid)
      const capacity = yield* client.delete(
        { instanceId, ...graceOf(gracePeriodSeconds) },
        endWithin(connection, instanceId, gracePeriodSeconds)
      ).pipe(
        Effect.map(({ capacity }) => capacity),
        Effect.catchTag("NotFound", () => Effect.succeed(undefined))
      )
      yield* forget(connection, instanceId, capacity)
    }),
    logs: (uid, request) => onStream(uid, (client) => client.logs(request)),
    sessions: (uid) => Effect.map(connectedBy(uid, ({ sessions }) => sessions), ([, client]) => client),
    pullImage: (uid, image) => onStream(uid, (client) => client.pullImage({ image })),
    loadImage: (uid, archive, name) =>
      onStream(uid, (client) =>
        client.loadImage(
          Stream.concat(
            Stream.succeed({ part: { case: "header" as const, value: { name: name ?? "" } } }),
            Stream.map(archive, (value) => ({ part: { case: "data" as const, value } }))
          )
        )),
    removeImage: Effect.fn("Agents.removeImage")(function*(uid, image) {
      const [, client] = yield* connected(uid)
      yield* client.removeImage({ image }, { deadline: shortDeadline })
    }),
    warm: Effect.fn("Agents.warm")(function*(uid, images) {
      const [, client] = yield* connected(uid)
      yield* client.warm({ warm: { images: [...images] } }, { deadline: shortDeadline })
    })
  })
})

/** Agents as their Pods and their own streams show them; also feeds the Registry. */
export const layer: Layer.Layer<Agents, never, KubeClient | AgentAddress | Registry> = Layer.effect(Agents, make)
