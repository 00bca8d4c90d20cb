/**
 * Sandboxes of a Fast-Path server, as Effects and Streams. Calls fail with the failures that cross a boundary, the same
 * ones that the server failed with.
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const sandboxes = yield* Sandboxes
 *   const sandbox = yield* sandboxes.scoped({ image: "alpine", args: ["echo", "hello"] })
 *   const ended = yield* sandbox.wait({ for: terminal })
 *   return ended.exitCode
 * }).pipe(Effect.scoped, Effect.provide(Sandboxes.layer({ endpoint: "127.0.0.1:9090" })))
 * ```
 */
import {
  type BoundaryError,
  DeadlineExceeded,
  FailedPrecondition,
  type InvalidArgument,
  Unavailable
} from "@fast-sandbox/core/Errors"
import {
  type ConsistencyMode,
  type FailurePolicy,
  type Phase,
  type SandboxResources,
  type Startup,
  terminalPhases
} from "@fast-sandbox/core/Sandbox"
import { FastPathService } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Endpoint from "./Endpoint.ts"
import * as Position from "./internal/position.ts"
import * as Time from "./internal/time.ts"
import * as Waiting from "./internal/waiting.ts"
import * as Wire from "./internal/wire.ts"
import * as LogLine from "./LogLine.ts"
import * as SandboxInfo from "./SandboxInfo.ts"

/** Longest time for calls that only read or record. */
export const DEADLINE: Duration.Input = "30 seconds"

/** Longest time for calls that may pull an image or wait for a program to stop. */
export const LONG_DEADLINE: Duration.Input = "10 minutes"

/** A create carries a request id, so that it may be sent again when its answer got lost. */
const createAgain = Schedule.exponential("100 millis").pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 3 }),
  Schedule.setInputType<BoundaryError>(),
  Schedule.while(({ input }) => input._tag === "Unavailable")
)

/** A server that restarts is back after a few seconds; streams that were under way take up again. */
const resume = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 8 }),
  Schedule.setInputType<BoundaryError>()
)

/** Where the server is, and how the client proves itself. */
export interface ConnectOptions {
  /** `unix:/path` or `host:port`. */
  readonly endpoint: string
  /** Sent with every call, as a bearer token. */
  readonly token?: Redacted.Redacted | undefined
  /** Encrypts. Without it the connection is plain text: right for unix sockets and loopback only. */
  readonly tls?: GrpcClient.Credentials["tls"]
  /** The namespace of calls that name none; `default` by default. */
  readonly namespace?: string | undefined
}

/** What every call may say. */
export interface CallOptions {
  /** Empty or absent: the connection's. */
  readonly namespace?: string | undefined
  /** The call fails with DeadlineExceeded after this time. Streams have none by default. */
  readonly deadline?: Duration.Input | undefined
}

/** What to run. */
export interface CreateOptions extends CallOptions {
  readonly image: string
  /** Absent: one is generated. */
  readonly name?: string | undefined
  /** `default-pool` by default. */
  readonly pool?: string | undefined
  /** Replaces the image's ENTRYPOINT. */
  readonly command?: ReadonlyArray<string> | undefined
  /** Replaces the image's CMD. */
  readonly args?: ReadonlyArray<string> | undefined
  readonly envs?: Readonly<Record<string, string>> | undefined
  readonly workingDir?: string | undefined
  readonly exposedPorts?: ReadonlyArray<number> | undefined
  readonly consistencyMode?: ConsistencyMode | undefined
  readonly failurePolicy?: FailurePolicy | undefined
  readonly recoveryTimeoutSeconds?: number | undefined
  readonly expireTime?: DateTime.DateTime.Input | undefined
  /** Seconds from creation to expiry. Not together with `expireTime`. */
  readonly ttlSeconds?: number | undefined
  readonly terminationGracePeriodSeconds?: number | undefined
  readonly resources?: SandboxResources | undefined
  readonly labels?: Readonly<Record<string, string>> | undefined
  /** The same id and the same request give the first answer again; one is made where absent. */
  readonly requestId?: string | undefined
}

/** The answer to a create: the program was started. */
export interface Created {
  readonly name: string
  readonly namespace: string
  readonly instanceId: string
  readonly agentPod: string
  readonly endpoints: ReadonlyArray<string>
  readonly startup: Startup | undefined
}

/** Which sandboxes. */
export interface ListOptions extends CallOptions {
  /** As kubectl's `-l` has it. */
  readonly labelSelector?: string | undefined
  /** Of all namespaces, whatever `namespace` says. */
  readonly allNamespaces?: true | undefined
}

/** Which sandboxes to watch. */
export interface WatchOptions extends ListOptions {
  /** Only the one of this name. */
  readonly name?: string | undefined
}

/** A change. `Synced` comes once: all that existed when the watch began has been told. */
export type WatchEvent =
  | { readonly _tag: "Added" | "Modified" | "Deleted"; readonly sandbox: SandboxInfo.SandboxInfo }
  | { readonly _tag: "Synced" }

