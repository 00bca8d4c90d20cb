/**
 * The calls of a Fast-Path server over gRPC.
 */
import {
  type BoundaryError,
  DeadlineExceeded,
  FailedPrecondition,
  type InvalidArgument,
  Unavailable
} from "@fast-sandbox/core/Errors"
import { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import type * as GrpcConnection from "@fast-sandbox/grpc/GrpcConnection"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ForceOptions } from "../Administration.ts"
import type {
  CallOptions,
  Calls,
  ConditionGoal,
  ConnectOptions,
  CreateOptions,
  ImageOptions,
  ListOptions,
  LogsOptions,
  UpdateOptions,
  WaitOptions,
  WatchEvent,
  WatchOptions
} from "../Calls.ts"
import * as Endpoint from "../Endpoint.ts"
import type * as LogLine from "../LogLine.ts"
import type * as SandboxInfo from "../SandboxInfo.ts"
import * as Administration from "./administration.ts"
import * as DirectCopy from "./directCopy.ts"
import * as Position from "./position.ts"
import * as Session from "./session.ts"
import * as Time from "./time.ts"
import * as Waiting from "./waiting.ts"
import * as Wire from "./wire.ts"

/** Longest time for calls that only read or record. */
const DEADLINE: Duration.Input = "30 seconds"

/** Longest time for calls that may pull an image or wait for a program to stop. */
const LONG_DEADLINE: Duration.Input = "10 minutes"

/** Somebody sits before the client and waits, so a server that hangs must be noticed sooner than between servers. */
const PROBE_MILLIS = 10_000

/** After this time nothing is asked again: a server that hangs is noticed late, and would hang once more. */
const PATIENCE: Duration.Input = "15 seconds"

/** A create carries a request id, so that it may be sent again when its answer got lost. */
const createAgain = Schedule.exponential("100 millis").pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 3, duration: PATIENCE })
)

/** A server that took longer to say that something is unavailable has tried for itself. */
const promptMillis = 5_000

/** A server that restarts is back after a few seconds; streams that were under way take up again. */
const resume = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 8, duration: PATIENCE }),
  Schedule.setInputType<BoundaryError>()
)

/** The typed calls that the service is made of. */
type Api = GrpcConnection.GrpcClient<typeof FastPathService, BoundaryError>

const ORIGIN_BYTES = 16

/**
 * Request ids that nobody else has: a number of the connection's own, which no create has to wait for, and one that
 * counts. Not by `randomUUID`: Node keeps the numbers of its next UUIDs in stock, and a program that starts from a
 * snapshot, as fsb-ctl does, would take the same ones every time.
 */
const makeRequestIds = (): () => string => {
  const origin = Buffer.from(crypto.getRandomValues(new Uint8Array(ORIGIN_BYTES))).toString("hex")
  let count = 0
  return () => `${origin}-${++count}`
}

const within = (options: CallOptions | undefined, deadline?: Duration.Input): GrpcConnection.CallOptions => ({
  deadline: options?.deadline ?? deadline
})

/** Whether the create that made a sandbox carried this request id. */
const isMadeBy = (requestId: string, sandbox: SandboxInfo.SandboxInfo): boolean =>
  sandbox.resource.includes(JSON.stringify(requestId))

