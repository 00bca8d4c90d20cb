/**
 * The one failure of a Kubernetes API call. What went wrong is in `reason`, a union with one member for each way in
 * which a caller can react; `method`, `path`, `kind` and `name` say which call it was. Handle a single reason with
 * `Effect.catchReason("KubeError", "NotFound", ...)`.
 */
import * as Schema from "effect/Schema"

/** The object, or the whole resource type (its CRD is not installed), does not exist. */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", { problem: Schema.String }) {}

/** The object changed since it was read: read it again and repeat the change. */
export class Conflict extends Schema.TaggedError<Conflict>()("Conflict", { problem: Schema.String }) {}

/** The name is taken. */
export class AlreadyExists extends Schema.TaggedError<AlreadyExists>()("AlreadyExists", { problem: Schema.String }) {}

/** The resource version or the continue token is too old: list again. */
export class Gone extends Schema.TaggedError<Gone>()("Gone", { problem: Schema.String }) {}

/** The server is throttling; try again after `retryAfterMillis`. */
export class TooManyRequests extends Schema.TaggedError<TooManyRequests>()("TooManyRequests", {
  problem: Schema.String,
  retryAfterMillis: Schema.Number
}) {}

/** The credentials are good but do not allow this call. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", { problem: Schema.String }) {}

/** The credentials are missing, expired or unknown, or could not be obtained. */
export class Unauthorized extends Schema.TaggedError<Unauthorized>()("Unauthorized", { problem: Schema.String }) {}

/** Why one field of an object was refused. `field` is a path such as `spec.image`. */
export class InvalidCause extends Schema.Class<InvalidCause>("@fast-sandbox/kube/KubeError/InvalidCause")({
  field: Schema.String,
  reason: Schema.String,
  message: Schema.String
}) {}

/** The object breaks its schema or an admission rule. */
export class Invalid extends Schema.TaggedError<Invalid>()("Invalid", {
  problem: Schema.String,
  causes: Schema.Array(InvalidCause)
}) {}

/** The server does not understand the request: ours is the mistake. */
export class BadRequest extends Schema.TaggedError<BadRequest>()("BadRequest", { problem: Schema.String }) {}

/** No answer in time. Whether a write took place is not known. */
export class Timeout extends Schema.TaggedError<Timeout>()("Timeout", { problem: Schema.String }) {}

/**
 * The server can't be reached, or the connection broke. `sent` tells whether the request may have arrived: when it is
 * false the call certainly had no effect.
 */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  problem: Schema.String,
  sent: Schema.Boolean
}) {}

/** The server failed with an HTTP status that has no reason of its own. */
export class ServerError extends Schema.TaggedError<ServerError>()("ServerError", {
  problem: Schema.String,
  status: Schema.Number
}) {}

/** The server answered with something that is not the object that was asked for. */
export class MalformedResponse extends Schema.TaggedError<MalformedResponse>()("MalformedResponse", {
  problem: Schema.String
}) {}

/** Every cause of a failed call. */
export const KubeErrorReason = Schema.Union([
  NotFound,
  Conflict,
  AlreadyExists,
  Gone,
  TooManyRequests,
  Forbidden,
  Unauthorized,
  Invalid,
  BadRequest,
  Timeout,
  Unavailable,
  ServerError,
  MalformedResponse
])

/** Every cause of a failed call. */
export type KubeErrorReason = typeof KubeErrorReason.Type

/** A failed Kubernetes API call. `kind` and `name` are absent where the call was not about one kind or one object. */
export class KubeError extends Schema.TaggedError<KubeError>()("KubeError", {
  method: Schema.String,
  path: Schema.String,
  kind: Schema.optionalKey(Schema.String),
  name: Schema.optionalKey(Schema.String),
  reason: KubeErrorReason
}) {
  override get message(): string {
    return `${this.reason._tag}: ${this.method} ${this.path}: ${this.reason.problem}`
  }
}
