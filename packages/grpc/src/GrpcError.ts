/**
 * Failures of gRPC calls, and their translation from and to the failures that cross a boundary.
 *
 * A server sends a {@link BoundaryError} as a gRPC code, a text and google.rpc details; a client that gets them back
 * rebuilds the same class with the same data. A status of a foreign server (containerd's, a proxy's) has a code and a
 * text only and becomes the nearest class.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { type Any, anyPack, anyUnpack, type Duration as ProtoDuration, DurationSchema } from "@bufbuild/protobuf/wkt"
import * as Errors from "@fast-sandbox/core/Errors"
import * as Grpc from "@grpc/grpc-js"
import * as Schema from "effect/Schema"
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema
} from "./gen/google/rpc/error_details_pb.ts"
import { StatusSchema } from "./gen/google/rpc/status_pb.ts"

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

/**
 * Longest text of a status, in UTF-16 units. Status and details travel in HTTP/2 trailers, which peers refuse when
 * they exceed their header limit (64 KiB in Node); percent-encoding makes up to nine bytes of one unit.
 */
export const MAX_STATUS_TEXT_LENGTH = 2048

const STATUS_DETAILS_KEY = "grpc-status-details-bin"

// A lone surrogate has no UTF-8 form, so a text that holds one could not be sent at all.
const text = (value: string): string =>
  (value.length > MAX_STATUS_TEXT_LENGTH ? `${value.slice(0, MAX_STATUS_TEXT_LENGTH - 1)}…` : value).toWellFormed()

const MILLIS_PER_SECOND = 1000
const NANOS_PER_MILLI = 1_000_000
const NANOS_PER_SECOND = 1_000_000_000n

/** Longest time that is told to a caller; what is longer, or no number, means that nobody knows. */
const MAX_DURATION_MILLIS = 24 * 60 * 60 * MILLIS_PER_SECOND

const durationFromMillis = (millis: number): ProtoDuration => {
  const bounded = millis >= 0 && millis <= MAX_DURATION_MILLIS ? millis : MAX_DURATION_MILLIS
  const nanos = BigInt(Math.round(bounded * NANOS_PER_MILLI))
  return create(DurationSchema, { seconds: nanos / NANOS_PER_SECOND, nanos: Number(nanos % NANOS_PER_SECOND) })
}

const millisFromDuration = (duration: ProtoDuration): number =>
  Number(duration.seconds) * MILLIS_PER_SECOND + duration.nanos / NANOS_PER_MILLI

const encodeDetail = (detail: Detail): Any => {
  switch (detail._tag) {
    case "BadRequest":
      return anyPack(
        BadRequestSchema,
        create(BadRequestSchema, {
          fieldViolations: [{ field: text(detail.field), description: text(detail.description) }]
        })
      )
    case "RetryInfo":
      return anyPack(
        RetryInfoSchema,
        create(RetryInfoSchema, { retryDelay: durationFromMillis(detail.retryDelayMillis) })
      )
    case "QuotaFailure":
      return anyPack(
        QuotaFailureSchema,
        create(QuotaFailureSchema, {
          violations: [{ subject: text(detail.subject), description: text(detail.description) }]
        })
      )
    case "ErrorInfo":
      return anyPack(
        ErrorInfoSchema,
        create(ErrorInfoSchema, {
          reason: text(detail.reason),
          domain: detail.domain,
          metadata: Object.fromEntries(Object.entries(detail.metadata).map(([key, value]) => [key, text(value)]))
        })
      )
    case "ResourceInfo":
      return anyPack(
        ResourceInfoSchema,
        create(ResourceInfoSchema, {
          resourceType: text(detail.kind),
          resourceName: text(detail.name),
          description: text(detail.description)
        })
      )
  }
}

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

const decodeDetails = (metadata: Grpc.Metadata | undefined): ReadonlyArray<Detail> => {
  const [bytes] = metadata?.get(STATUS_DETAILS_KEY) ?? []
  if (!(bytes instanceof Uint8Array)) return []
  try {
    return fromBinary(StatusSchema, bytes).details.flatMap(decodeDetail)
  } catch {
    // A peer that garbles its details must not hide the code and the text, which are still right.
    return []
  }
}

/** The status of a failed call as grpc-js tells it, as a {@link GrpcError}. */
export const fromStatus = (
  method: string,
  target: string,
  status: { readonly code: number; readonly details: string; readonly metadata?: Grpc.Metadata | undefined }
): GrpcError =>
  new GrpcError({
    method,
    target,
    code: codes[status.code] ?? "UNKNOWN",
    details: status.details,
    info: decodeDetails(status.metadata)
  })

const ownInfo = (reason: string, metadata: Readonly<Record<string, string>> = {}): Detail => ({
  _tag: "ErrorInfo",
  reason,
  domain: ERROR_DOMAIN,
  metadata
})

/** Code and details of a failure of ours. */
const describe = (error: Errors.BoundaryError): readonly [code: Code, info: ReadonlyArray<Detail>] => {
  switch (error._tag) {
    case "InvalidArgument":
      return ["INVALID_ARGUMENT", [{ _tag: "BadRequest", field: error.field, description: error.problem }]]
    case "NotFound":
      return ["NOT_FOUND", [
        { _tag: "ResourceInfo", kind: error.kind, name: error.name, description: error.hint ?? "" }
      ]]
    case "AlreadyExists":
      return ["ALREADY_EXISTS", [
        { _tag: "ResourceInfo", kind: error.kind, name: error.name, description: error.hint ?? "" }
      ]]
    case "ResourceExhausted":
      return ["RESOURCE_EXHAUSTED", [
        { _tag: "QuotaFailure", subject: error.resource, description: error.problem },
        { _tag: "RetryInfo", retryDelayMillis: error.retryAfterMillis }
      ]]
    case "FailedPrecondition":
      return ["FAILED_PRECONDITION", [ownInfo(error.reason)]]
    case "Unauthenticated":
      return ["UNAUTHENTICATED", []]
    case "PermissionDenied":
      return ["PERMISSION_DENIED", []]
    case "DeadlineExceeded":
      return ["DEADLINE_EXCEEDED", [ownInfo("DeadlineExceeded", { operation: error.operation })]]
    case "Unavailable":
      return ["UNAVAILABLE", [ownInfo("Unavailable", { target: error.target, problem: error.problem })]]
    case "Cancelled":
      return ["CANCELLED", [ownInfo("Cancelled", { operation: error.operation })]]
    case "Internal":
      return ["INTERNAL", []]
  }
}

/** A failure as the status that a server sends. Never UNKNOWN: a foreign status without a meaning is INTERNAL. */
export const toStatus = (
  error: HandlerError
): { readonly code: Grpc.status; readonly details: string; readonly metadata: Grpc.Metadata } => {
  const [named, info] = error._tag === "GrpcError" ? [error.code, error.info] as const : describe(error)
  const code = codes.indexOf(named === "UNKNOWN" || named === "OK" ? "INTERNAL" : named)
  const details = text(error._tag === "GrpcError" ? error.details : error.message)
  const metadata = new Grpc.Metadata()
  if (info.length > 0) {
    const status = create(StatusSchema, { code, message: details, details: info.map(encodeDetail) })
    metadata.set(STATUS_DETAILS_KEY, Buffer.from(toBinary(StatusSchema, status)))
  }
  return { code, details, metadata }
}

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