const make = (
  api: Api,
  connection: { readonly address: string; readonly namespace: string }
): Calls => {
  const namespaceOf = (options: CallOptions | undefined): string => options?.namespace || connection.namespace

  /** The names that most requests carry. */
  const reference = (sandboxName: string, options: CallOptions | undefined) => ({
    sandboxName,
    namespace: namespaceOf(options)
  })

  const get = Effect.fn("Sandboxes.get")(function*(name: string, options?: CallOptions) {
    return Wire.sandboxInfo(yield* api.getSandbox(reference(name, options), within(options, DEADLINE)))
  })

  const list = Effect.fn("Sandboxes.list")(function*(options?: ListOptions) {
    const { items } = yield* api.listSandboxes({
      namespace: options?.allNamespaces ? Wire.ALL_NAMESPACES : namespaceOf(options),
      labelSelector: options?.labelSelector ?? ""
    }, within(options, DEADLINE))
    return items.map(Wire.sandboxInfo)
  })

  const watch = (options?: WatchOptions): Stream.Stream<WatchEvent, BoundaryError> =>
    api.watchSandboxes({
      namespace: options?.allNamespaces ? Wire.ALL_NAMESPACES : namespaceOf(options),
      sandboxName: options?.name ?? "",
      labelSelector: options?.labelSelector ?? ""
    }, within(options)).pipe(
      Stream.flatMap((event) => Stream.fromIterable(Wire.watchEvent(event)))
    )

  const waitUntil = <A>(name: string, options: CallOptions | undefined, decide: Waiting.Decide<A>) =>
    Effect.suspend(() => {
      let heard = false
      const watched = watch({ name, namespace: options?.namespace }).pipe(
        Stream.mapAccum(
          (): SandboxInfo.SandboxInfo | undefined => undefined,
          (last, event) => {
            heard = true
            return [event._tag === "Synced" ? last : event.sandbox, Option.toArray(decide(last, event))]
          }
        ),
        Stream.runHead,
        Effect.flatMap((outcome): Effect.Effect<A, BoundaryError> =>
          Option.isSome(outcome)
            ? Effect.fromResult(outcome.value)
            : Effect.fail(new Unavailable({ target: connection.address, problem: "it ended the watch; try again" }))
        ),
        Effect.retry({ schedule: resume, while: (error) => heard && error._tag === "Unavailable" })
      )
      return options?.deadline === undefined ? watched : Effect.timeoutOrElse(watched, {
        duration: options.deadline,
        orElse: () => Effect.fail(new DeadlineExceeded({ operation: `waiting for sandbox ${name}` }))
      })
    })

  const wait = Effect.fn("Sandboxes.wait")((name: string, options: WaitOptions) =>
    waitUntil(name, options, Waiting.forPhase(name, options.for))
  )

  const waitForCondition = Effect.fn("Sandboxes.waitForCondition")(
    (name: string, goal: ConditionGoal, options?: CallOptions) =>
      waitUntil(name, options, Waiting.forCondition(name, goal))
  )

  const waitForDeletion = Effect.fn("Sandboxes.waitForDeletion")((name: string, options?: CallOptions) =>
    waitUntil(name, options, Waiting.forDeletion)
  )

  const remove = Effect.fn("Sandboxes.delete")(function*(name: string, options?: ForceOptions) {
    const request = { ...reference(name, options), force: options?.force ?? false }
    yield* api.deleteSandbox(request, within(options, LONG_DEADLINE))
  })

  const update = Effect.fn("Sandboxes.update")(function*(name: string, options: UpdateOptions) {
    let sandbox: SandboxInfo.SandboxInfo | undefined
    for (const change of Wire.updates(options)) {
      const request = { ...reference(name, options), ...change }
      const response = yield* api.updateSandbox(request, within(options, DEADLINE))
      if (!response.success) {
        return yield* new FailedPrecondition({ reason: "NotUpdated", problem: response.message })
      }
      sandbox = response.sandbox === undefined ? undefined : Wire.sandboxInfo(response.sandbox)
    }
    return sandbox ?? (yield* get(name, options))
  })

  const reset = Effect.fn("Sandboxes.reset")(function*(name: string, options?: CallOptions) {
    return Wire.sandboxInfo(
      yield* api.resetSandbox(reference(name, options), within(options, LONG_DEADLINE))
    )
  })

  const logs = (name: string, options?: LogsOptions): Stream.Stream<LogLine.LogLine, BoundaryError> => {
    let position: Position.Position | undefined
    const open = Stream.suspend(() =>
      api.logs({
        ...reference(name, options),
        ...Wire.logsRequest(options),
        ...(position === undefined ? {} : { since: Time.fromText(position.time), tailLines: undefined })
      }, within(options)).pipe(
        Stream.flatMap(({ lines }) => Stream.fromIterable(lines.map(Wire.logLine))),
        Stream.filter(Position.isNew(position)),
        Stream.map((line) => {
          position = Position.advance(position, line)
          return line
        })
      )
    )
    return options?.follow
      ? Stream.retry(
        open,
        Schedule.while(resume, ({ input }) => position !== undefined && input._tag === "Unavailable")
      )
      : open
  }

  /** What an interrupted create may have left: only what carries its request id is ours to delete. */
  const undo = Effect.fnUntraced(function*(options: CreateOptions, requestId: string) {
    const call = { namespace: options.namespace }
    const candidates = options.name ? [yield* get(options.name, call)] : yield* list(call)
    for (const candidate of candidates) {
      if (isMadeBy(requestId, candidate)) yield* remove(candidate.name, call)
    }
  }, (effect) => Effect.ignore(effect))

  const newRequestId = makeRequestIds()

  const create = Effect.fnUntraced(function*(options: CreateOptions) {
    const namespace = namespaceOf(options)
    const requestId = options.requestId ?? newRequestId()
    const request = Wire.createRequest(options, namespace, requestId)
    let askedAt = 0
    const ask = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      askedAt = now
      return api.createSandbox(request, within(options, LONG_DEADLINE))
    })
    const isWorthwhile = (error: BoundaryError) =>
      Effect.map(
        Clock.currentTimeMillis,
        (now) => error._tag === "Unavailable" && (error.target === connection.address || now - askedAt < promptMillis)
      )
    const response = yield* ask.pipe(
      Effect.retry({ schedule: createAgain, while: isWorthwhile }),
      Effect.onInterrupt(() => undo(options, requestId))
    )
    return Wire.created(response, namespace)
  }, (effect) => Effect.withSpan(effect, "Sandboxes.create", { captureStackTrace: false }))

  const direct = DirectCopy.make(api, connection.address)

  const inside: Calls["inside"] = (name, options) => Session.make(api, reference(name, options), direct)

  const scoped = Effect.fn("Sandboxes.scoped")(function*(options: CreateOptions) {
    const created = yield* Effect.acquireRelease(
      create(options),
      ({ name, namespace }) =>
        remove(name, { namespace }).pipe(
          Effect.catchTag("NotFound", () => Effect.void),
          Effect.ignore({ log: "Warn" })
        ),
      { interruptible: true }
    )
    const call = { namespace: created.namespace }
    return {
      ...created,
      ...inside(created.name, call),
      info: get(created.name, call),
      wait: (options: Omit<WaitOptions, "namespace">) => wait(created.name, { ...options, ...call }),
      logs: (options?: Omit<LogsOptions, "namespace">) => logs(created.name, { ...options, ...call })
    }
  })

  const images: Calls["images"] = {
    list: Effect.fn("Sandboxes.images.list")(function*(options?: ImageOptions) {
      const { items } = yield* api.listImages(
        { poolRef: options?.pool ?? "", namespace: namespaceOf(options) },
        within(options, DEADLINE)
      )
      return items.map(Wire.imageInfo)
    }),
    pull: (image, options) =>
      api.pullImage({ image, poolRef: options?.pool ?? "", namespace: namespaceOf(options) }, within(options)).pipe(
        Stream.map(Wire.imageProgress)
      ),
    load: (archive, options) =>
      api.loadImage(
        Stream.concat(
          Stream.succeed(Wire.loadHeader({
            poolRef: options?.pool ?? "",
            namespace: namespaceOf(options),
            name: options?.name ?? ""
          })),
          Stream.map(archive, Wire.loadData)
        ),
        within(options)
      ).pipe(Stream.map(Wire.imageProgress)),
    remove: Effect.fn("Sandboxes.images.remove")(function*(image: string, options?: ImageOptions) {
      const { nodes } = yield* api.removeImage(
        { image, poolRef: options?.pool ?? "", namespace: namespaceOf(options) },
        within(options, LONG_DEADLINE)
      )
      return nodes
    })
  }

  const administration = Administration.make({ api, namespaceOf, within: (options) => within(options, DEADLINE) })

  return {
    create,
    scoped,
    get,
    list,
    watch,
    wait,
    waitForCondition,
    waitForDeletion,
    delete: remove,
    update,
    reset,
    inside,
    logs,
    images,
    ...administration
  }
}

/** A connection; it is made with the first call and lives as long as the scope. */
export const connect = Effect.fnUntraced(function*(
  options: ConnectOptions
): Effect.fn.Return<Calls, InvalidArgument, Scope.Scope> {
  const address = yield* Effect.fromResult(Endpoint.parse(options.endpoint))
  const { tls, token } = options
  const api = yield* GrpcClient.makeBoundary(FastPathService, {
    address,
    credentials: { tls, token: token === undefined ? undefined : Effect.succeed(token) },
    probeMillis: PROBE_MILLIS
  })
  return make(api, { address, namespace: options.namespace ?? "" })
})