/** What to wait for. */
export interface WaitOptions extends CallOptions {
  /** One of these phases. */
  readonly for: ReadonlySet<Phase>
}

/** What to change. Each part is a call of its own, made in this order; labels go with the first. */
export interface UpdateOptions extends CallOptions {
  /** `never` removes the expiry. */
  readonly expireTime?: DateTime.DateTime.Input | "never" | undefined
  readonly failurePolicy?: FailurePolicy | undefined
  readonly recoveryTimeoutSeconds?: number | undefined
  /** Added to those that are there; an empty value removes a label. */
  readonly labels?: Readonly<Record<string, string>> | undefined
}

/** Which lines. */
export interface LogsOptions extends CallOptions {
  /** Stay until the program ended and everything was told. */
  readonly follow?: boolean | undefined
  /** Only the last lines. */
  readonly tail?: number | undefined
  readonly since?: DateTime.DateTime.Input | undefined
  readonly until?: DateTime.DateTime.Input | undefined
  readonly stream?: LogLine.LogLine["stream"] | undefined
}

/** Whose nodes: those of one pool, or of all. */
export interface ImageOptions extends CallOptions {
  readonly pool?: string | undefined
}

/** An image, and the nodes that hold it. */
export interface ImageInfo {
  /** Normalised: `docker.io/library/alpine:latest`. */
  readonly name: string
  readonly digest: string
  readonly sizeBytes: number
  readonly nodes: ReadonlyArray<string>
}

/** How far one node is with an image. */
export interface ImageProgress {
  readonly node: string
  readonly image: string
  readonly status: "transferring" | "unpacking" | "done"
  readonly currentBytes: number
  /** Absent while it is not known. */
  readonly totalBytes?: number | undefined
  /** Present when done. */
  readonly digest?: string | undefined
}

/** A sandbox that is deleted when its scope closes. */
export interface ScopedSandbox extends Created {
  readonly info: Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  readonly wait: (options: Omit<WaitOptions, "namespace">) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  readonly logs: (options?: Omit<LogsOptions, "namespace">) => Stream.Stream<LogLine.LogLine, BoundaryError>
}

/** The phases in which a program has ended. */
export const terminal: ReadonlySet<Phase> = terminalPhases

/** The phases in which a program runs or has run. */
export const started: ReadonlySet<Phase> = new Set<Phase>(["Running", "Succeeded", "Failed", "Stopped", "Expired"])

/** The calls of a Fast-Path server. */
export class Sandboxes extends Context.Service<Sandboxes, {
  /**
   * Starts a sandbox and answers when its program was started. An answer that got lost is asked for again with the same
   * request id, so that no second sandbox comes of it. Interrupting it deletes what it may have made.
   */
  readonly create: (options: CreateOptions) => Effect.Effect<Created, BoundaryError>
  /** Like `create`, in a scope: when it closes, also by interruption, the sandbox is stopped gracefully and deleted. */
  readonly scoped: (options: CreateOptions) => Effect.Effect<ScopedSandbox, BoundaryError, Scope.Scope>
  readonly get: (name: string, options?: CallOptions) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  readonly list: (options?: ListOptions) => Effect.Effect<ReadonlyArray<SandboxInfo.SandboxInfo>, BoundaryError>
  /** What exists, then `Synced`, then every change. Fails with Unavailable when the server goes away. */
  readonly watch: (options?: WatchOptions) => Stream.Stream<WatchEvent, BoundaryError>
  /**
   * Waits by watching until a sandbox has one of the phases. Outlives a restart of the server. Fails with
   * FailedPrecondition `Ended` when the sandbox reached an end from which it gets to none of them by itself.
   */
  readonly wait: (name: string, options: WaitOptions) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  /** Waits by watching until a sandbox is gone. */
  readonly waitForDeletion: (name: string, options?: CallOptions) => Effect.Effect<void, BoundaryError>
  /** Stops a sandbox gracefully and removes it. Answers when the deletion is certain to finish. */
  readonly delete: (name: string, options?: CallOptions) => Effect.Effect<void, BoundaryError>
  readonly update: (name: string, options: UpdateOptions) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  /** Starts a new instance. */
  readonly reset: (name: string, options?: CallOptions) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  /** What the program printed, in order. When followed, it outlives a restart of the server. */
  readonly logs: (name: string, options?: LogsOptions) => Stream.Stream<LogLine.LogLine, BoundaryError>
  readonly images: {
    readonly list: (options?: ImageOptions) => Effect.Effect<ReadonlyArray<ImageInfo>, BoundaryError>
    readonly pull: (image: string, options?: ImageOptions) => Stream.Stream<ImageProgress, BoundaryError>
    /** Sends an OCI or docker archive. `name` is the image's where the archive does not say one. */
    readonly load: <E, R>(
      archive: Stream.Stream<Uint8Array, E, R>,
      options?: ImageOptions & { readonly name?: string | undefined }
    ) => Stream.Stream<ImageProgress, BoundaryError | E, R>
    /** Gives the nodes that held it. */
    readonly remove: (image: string, options?: ImageOptions) => Effect.Effect<ReadonlyArray<string>, BoundaryError>
  }
}>()("@fast-sandbox/client/Sandboxes") {
  /** Connects with the first call. */
  static readonly layer = (options: ConnectOptions): Layer.Layer<Sandboxes, InvalidArgument> =>
    Layer.effect(
      Sandboxes,
      Effect.gen(function*() {
        const address = yield* Effect.fromResult(Endpoint.parse(options.endpoint))
        const { tls, token } = options
        const api = yield* GrpcClient.makeBoundary(FastPathService, {
          address,
          credentials: { tls, token: token === undefined ? undefined : Effect.succeed(token) }
        })
        return make(api, { address, namespace: options.namespace ?? "" })
      })
    )
}

