/**
 * The failures that cross a boundary of Fast Sandbox. There is one class for each way in which a caller can react;
 * each maps to one gRPC status and carries data instead of prose, so that a program can act on it and a person can
 * read it. Failures inside a part (a refused containerd call, a lost watch) have types of their own and are turned
 * into one of these where they leave that part.
 */
import * as Schema from "effect/Schema"

/** The request itself is wrong. `field` is the path of the offending field in the user's words (`spec.exposedPorts[1]`). */
export class InvalidArgument extends Schema.TaggedError<InvalidArgument>()("InvalidArgument", {
  field: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.field}: ${this.problem}`
  }
}

/** What the request names does not exist. `kind` is a noun such as `sandbox`, `pool`, `image`. */
export class NotFound extends Schema.TaggedError<NotFound>()("NotFound", {
  kind: Schema.String,
  name: Schema.String,
  hint: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return `${this.kind} ${this.name} not found${this.hint === undefined ? "" : `; ${this.hint}`}`
  }
}

/** The name is taken by something else than what the request describes. */
export class AlreadyExists extends Schema.TaggedError<AlreadyExists>()("AlreadyExists", {
  kind: Schema.String,
  name: Schema.String,
  hint: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    return `${this.kind} ${this.name} already exists${this.hint === undefined ? "" : `; ${this.hint}`}`
  }
}

/** No room now; the same request may succeed after `retryAfterMillis`. */
export class ResourceExhausted extends Schema.TaggedError<ResourceExhausted>()("ResourceExhausted", {
  resource: Schema.String,
  problem: Schema.String,
  retryAfterMillis: Schema.Number
}) {
  override get message(): string {
    return `no ${this.resource} left: ${this.problem}`
  }
}

/**
 * The request is right but the state of the system is not: a stale instance id, a missing runtime, an image that does
 * not start. `reason` is a CamelCase word that programs may compare (`StaleInstance`, `ImageNotPresent`).
 */
export class FailedPrecondition extends Schema.TaggedError<FailedPrecondition>()("FailedPrecondition", {
  reason: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** The caller did not prove who it is. */
export class Unauthenticated extends Schema.TaggedError<Unauthenticated>()("Unauthenticated", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** The caller is known and may not do this. */
export class PermissionDenied extends Schema.TaggedError<PermissionDenied>()("PermissionDenied", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** The caller's deadline passed first. Whether the effect took place is not known. */
export class DeadlineExceeded extends Schema.TaggedError<DeadlineExceeded>()("DeadlineExceeded", {
  operation: Schema.String
}) {
  override get message(): string {
    return `${this.operation} did not finish before its deadline`
  }
}

/** The peer can't be reached or is going away; safe to retry what is idempotent. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  target: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.target} is unavailable: ${this.problem}`
  }
}

/** The caller went away or interrupted the call. */
export class Cancelled extends Schema.TaggedError<Cancelled>()("Cancelled", {
  operation: Schema.String
}) {
  override get message(): string {
    return `${this.operation} was cancelled`
  }
}

/** A fault of ours, with a reference that also stands in the log. Never carries a defect's text to a peer. */
export class Internal extends Schema.TaggedError<Internal>()("Internal", {
  problem: Schema.String
}) {
  override get message(): string {
    return this.problem
  }
}

/** Every failure that may cross a boundary. */
export type BoundaryError =
  | InvalidArgument
  | NotFound
  | AlreadyExists
  | ResourceExhausted
  | FailedPrecondition
  | Unauthenticated
  | PermissionDenied
  | DeadlineExceeded
  | Unavailable
  | Cancelled
  | Internal

/** Decodes and recognises {@link BoundaryError}. */
export const BoundaryError = Schema.Union([
  InvalidArgument,
  NotFound,
  AlreadyExists,
  ResourceExhausted,
  FailedPrecondition,
  Unauthenticated,
  PermissionDenied,
  DeadlineExceeded,
  Unavailable,
  Cancelled,
  Internal
])
