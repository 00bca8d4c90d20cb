/**
 * The connection to one containerd: its socket and the containerd namespace that every call works in. The other
 * services of this package are made from it.
 */
import type { Containers } from "@fast-sandbox/grpc/gen/containerd/containers_pb"
import type { Content } from "@fast-sandbox/grpc/gen/containerd/content_pb"
import type { Diff } from "@fast-sandbox/grpc/gen/containerd/diff_pb"
import type { Events } from "@fast-sandbox/grpc/gen/containerd/events_pb"
import type { Images } from "@fast-sandbox/grpc/gen/containerd/images_pb"
import type { Introspection } from "@fast-sandbox/grpc/gen/containerd/introspection_pb"
import type { Leases } from "@fast-sandbox/grpc/gen/containerd/leases_pb"
import type { Namespaces } from "@fast-sandbox/grpc/gen/containerd/namespaces_pb"
import type { Snapshots } from "@fast-sandbox/grpc/gen/containerd/snapshots_pb"
import type { Tasks } from "@fast-sandbox/grpc/gen/containerd/tasks_pb"
import type { Version } from "@fast-sandbox/grpc/gen/containerd/version_pb"
import type { ImageService } from "@fast-sandbox/grpc/gen/runtime/image_service_pb"
import type { GrpcClient } from "@fast-sandbox/grpc/GrpcClient"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