/** The typed calls that the service is made of. */
type Api = GrpcClient.GrpcClient<typeof FastPathService, BoundaryError>

const newRequestId = Effect.sync(() => crypto.randomUUID())

const within = (options: CallOptions | undefined, deadline?: Duration.Input): GrpcClient.CallOptions => ({
  deadline: options?.deadline ?? deadline
})

/** Whether the create that made a sandbox carried this request id. */
const isMadeBy = (requestId: string, sandbox: SandboxInfo.SandboxInfo): boolean =>
  sandbox.resource.includes(JSON.stringify(requestId))

const make = (
  api: Api,
  connection: { readonly address: string; readonly namespace: string }
): Sandboxes["Service"] => {
  const namespaceOf = (options: CallOptions | undefined): string => options?.namespace || connection.namespace

  /** The names that most requests carry. */
  const reference = (sandboxName: string, options: CallOptions | undefined) => ({
    sandboxName,
    namespace: namespaceOf(options)
  })

  const get = Effect.fn("Sandboxes.get")(function*(name: string, options?: CallOptions) {
    return SandboxInfo.fromWire(yield* api.getSandbox(reference(name, options), within(options, DEADLINE)))
  })

  const list = Effect.fn("Sandboxes.list")(function*(options?: ListOptions) {
    const { items } = yield* api.listSandboxes({
      namespace: options?.allNamespaces ? Wire.ALL_NAMESPACES : namespaceOf(options),
      labelSelector: options?.labelSelector ?? ""
    }, within(options, DEADLINE))
    return items.map(SandboxInfo.fromWire)
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

  const waitForDeletion = Effect.fn("Sandboxes.waitForDeletion")((name: string, options?: CallOptions) =>
    waitUntil(name, options, Waiting.forDeletion)
  )

  const remove = Effect.fn("Sandboxes.delete")(function*(name: string, options?: CallOptions) {
    yield* api.deleteSandbox(reference(name, options), within(options, LONG_DEADLINE))
  })

  const update = Effect.fn("Sandboxes.update")(function*(name: string, options: UpdateOptions) {
    let sandbox: SandboxInfo.SandboxInfo | undefined
    for (const change of Wire.updates(options)) {
      const request = { ...reference(name, options), ...change }
      const response = yield* api.updateSandbox(request, within(options, DEADLINE))
      if (!response.success) {
        return yield* new FailedPrecondition({ reason: "NotUpdated", problem: response.message })
      }
      sandbox = response.sandbox === undefined ? undefined : SandboxInfo.fromWire(response.sandbox)
    }
    return sandbox ?? (yield* get(name, options))
  })

  const reset = Effect.fn("Sandboxes.reset")(function*(name: string, options?: CallOptions) {
    return SandboxInfo.fromWire(
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
        Stream.flatMap(({ lines }) => Stream.fromIterable(lines.map(LogLine.fromWire))),
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

  const create = Effect.fn("Sandboxes.create")(function*(options: CreateOptions) {
    const namespace = namespaceOf(options)
    const requestId = options.requestId ?? (yield* newRequestId)
    const request = Wire.createRequest(options, namespace, requestId)
    const response = yield* api.createSandbox(request, within(options, LONG_DEADLINE)).pipe(
      Effect.retry(createAgain),
      Effect.onInterrupt(() => undo(options, requestId))
    )
    return Wire.created(response, namespace)
  })

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
      info: get(created.name, call),
      wait: (options: Omit<WaitOptions, "namespace">) => wait(created.name, { ...options, ...call }),
      logs: (options?: Omit<LogsOptions, "namespace">) => logs(created.name, { ...options, ...call })
    }
  })

  const images: Sandboxes["Service"]["images"] = {
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

  return { create, scoped, get, list, watch, wait, waitForDeletion, delete: remove, update, reset, logs, images }
}
