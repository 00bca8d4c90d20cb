/**
 * The failure of one call to containerd: which operation, which gRPC status, and containerd's own words. Callers decide
 * by the code ({@link ContainerdError.isNotFound} and the like); the words are for people.
 */
import { codes } from "@fast-sandbox/grpc/GrpcError"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** `operation` is `Service.method` of this package (`Tasks.create`), `details` is containerd's own text. */
export class ContainerdError extends Schema.TaggedError<ContainerdError>()("ContainerdError", {
  operation: Schema.String,
  code: Schema.Literals(codes),
  details: Schema.String
}) {
  override get message(): string {
    return `${this.operation}: ${this.code}: ${this.details}`
  }
  /** What the call names does not exist (any more). */
  get isNotFound(): boolean {
    return this.code === "NOT_FOUND"
  }
  /** What the call would make is there already. */
  get isAlreadyExists(): boolean {
    return this.code === "ALREADY_EXISTS"
  }
  /** containerd can't be reached or is going away; the call may or may not have taken effect. */
  get isUnavailable(): boolean {
    return this.code === "UNAVAILABLE"
  }
  /** The state does not allow the call: a task that is not running, a snapshot with children. */
  get isFailedPrecondition(): boolean {
    return this.code === "FAILED_PRECONDITION"
  }
}

const isContainerdError = Schema.is(ContainerdError)

/** Whether a failure says that the thing is gone. */
export const isNotFound = (error: unknown): boolean => isContainerdError(error) && error.isNotFound

/** Whether a failure says that the thing exists already. */
export const isAlreadyExists = (error: unknown): boolean => isContainerdError(error) && error.isAlreadyExists

/** Makes a removal idempotent: what is gone already counts as removed. */
export const ignoreNotFound = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A | void, E, R> =>
  Effect.catchIf(self, isNotFound, () => Effect.void)

/** Makes a creation idempotent: what exists already counts as created. */
export const ignoreAlreadyExists = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A | void, E, R> =>
  Effect.catchIf(self, isAlreadyExists, () => Effect.void)
