/**
 * The Fast-Path API: the gRPC service `fastpath.v1.FastPathService` over the controller's parts.
 */
import { Traffic } from "@fast-sandbox/core/Traffic"
import { version } from "@fast-sandbox/core/Version"
import * as LogStreams from "@fast-sandbox/grpc/gen/agent/v1/agent_pb"
import { FastPathService, LogStream, WatchEvent_Type } from "@fast-sandbox/grpc/gen/fastpath/v1/fastpath_pb"
import * as GrpcService from "@fast-sandbox/grpc/GrpcService"
import type { EventRecorder } from "@fast-sandbox/kube/EventRecorder"
import type { KubeClient } from "@fast-sandbox/kube/KubeClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { Agents } from "../agents/Agents.ts"
import type { Caches } from "../Caches.ts"
import type { Demand } from "../pool/Demand.ts"
import type { Registry } from "../registry/Registry.ts"
import { Directory } from "./Directory.ts"
import { EventLog, project as projectEvent } from "./EventLog.ts"
import { FastPath, type SandboxEvent } from "./FastPath.ts"
import { Images } from "./Images.ts"
import { Placement } from "./Placement.ts"
import { PoolAgents } from "./PoolAgents.ts"
import { Pools, project as projectPool } from "./Pools.ts"
import * as SandboxInfo from "./SandboxInfo.ts"
import { SandboxLocks } from "./SandboxLocks.ts"
import { Sessions } from "./Sessions.ts"
import { WriteBehind } from "./WriteBehind.ts"

const eventTypes = {
  Added: WatchEvent_Type.ADDED,
  Modified: WatchEvent_Type.MODIFIED,
  Deleted: WatchEvent_Type.DELETED
} as const

const eventOf = (event: SandboxEvent) =>
  event._tag === "Synced"
    ? { type: WatchEvent_Type.SYNCED }
    : { type: eventTypes[event._tag], sandbox: SandboxInfo.project(event.sandbox) }

const streamOf = (stream: LogStreams.LogStream) =>
  stream === LogStreams.LogStream.STDERR ? LogStream.STDERR : LogStream.STDOUT

/** The service with its handlers, for a GrpcServer. */
export const service: GrpcService.GrpcService<FastPath | Sessions | Images | Pools | PoolAgents | EventLog> =
  GrpcService.make(
    FastPathService,
    {
      createSandbox: (request) => Effect.map(FastPath.use((_) => _.create(request)), SandboxInfo.created),
      deleteSandbox: ({ force, namespace, sandboxName }) =>
        Effect.as(
          FastPath.use((_) => force ? _.forceDelete(namespace, sandboxName) : _.delete(namespace, sandboxName)),
          { success: true }
        ),
      updateSandbox: (request) =>
        Effect.map(FastPath.use((_) => _.update(request)), (sandbox) => ({
          success: true,
          message: "updated",
          sandbox: SandboxInfo.project(sandbox)
        })),
      listSandboxes: (request) =>
        Effect.map(
          FastPath.use((_) => _.list(request)),
          (sandboxes) => ({ items: sandboxes.map(SandboxInfo.project) })
        ),
      getSandbox: ({ namespace, sandboxName }) =>
        Effect.map(FastPath.use((_) => _.get(namespace, sandboxName)), SandboxInfo.project),
      watchSandboxes: ({ labelSelector, namespace, sandboxName }) =>
        Stream.unwrap(FastPath.useSync((_) => _.watch({ namespace, labelSelector, name: sandboxName }))).pipe(
          Stream.map(eventOf)
        ),
      resetSandbox: ({ namespace, sandboxName }) =>
        Effect.map(FastPath.use((_) => _.reset(namespace, sandboxName)), SandboxInfo.project),
      logs: (request) =>
        Stream.unwrap(FastPath.useSync((_) => _.logs(request))).pipe(
          Stream.map(({ lines }) => ({
            lines: lines.map(({ partial, stream, text, time }) => ({
              stream: streamOf(stream),
              text,
              partial,
              ...(time === undefined ? {} : { time })
            }))
          }))
        ),
      exec: (requests) => Stream.unwrap(Sessions.useSync((_) => _.exec(requests))),
      attach: (requests) => Stream.unwrap(Sessions.useSync((_) => _.attach(requests))),
      copyTo: (requests) => Sessions.use((_) => _.copyTo(requests)),
      copyFrom: (request) => Stream.unwrap(Sessions.useSync((_) => _.copyFrom(request))),
      copyDirectly: (request) => Stream.unwrap(Sessions.useSync((_) => _.copyDirectly(request))),
      portForward: (requests) => Stream.unwrap(Sessions.useSync((_) => _.portForward(requests))),
      stats: (request) => Stream.unwrap(Sessions.useSync((_) => _.stats(request))),
      processes: (request) => Sessions.use((_) => _.processes(request)),
      listImages: (request) => Effect.map(Images.use((_) => _.list(request)), (items) => ({ items: [...items] })),
      pullImage: (request) => Stream.unwrap(Images.useSync((_) => _.pull(request.image, request))),
      loadImage: (parts) => Stream.unwrap(Images.useSync((_) => _.load(parts))),
      removeImage: (request) =>
        Effect.map(Images.use((_) => _.remove(request.image, request)), (nodes) => ({ nodes: [...nodes] })),
      listPools: ({ namespace }) =>
        Effect.map(Pools.use((_) => _.list(namespace)), (pools) => ({ items: pools.map(projectPool) })),
      getPool: ({ name, namespace }) => Effect.map(Pools.use((_) => _.get(namespace, name)), projectPool),
      createPool: ({ resource }) => Effect.map(Pools.use((_) => _.create(resource)), projectPool),
      scalePool: (request) => Effect.map(Pools.use((_) => _.scale(request)), projectPool),
      deletePool: (request) => Effect.as(Pools.use((_) => _.delete(request)), {}),
      listAgents: (request) => Effect.map(PoolAgents.use((_) => _.list(request)), (items) => ({ items: [...items] })),
      drainAgent: ({ name, namespace }) => PoolAgents.use((_) => _.drain(namespace, name)),
      resumeAgent: ({ name, namespace }) => PoolAgents.use((_) => _.resume(namespace, name)),
      watchEvents: (request) => Stream.map(Stream.unwrap(EventLog.useSync((_) => _.watch(request))), projectEvent),
      getVersion: () => Effect.succeed({ version, node: process.version })
    }
  )

/** What serves the API, and what writes behind its answers. */
export const layer: Layer.Layer<
  FastPath | Sessions | Images | Pools | PoolAgents | EventLog | Directory | WriteBehind,
  never,
  KubeClient | Agents | Registry | Caches | Demand | EventRecorder
> = Layer.mergeAll(Sessions.layer, Images.layer, Pools.layer, PoolAgents.layer, EventLog.layer).pipe(
  Layer.provideMerge(FastPath.layer),
  Layer.provideMerge(WriteBehind.layer),
  Layer.provideMerge(Directory.layer),
  Layer.provide(Placement.layer),
  Layer.provide([SandboxLocks.layer, Traffic.layer])
)
