/**
 * Failures of gRPC calls, and their translation to the failures that cross a boundary. `GrpcStatus` is the way back.
 *
 * A server sends a {@link BoundaryError} as a gRPC code, a text and google.rpc details; a client that gets them back
 * rebuilds the same class with the same data. A status of a foreign server (containerd's, a proxy's) has a code and a
 * text only and becomes the nearest class.
 */
import { fromBinary } from "@bufbuild/protobuf"
import { type Any, anyUnpack, type Duration as ProtoDuration } from "@bufbuild/protobuf/wkt"
import * as Errors from "@fast-sandbox/core/Errors"
import * as Schema from "effect/Schema"
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema
} from "./gen/google/rpc/error_details_pb.ts"
import { StatusSchema } from "./gen/google/rpc/status_pb.ts"
import type { Status } from "./internal/channel.ts"

/** The seventeen codes of gRPC, each at the index of its number. */
export const codes = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED"
] as const

/** One of the seventeen codes of gRPC. */
export type Code = typeof codes[number]

/** The google.rpc details that this project sends and understands; others that a peer sends are left out. */
export const Detail = Schema.Union([
  Schema.TaggedStruct("BadRequest", { field: Schema.String, description: Schema.String }),
  Schema.TaggedStruct("RetryInfo", { retryDelayMillis: Schema.Number }),
  Schema.TaggedStruct("QuotaFailure", { subject: Schema.String, description: Schema.String }),
  Schema.TaggedStruct("ErrorInfo", {
    reason: Schema.String,
    domain: Schema.String,
    metadata: Schema.Record(Schema.String, Schema.String)
  }),
  Schema.TaggedStruct("ResourceInfo", { kind: Schema.String, name: Schema.String, description: Schema.String })
])

/** One decoded google.rpc detail. */
export type Detail = typeof Detail.Type

/**
 * A call that ended with another status than OK. `method` is the full path (`/package.Service/Method`), `target` the
 * address that the client was made for, `details` the status's text, `info` its decoded details.
 */
export class GrpcError extends Schema.TaggedError<GrpcError>()("GrpcError", {
  method: Schema.String,
  target: Schema.String,
  code: Schema.Literals(codes),
  details: Schema.String,
  info: Schema.Array(Detail)
}) {
  override get message(): string {
    return `${this.method} on ${this.target}: ${this.code}: ${this.details}`
  }
}

/** What a handler may fail with: a failure of ours, or a status as it is (a proxy's, a simulated foreign server's). */
export type HandlerError = Errors.BoundaryError | GrpcError

/** `domain` of every ErrorInfo that this project sends: its API group. */
export const ERROR_DOMAIN = "sandbox.fast.io"

/** When a peer says RESOURCE_EXHAUSTED without a RetryInfo, its callers wait this long. */
export const DEFAULT_RETRY_AFTER_MILLIS = 1000

/** The trailer that carries them. */
export const STATUS_DETAILS_KEY = "grpc-status-details-bin"

const MILLIS_PER_SECOND = 1000
const NANOS_PER_MILLI = 1_000_000

const millisFromDuration = (duration: ProtoDuration): number =>
  Number(duration.seconds) * MILLIS_PER_SECOND + duration.nanos / NANOS_PER_MILLI

const decodeDetail = (any: Any): ReadonlyArray<Detail> => {
  const badRequest = anyUnpack(any, BadRequestSchema)
  if (badRequest !== undefined) {
    return badRequest.fieldViolations.map(({ description, field }) => ({ _tag: "BadRequest", field, description }))
  }
  const retryInfo = anyUnpack(any, RetryInfoSchema)
  if (retryInfo !== undefined) {
    return retryInfo.retryDelay === undefined
      ? []
      : [{ _tag: "RetryInfo", retryDelayMillis: millisFromDuration(retryInfo.retryDelay) }]
  }
  const quotaFailure = anyUnpack(any, QuotaFailureSchema)
  if (quotaFailure !== undefined) {
    return quotaFailure.violations.map(({ description, subject }) => ({ _tag: "QuotaFailure", subject, description }))
  }
  const errorInfo = anyUnpack(any, ErrorInfoSchema)
  if (errorInfo !== undefined) {
    return [{
      _tag: "ErrorInfo",
      reason: errorInfo.reason,
      domain: errorInfo.domain,
      metadata: errorInfo.metadata
    }]
  }
  const resourceInfo = anyUnpack(any, ResourceInfoSchema)
  return resourceInfo === undefined ? [] : [{
    _tag: "ResourceInfo",
    kind: resourceInfo.resourceType,
    name: resourceInfo.resourceName,
    description: resourceInfo.description
  }]
}

