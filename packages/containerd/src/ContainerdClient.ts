/**
 * The connection to one containerd: its socket and the containerd namespace that every call works in. The other
 * services of this package are made from it; they share one connection.
 */
import { Containers } from "@fast-sandbox/grpc/gen/containerd/containers_pb"
import { Content } from "@fast-sandbox/grpc/gen/containerd/content_pb"
import { Diff } from "@fast-sandbox/grpc/gen/containerd/diff_pb"
import { Events } from "@fast-sandbox/grpc/gen/containerd/events_pb"
import { Images } from "@fast-sandbox/grpc/gen/containerd/images_pb"
import { Introspection } from "@fast-sandbox/grpc/gen/containerd/introspection_pb"
import { Leases } from "@fast-sandbox/grpc/gen/containerd/leases_pb"
import { Namespaces } from "@fast-sandbox/grpc/gen/containerd/namespaces_pb"
import { Snapshots } from "@fast-sandbox/grpc/gen/containerd/snapshots_pb"
import { Tasks } from "@fast-sandbox/grpc/gen/containerd/tasks_pb"
import { Version } from "@fast-sandbox/grpc/gen/containerd/version_pb"
import { ImageService } from "@fast-sandbox/grpc/gen/runtime/image_service_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import type { GrpcError } from "@fast-sandbox/grpc/GrpcError"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { ContainerdError } from "./ContainerdError.ts"

/** Where containerd listens unless told otherwise. */
export const defaultSocket = "/run/containerd/containerd.sock"

/**
 * How long one call may take. All calls but the few that wait for something (an exit, a download, a layer) are answered
 * in milliseconds; a containerd that stays silent this long is stuck, and its caller must hear of it.
 */
const callDeadline = "30 seconds"

/**
 * A containerd that is held or deadlocked takes calls and answers none. It is asked for its version when a call takes this
 * long: twenty times what a whole start among a hundred takes on two cores.
 */
const patienceMillis = 5000

/** How soon a containerd that hangs is asked again. */
const pulseRetryMillis = 1000

/** Unpacking one layer: a gigabyte on a slow disk. */
const applyDeadline = "10 minutes"

/** A pull, whose length the registry decides. */
const pullDeadline = "30 minutes"

const services = {
  containers: Containers,
  content: Content,
  diff: Diff,
  events: Events,
  images: Images,
  introspection: Introspection,
  leases: Leases,
  namespaces: Namespaces,
  snapshots: Snapshots,
  tasks: Tasks,
  version: Version,
  cri: ImageService
} as const

type Services = typeof services

/** The generated clients, one for each service of containerd's that is used. */
export type RawClients = { readonly [K in keyof Services]: GrpcClient.GrpcClient<Services[K]> }

/** Metadata and deadlines for raw calls. */
export interface RawOptions {
  /** An ordinary call. */
  readonly call: GrpcClient.CallOptions
  /** A call that returns when something happens, however long that takes. */
  readonly unbounded: GrpcClient.CallOptions
  readonly apply: GrpcClient.CallOptions
  readonly pull: GrpcClient.CallOptions
  /** An ordinary call whose new resources the lease protects; of no lease when absent. */
  readonly leased: (leaseId: string | undefined) => GrpcClient.CallOptions
}

/** `raw` and `options` are for the other services of this package. */
export class ContainerdClient extends Context.Service<ContainerdClient, {
  /** The absolute path of containerd's socket. */
  readonly socket: string
  /** containerd's namespace, unrelated to Kubernetes' and to Linux'. */
  readonly namespace: string
  readonly raw: RawClients
  readonly options: RawOptions
}>()("@fast-sandbox/containerd/ContainerdClient") {
  /** A connection for the life of the layer. It is made at the first call and again whenever it was lost. */
  static readonly layer = (options: {
    readonly socket?: string | undefined
    readonly namespace: string
  }): Layer.Layer<ContainerdClient> => Layer.effect(ContainerdClient, make(options))
}

/** See {@link ContainerdClient.layer}. */
export const make = Effect.fnUntraced(function*(options: {
  readonly socket?: string | undefined
  readonly namespace: string
}): Effect.fn.Return<ContainerdClient["Service"], never, Scope.Scope> {
  const socket = options.socket ?? defaultSocket
  const metadata = { "containerd-namespace": options.namespace }
  return {
    socket,
    namespace: options.namespace,
    raw: yield* GrpcClient.makeAll(services, {
      address: `unix:${socket}`,
      pulse: { method: Version.method.version, patienceMillis, retryMillis: pulseRetryMillis }
    }),
    options: {
      call: { metadata, deadline: callDeadline },
      unbounded: { metadata },
      apply: { metadata, deadline: applyDeadline },
      pull: { metadata, deadline: pullDeadline },
      leased: (leaseId) => ({
        metadata: leaseId === undefined ? metadata : { ...metadata, "containerd-lease": leaseId },
        deadline: callDeadline
      })
    }
  }
})

const toError = (operation: string) => (error: GrpcError): ContainerdError =>
  new ContainerdError({ operation, code: error.code, details: error.details })

/** Names a raw call for people: `Tasks.create` instead of a gRPC path. */
export const named =
  (operation: string) => <A, R>(self: Effect.Effect<A, GrpcError, R>): Effect.Effect<A, ContainerdError, R> =>
    Effect.mapError(self, toError(operation))

/** {@link named} for streams. */
export const namedStream =
  (operation: string) => <A, R>(self: Stream.Stream<A, GrpcError, R>): Stream.Stream<A, ContainerdError, R> =>
    Stream.mapError(self, toError(operation))
