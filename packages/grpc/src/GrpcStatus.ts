/**
 * The failures of our servers' handlers as the statuses that their callers get: a code, a text and google.rpc details.
 */
import { create, toBinary } from "@bufbuild/protobuf"
import { type Any, anyPack, type Duration as ProtoDuration, DurationSchema } from "@bufbuild/protobuf/wkt"
import type * as Errors from "@fast-sandbox/core/Errors"
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  ResourceInfoSchema,
  RetryInfoSchema
} from "./gen/google/rpc/error_details_pb.ts"
import { StatusSchema } from "./gen/google/rpc/status_pb.ts"
import { type Code, codes, type Detail, ERROR_DOMAIN, type HandlerError, STATUS_DETAILS_KEY } from "./GrpcError.ts"

/**
 * Longest text of a status, in UTF-16 units. Status and details travel in HTTP/2 trailers, which peers refuse when
 * they exceed their header limit (64 KiB in Node); percent-encoding makes up to nine bytes of one unit.
 */
export const MAX_STATUS_TEXT_LENGTH = 2048

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

/** What a server tells at the end of a call. */
export interface ServerStatus {
  /** One of gRPC's numbers. */
  readonly code: number
  readonly details: string
  /** Further trailers, all binary. */
  readonly metadata?: ReadonlyMap<string, readonly [Buffer]> | undefined
}

/** A failure as the status that a server sends. Never UNKNOWN: a foreign status without a meaning is INTERNAL. */
export const toStatus = (error: HandlerError): ServerStatus => {
  const [named, info] = error._tag === "GrpcError" ? [error.code, error.info] as const : describe(error)
  const code = codes.indexOf(named === "UNKNOWN" || named === "OK" ? "INTERNAL" : named)
  const details = text(error._tag === "GrpcError" ? error.details : error.message)
  const metadata = new Map<string, readonly [Buffer]>()
  if (info.length > 0) {
    const status = create(StatusSchema, { code, message: details, details: info.map(encodeDetail) })
    metadata.set(STATUS_DETAILS_KEY, [Buffer.from(toBinary(StatusSchema, status))])
  }
  return { code, details, metadata }
}
