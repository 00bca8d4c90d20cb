/**
 * What the calls of a Fast-Path server take, give and mean.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type {
  ConsistencyMode,
  FailurePolicy,
  Phase,
  SandboxResources,
  SecurityContext,
  Startup
} from "@fast-sandbox/core/Sandbox"
import type * as GrpcConnection from "@fast-sandbox/grpc/GrpcConnection"
import type * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Administration from "./Administration.ts"
import type { CallOptions } from "./CallOptions.ts"
import type * as LogLine from "./LogLine.ts"
import type * as SandboxInfo from "./SandboxInfo.ts"
import type { Session } from "./Session.ts"

export type { CallOptions } from "./CallOptions.ts"

/** Where the server is, and how the client proves itself. */
export interface ConnectOptions {
  /** `unix:/path` or `host:port`. */
  readonly endpoint: string
  /** Sent with every call, as a bearer token. */
  readonly token?: Redacted.Redacted | undefined
  /** Encrypts. Without it the connection is plain text: right for unix sockets and loopback only. */
  readonly tls?: GrpcConnection.Credentials["tls"]
  /** The namespace of calls that name none; `default` by default. */
  readonly namespace?: string | undefined
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
  /** Gives the program a terminal; all its output is stdout then. */
  readonly tty?: boolean | undefined
  /** Keeps stdin open for those who attach. */
  readonly stdin?: boolean | undefined
  readonly exposedPorts?: ReadonlyArray<number> | undefined
  readonly consistencyMode?: ConsistencyMode | undefined
  readonly failurePolicy?: FailurePolicy | undefined
  readonly recoveryTimeoutSeconds?: number | undefined
  readonly expireTime?: DateTime.DateTime.Input | undefined
  /** Seconds from creation to expiry. Not together with `expireTime`. */
  readonly ttlSeconds?: number | undefined
  readonly terminationGracePeriodSeconds?: number | undefined
  readonly resources?: SandboxResources | undefined
  /** What is absent is the pool's. */
  readonly securityContext?: SecurityContext | undefined
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

/** A condition of a sandbox's status, and the status that it is to have. */
export interface ConditionGoal {
  /** Such as `Ready`. */
  readonly type: string
  /** `True`, `False` or `Unknown`. */
  readonly status: string
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
export interface ScopedSandbox extends Created, Session {
  readonly info: Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  readonly wait: (options: Omit<WaitOptions, "namespace">) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  readonly logs: (options?: Omit<LogsOptions, "namespace">) => Stream.Stream<LogLine.LogLine, BoundaryError>
}

/** The calls of a Fast-Path server. */
export interface Calls extends Administration.Administration {
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
  /** Like `wait`, until a condition of the sandbox has that status. */
  readonly waitForCondition: (
    name: string,
    goal: ConditionGoal,
    options?: CallOptions
  ) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  /** Waits by watching until a sandbox is gone. */
  readonly waitForDeletion: (name: string, options?: CallOptions) => Effect.Effect<void, BoundaryError>
  /**
   * Stops a sandbox gracefully and removes it. Answers when the deletion is certain to finish. A forced one kills the
   * program, and does not wait for the proof of its end where its agent does not answer.
   */
  readonly delete: (name: string, options?: Administration.ForceOptions) => Effect.Effect<void, BoundaryError>
  readonly update: (name: string, options: UpdateOptions) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  /** Starts a new instance. */
  readonly reset: (name: string, options?: CallOptions) => Effect.Effect<SandboxInfo.SandboxInfo, BoundaryError>
  /** What can be done inside of a sandbox while it runs. */
  readonly inside: (name: string, options?: Pick<CallOptions, "namespace">) => Session
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
}
