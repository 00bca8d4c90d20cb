/**
 * Pools, the agents that serve them, and what is told of all of these.
 */
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type { PoolCapacity, SandboxPoolSpec } from "@fast-sandbox/core/SandboxPool"
import type * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { CallOptions } from "./CallOptions.ts"

/** Of which namespaces. */
export interface ScopeOptions extends CallOptions {
  /** Of all namespaces, whatever `namespace` says. */
  readonly allNamespaces?: true | undefined
}

/** A pool at one moment. */
export interface PoolInfo {
  readonly name: string
  readonly namespace: string
  readonly agents: { readonly ready: number; readonly desired: number }
  readonly slots: { readonly used: number; readonly total: number; readonly parked: number }
  readonly createdAt: DateTime.Utc
  /** Why it does not have what it wants, for a person; empty: it has. */
  readonly problem: string
  /** The whole SandboxPool resource as JSON text, as the Kubernetes API shows it. */
  readonly resource: string
}

/** A pool to be made. */
export interface PoolOptions extends CallOptions {
  readonly spec: SandboxPoolSpec
  readonly labels?: Readonly<Record<string, string>> | undefined
}

/** Which agents. */
export interface AgentOptions extends ScopeOptions {
  /** Of one pool only. */
  readonly pool?: string | undefined
}

/** An agent at one moment. */
export interface AgentInfo {
  /** The name of its Pod. */
  readonly name: string
  readonly namespace: string
  readonly pool: string
  readonly node: string
  /** Draining: it takes nothing more. Silent: it answered before, but does not now. Unknown to this client: Unknown. */
  readonly state: "Starting" | "Ready" | "Silent" | "Draining" | "Unknown"
  readonly slots: { readonly used: number; readonly total: number }
  /** Images that its node holds. */
  readonly images: number
  /** Since when its connection is as it is. */
  readonly since: DateTime.Utc
  /** What its runtime can do, and what it fell back from. */
  readonly notes: ReadonlyArray<string>
}

/** Which events. */
export interface EventOptions extends ScopeOptions {
  /** About objects of this kind only. */
  readonly kind?: "Sandbox" | "SandboxPool" | "Pod" | undefined
  /** About objects of this name only. */
  readonly name?: string | undefined
  /** Go on with what is reported from now on. */
  readonly follow?: boolean | undefined
}

/** Something that was reported of a sandbox, a pool or an agent. */
export interface EventInfo {
  readonly namespace: string
  readonly kind: string
  readonly name: string
  /** Of the object. */
  readonly uid: string
  readonly type: "Normal" | "Warning"
  /** One word in CamelCase. */
  readonly reason: string
  readonly message: string
  /** How often it happened. */
  readonly count: number
  readonly first: DateTime.Utc
  readonly last: DateTime.Utc
  /** Who reports. */
  readonly source: string
}

/** What the server is. */
export interface ServerVersion {
  readonly version: string
  /** The Node that it runs on. */
  readonly node: string
}

/** The calls that are about more than one sandbox. */
export interface Administration {
  readonly pools: {
    readonly list: (options?: ScopeOptions) => Effect.Effect<ReadonlyArray<PoolInfo>, BoundaryError>
    readonly get: (name: string, options?: CallOptions) => Effect.Effect<PoolInfo, BoundaryError>
    readonly create: (name: string, options: PoolOptions) => Effect.Effect<PoolInfo, BoundaryError>
    /** Only what is given changes. */
    readonly scale: (name: string, options: PoolCapacity & CallOptions) => Effect.Effect<PoolInfo, BoundaryError>
    /** Removes a pool and its agents. Refused while it holds sandboxes, unless it is forced: those are lost then. */
    readonly delete: (name: string, options?: ForceOptions) => Effect.Effect<void, BoundaryError>
  }
  readonly agents: {
    readonly list: (options?: AgentOptions) => Effect.Effect<ReadonlyArray<AgentInfo>, BoundaryError>
    /** It takes nothing more; when its last sandbox has ended it is removed, and replaced where the pool needs one. */
    readonly drain: (name: string, options?: CallOptions) => Effect.Effect<AgentInfo, BoundaryError>
    /** Takes a drain back. */
    readonly resume: (name: string, options?: CallOptions) => Effect.Effect<AgentInfo, BoundaryError>
  }
  /** What was reported, the oldest first. */
  readonly events: (options?: EventOptions) => Stream.Stream<EventInfo, BoundaryError>
  readonly serverVersion: (options?: CallOptions) => Effect.Effect<ServerVersion, BoundaryError>
}

/** Whether to insist. */
export interface ForceOptions extends CallOptions {
  readonly force?: boolean | undefined
}
