/**
 * An agent without a container: it admits by slots and ports, keeps records, answers over gRPC on a unix socket and
 * tells its watchers every change, as the protocol says. A test can delay, refuse or lose its calls, end programs, and
 * cut and restore its connection; what it holds outlives its connection, as containers outlive their agent.
 */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { heartbeatInterval } from "@fast-sandbox/core/AgentProtocol"
import { type BoundaryError, NotFound, ResourceExhausted } from "@fast-sandbox/core/Errors"
import {
  AgentService,
  type Image,
  ImageSchema,
  type Instance,
  InstanceSchema,
  InstanceState,
  LogStream,
  WarmImagesSchema,
  type WatchResponse,
  WatchResponseSchema
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/** A call, as the gate sees it. */
export interface Call {
  readonly method: "create" | "bind" | "stop" | "delete"
  readonly instanceId: string
}

/** Looks at a call before it takes effect, and again before it is answered. */
export interface Gate {
  readonly before?: ((call: Call) => Effect.Effect<void, BoundaryError>) | undefined
  readonly after?: ((call: Call) => Effect.Effect<void, BoundaryError>) | undefined
}

/** What the agent is. */
export interface Options {
  readonly uid: string
  readonly pod: string
  readonly node: string
  readonly slots: number
  /** The absolute path of its socket. */
  readonly socket: string
  /** Normalised names. */
  readonly images?: ReadonlyArray<string> | undefined
}

/** The test's side of an agent. */
export interface SimulatedAgent {
  readonly options: Options
  /** `unix:` and the path of its socket. */
  readonly address: string
  readonly instances: ReadonlyMap<string, Instance>
  /** Calls that took effect, in order. */
  readonly calls: ReadonlyArray<Call>
  readonly setGate: (gate: Gate) => void
  /** Ends a program by itself. */
  exit(instanceId: string, exitCode: number): Effect.Effect<void>
  /** Forgets an instance without a word, as an agent does that is killed while it starts it. */
  lose(instanceId: string): Effect.Effect<void>
  /** Cuts all connections and listens no more. */
  readonly disconnect: Effect.Effect<void>
  /** Listens again. */
  readonly connect: Effect.Effect<void>
}

const noImages = create(WarmImagesSchema)

const heartbeat = create(WatchResponseSchema, { event: { case: "heartbeat", value: {} } })

const holdsSlot = ({ state }: Instance): boolean => state !== InstanceState.EXITED

/** Starts an agent that listens until the scope closes. */
export const make = Effect.fn("SimulatedAgent.make")(
  function*(options: Options): Effect.fn.Return<SimulatedAgent, never, Scope.Scope> {
    const instances = new Map<string, Instance>()
    const images = new Map<string, Image>(
      (options.images ?? []).map((name) => [name, create(ImageSchema, { name, digest: `sha256:${"0".repeat(64)}` })])
    )
    const calls: Array<Call> = []
    const news = yield* PubSub.unbounded<WatchResponse>()
    let gate: Gate = {}
    let revision = 0n
    let warm = noImages

    const capacity = () => {
      const holders = [...instances.values()].filter(holdsSlot)
      return {
        slots: options.slots,
        slotsUsed: holders.length,
        portsUsed: holders.flatMap(({ spec }) => spec?.exposedPorts ?? []),
        draining: false,
        revision: ++revision
      }
    }

    const tell = (event: NonNullable<MessageInitShape<typeof WatchResponseSchema>["event"]>): void => {
      PubSub.publishUnsafe(news, create(WatchResponseSchema, { event }))
    }

    const put = (instance: Instance): Instance => {
      instances.set(instance.instanceId, instance)
      tell({ case: "instanceChanged", value: instance })
      tell({ case: "capacityChanged", value: capacity() })
      return instance
    }

    const gated = <A>(call: Call, effect: Effect.Effect<A, BoundaryError>): Effect.Effect<A, BoundaryError> =>
      Effect.gen(function*() {
        const { after, before } = gate
        yield* before?.(call) ?? Effect.void
        const answer = yield* effect
        calls.push(call)
        yield* after?.(call) ?? Effect.void
        return answer
      })

    const known = (instanceId: string): Effect.Effect<Instance, NotFound> => {
      const instance = instances.get(instanceId)
      return instance === undefined
        ? Effect.fail(new NotFound({ kind: "instance", name: instanceId }))
        : Effect.succeed(instance)
    }

    const ended = (instance: Instance, end: { readonly reason: string; readonly exitCode: number }) =>
      Effect.map(
        Clock.currentTimeMillis,
        (now) => put({ ...instance, ...end, state: InstanceState.EXITED, finishedAt: timestampFromMs(now) })
      )

    const service = GrpcService.make(AgentService, {
      create: ({ claim, instanceId, spec }) =>
        gated(
          { method: "create", instanceId },
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const first = instances.get(instanceId)
            if (first !== undefined) {
              return Effect.succeed({ instance: first })
            }
            const { portsUsed, slotsUsed } = capacity()
            const port = spec?.exposedPorts.find((port) => portsUsed.includes(port))
            if (slotsUsed >= options.slots || port !== undefined) {
              return Effect.fail(
                new ResourceExhausted({
                  resource: port === undefined ? "slots" : `port ${port}`,
                  problem: `agent ${options.pod} is full`,
                  retryAfterMillis: 1000
                })
              )
            }
            return Effect.succeed({
              instance: put(create(InstanceSchema, {
                instanceId,
                ...(claim === undefined ? {} : { claim }),
                ...(spec === undefined ? {} : { spec }),
                state: InstanceState.RUNNING,
                createdAt: timestampFromMs(now),
                startedAt: timestampFromMs(now),
                startup: { tier: "parked", steps: [{ name: "exec", millis: 1 }] },
                endpoints: (spec?.exposedPorts ?? []).map((port) => `${options.node}:${port}`)
              }))
            })
          })
        ),
      bind: ({ instanceId, resourceUid }) =>
        gated(
          { method: "bind", instanceId },
          Effect.map(known(instanceId), (instance) => {
            if (instance.claim !== undefined) {
              put({ ...instance, claim: { ...instance.claim, resourceUid } })
            }
            return {}
          })
        ),
      stop: ({ instanceId }) =>
        gated(
          { method: "stop", instanceId },
          Effect.flatMap(known(instanceId), (instance) =>
            holdsSlot(instance)
              ? Effect.map(ended(instance, { reason: "Stopped", exitCode: 143 }), (instance) => ({ instance }))
              : Effect.succeed({ instance }))
        ),
      delete: ({ instanceId }) =>
        gated(
          { method: "delete", instanceId },
          Effect.map(known(instanceId), () => {
            instances.delete(instanceId)
            tell({ case: "instanceRemoved", value: { instanceId } })
            const left = capacity()
            tell({ case: "capacityChanged", value: left })
            return { capacity: left }
          })
        ),
      list: () => Effect.sync(() => ({ instances: [...instances.values()] })),
      logs: ({ instanceId }) =>
        Stream.unwrap(Effect.map(known(instanceId), () =>
          Stream.succeed({
            lines: [{ stream: LogStream.STDOUT, text: new TextEncoder().encode(`hello from ${instanceId}`) }]
          }))),
      watch: () =>
        Stream.unwrap(Effect.map(PubSub.subscribe(news), (subscription) =>
          Stream.concat(
            Stream.succeed(create(WatchResponseSchema, {
              event: {
                case: "state",
                value: {
                  agentUid: options.uid,
                  agentName: options.pod,
                  nodeName: options.node,
                  capacity: capacity(),
                  instances: [...instances.values()],
                  images: [...images.values()],
                  warm
                }
              }
            })),
            Stream.fromEffectRepeat(
              PubSub.takeAll(subscription).pipe(
                Effect.timeoutOption(heartbeatInterval),
                Effect.map(Option.getOrElse(() => [heartbeat]))
              )
            ).pipe(Stream.flattenIterable)
          ))),
      pullImage: ({ image }) =>
        Stream.suspend(() => {
          images.set(image, create(ImageSchema, { name: image }))
          tell({ case: "imageAdded", value: { name: image } })
          return Stream.succeed({ image, status: "done" })
        }),
      loadImage: (parts) =>
        Stream.fromEffect(
          Stream.runFold(
            parts,
            () => 0,
            (bytes, { part }) => bytes + (part.case === "data" ? part.value.byteLength : 0)
          )
        ).pipe(
          Stream.map((bytes) => ({ image: "loaded", status: "done", currentBytes: BigInt(bytes) }))
        ),
      removeImage: ({ image }) =>
        Effect.suspend(() => {
          if (!images.delete(image)) {
            return Effect.fail(new NotFound({ kind: "image", name: image }))
          }
          tell({ case: "imageRemoved", value: { name: image } })
          return Effect.succeed({})
        }),
      warm: ({ warm: wanted }) =>
        Effect.sync(() => {
          warm = wanted ?? noImages
          tell({ case: "warmChanged", value: warm })
          return {}
        })
    })

    let listening: Scope.Closeable | undefined
    const disconnect = Effect.suspend(() => {
      const scope = listening
      listening = undefined
      return scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
    })
    const connect = Effect.gen(function*() {
      const scope = yield* Scope.make()
      listening = scope
      yield* Layer.buildWithScope(
        GrpcServer.layer({ services: [service], listeners: [GrpcServer.unix(options.socket)], grace: 0 }),
        scope
      ).pipe(Effect.orDie)
    })
    yield* connect
    yield* Effect.addFinalizer(() => disconnect)

    return {
      options,
      address: `unix:${options.socket}`,
      instances,
      calls,
      setGate: (next) => {
        gate = next
      },
      exit: (instanceId, exitCode) =>
        Effect.flatMap(
          Effect.orDie(known(instanceId)),
          (instance) => Effect.asVoid(ended(instance, { reason: exitCode === 0 ? "Completed" : "Error", exitCode }))
        ),
      lose: (instanceId) => Effect.sync(() => instances.delete(instanceId)),
      disconnect,
      connect
    }
  }
)
