/**
 * What every call may say.
 */
import type * as Duration from "effect/Duration"

/** What every call may say. */
export interface CallOptions {
  /** Empty or absent: the connection's. */
  readonly namespace?: string | undefined
  /** The call fails with DeadlineExceeded after this time. Streams have none by default. */
  readonly deadline?: Duration.Input | undefined
}
