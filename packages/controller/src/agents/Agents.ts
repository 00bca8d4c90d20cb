/**
 * The controller's view of the agents: one stream to each agent Pod, and the calls that change what runs there. The
 * view is rebuilt from the agents at every start and after every broken stream; it ranks and observes, the agent decides.
 */
import type { MessageInitShape } from "@bufbuild/protobuf"
import { type BoundaryError, Unavailable } from "@fast-sandbox/core/Errors"
import type { KeptWarm } from "@fast-sandbox/core/SandboxPool"
import type {
  Image,
  ImageProgress,
  Instance,
  LogsResponse,
  ParkedImage
} from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import type { CreateRequestSchema, LogsRequestSchema } from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Stream from "effect/Stream"
import type { SessionClient } from "./AgentConnector.ts"

/** What the controller knows of one agent. A new value for every change; `instances` and `images` are never mutated. */
export interface AgentView {
  /** The uid of its Pod: the agent's identity. */
  readonly uid: string
  readonly pod: string
  readonly namespace: string
  readonly pool: string
  readonly node: string
  /**
   * synced: the stream is up and the view is the agent's own. stale: the stream broke at `since`, the view is the last
   * one known. connecting: nothing is known yet.
   */
  readonly connection: "connecting" | "synced" | "stale"
  /** Milliseconds since the epoch when `connection` last changed. */
  readonly since: number
  /** The Pod is being deleted, or the agent said that it admits nothing more. */
  readonly draining: boolean
  readonly slots: number
  readonly slotsUsed: number
  readonly portsUsed: ReadonlySet<number>
  /** Which of the agent's descriptions of its room this is. */
  readonly capacityRevision: bigint
  /** By instance id, also those that have exited and are kept for their record. */
  readonly instances: ReadonlyMap<string, Instance>
  /** By normalised name. */
  readonly images: ReadonlyMap<string, Image>
  /** What waits ready, by the image's normalised name. */
  readonly parked: ReadonlyMap<string, ParkedImage>
  /** What it was told to keep warm. */
  readonly warmImages: ReadonlyArray<KeptWarm>
  /** What its runtime can do and what it fell back from. */
  readonly runtimeNotes: ReadonlyArray<string>
  /** Why its node can't run sandboxes; undefined where it can. */
  readonly runtimeProblem: string | undefined
}

/** What moved. A reader treats it as a hint to look again, never as the truth. */
export type AgentChange =
  | { readonly _tag: "AgentChanged"; readonly uid: string }
  | { readonly _tag: "AgentGone"; readonly uid: string; readonly pod: string; readonly namespace: string }
  | {
    readonly _tag: "InstanceChanged"
    readonly uid: string
    readonly instanceId: string
    readonly namespace: string
    readonly sandboxName: string
  }

/** There was no connection to the agent, so the call was certainly not made. Fails calls at once. */
export class NotConnected extends Unavailable {}

/** The controller's view of the agents, and its calls to them. Calls name the agent by the uid of its Pod. */
export class Agents extends Context.Service<Agents, {
  /** Every agent Pod that exists, whether its agent answers or not. */
  readonly list: Effect.Effect<ReadonlyArray<AgentView>>
  get(uid: string): Effect.Effect<Option.Option<AgentView>>
  /** The agent and the instance, from the view. */
  findInstance(
    instanceId: string
  ): Effect.Effect<Option.Option<{ readonly agent: AgentView; readonly instance: Instance }>>
  /** Done when every agent Pod known at the start has either synced or was tried once. */
  readonly firstSync: Effect.Effect<void>
  /** A subscription; bounded: a slow subscriber gets AgentChanged for all agents instead of what it missed. */
  readonly changes: Stream.Stream<AgentChange>
  create(uid: string, request: MessageInitShape<typeof CreateRequestSchema>): Effect.Effect<Instance, BoundaryError>
  bind(uid: string, instanceId: string, resourceUid: string): Effect.Effect<void, BoundaryError>
  stop(uid: string, instanceId: string, gracePeriodSeconds?: number): Effect.Effect<Instance, BoundaryError>
  /** Succeeds when the instance, its log and its record are gone, also when they were gone before. */
  delete(uid: string, instanceId: string, gracePeriodSeconds?: number): Effect.Effect<void, BoundaryError>
  logs(
    uid: string,
    request: MessageInitShape<typeof LogsRequestSchema>
  ): Stream.Stream<LogsResponse, BoundaryError>
  /** The calls about what goes on inside of an agent's sandboxes. */
  sessions(uid: string): Effect.Effect<SessionClient, NotConnected>
  pullImage(uid: string, image: string): Stream.Stream<ImageProgress, BoundaryError>
  loadImage(
    uid: string,
    archive: Stream.Stream<Uint8Array, BoundaryError>,
    name?: string
  ): Stream.Stream<ImageProgress, BoundaryError>
  removeImage(uid: string, image: string): Effect.Effect<void, BoundaryError>
  /** Says what the agent is to keep warm from now on; its view shows that when the agent does. */
  warm(uid: string, images: ReadonlyArray<KeptWarm>): Effect.Effect<void, BoundaryError>
}>()("@fast-sandbox/controller/agents/Agents") {}