const decodeDetails = (metadata: Status["metadata"]): ReadonlyArray<Detail> => {
  const [bytes] = metadata?.get(STATUS_DETAILS_KEY) ?? []
  if (!(bytes instanceof Uint8Array)) return []
  try {
    return fromBinary(StatusSchema, bytes).details.flatMap(decodeDetail)
  } catch {
    // A peer that garbles its details must not hide the code and the text, which are still right.
    return []
  }
}

/** The status of a failed call as a channel tells it, as a {@link GrpcError}. */
export const fromStatus = (
  method: string,
  target: string,
  status: Status
): GrpcError =>
  new GrpcError({
    method,
    target,
    code: codes[status.code] ?? "UNKNOWN",
    details: status.details,
    info: decodeDetails(status.metadata)
  })

const find = <Tag extends Detail["_tag"]>(
  error: GrpcError,
  tag: Tag
): Extract<Detail, { readonly _tag: Tag }> | undefined =>
  error.info.find((detail): detail is Extract<Detail, { readonly _tag: Tag }> => detail._tag === tag)

const resource = (
  error: GrpcError
): { readonly kind: string; readonly name: string; readonly hint?: string } => {
  const info = find(error, "ResourceInfo")
  if (info === undefined) return { kind: "resource", name: error.details }
  return {
    kind: info.kind,
    name: info.name,
    ...(info.description === "" ? {} : { hint: info.description })
  }
}

/** The failure of ours that a status stands for: the very one that our server sent, else the nearest class. */
export const toBoundaryError = (error: GrpcError): Errors.BoundaryError => {
  const info = find(error, "ErrorInfo")
  const own = info?.domain === ERROR_DOMAIN ? info : undefined
  switch (error.code) {
    case "INVALID_ARGUMENT":
    case "OUT_OF_RANGE": {
      const violation = find(error, "BadRequest")
      return new Errors.InvalidArgument({
        field: violation?.field ?? "request",
        problem: violation?.description ?? error.details
      })
    }
    case "NOT_FOUND":
      return new Errors.NotFound(resource(error))
    case "ALREADY_EXISTS":
      return new Errors.AlreadyExists(resource(error))
    case "RESOURCE_EXHAUSTED": {
      const violation = find(error, "QuotaFailure")
      return new Errors.ResourceExhausted({
        resource: violation?.subject ?? "capacity",
        problem: violation?.description ?? error.details,
        retryAfterMillis: find(error, "RetryInfo")?.retryDelayMillis ?? DEFAULT_RETRY_AFTER_MILLIS
      })
    }
    case "FAILED_PRECONDITION":
      return new Errors.FailedPrecondition({ reason: info?.reason ?? "FailedPrecondition", problem: error.details })
    case "ABORTED":
      return new Errors.FailedPrecondition({ reason: info?.reason ?? "Aborted", problem: error.details })
    case "UNIMPLEMENTED":
      return new Errors.FailedPrecondition({
        reason: "Unimplemented",
        problem:
          `${error.target} does not know ${error.method}: check that it is the right endpoint and as new as its client`
      })
    case "UNAUTHENTICATED":
      return new Errors.Unauthenticated({ problem: error.details })
    case "PERMISSION_DENIED":
      return new Errors.PermissionDenied({ problem: error.details })
    case "DEADLINE_EXCEEDED":
      return new Errors.DeadlineExceeded({ operation: own?.metadata.operation ?? error.method })
    case "CANCELLED":
      return new Errors.Cancelled({ operation: own?.metadata.operation ?? error.method })
    case "UNAVAILABLE":
      return new Errors.Unavailable(
        own === undefined
          ? {
            target: error.target,
            problem: `${error.details}; check that it runs and that this is its address, then try again`
          }
          : { target: own.metadata.target ?? error.target, problem: own.metadata.problem ?? error.details }
      )
    case "OK":
    case "UNKNOWN":
    case "INTERNAL":
    case "DATA_LOSS":
      return new Errors.Internal({ problem: error.details })
  }
}
