/**
 * Requests of a call whose first message is a header that says what the others are about.
 */
import { type BoundaryError, InvalidArgument } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"

/** A message of such a call: a oneof with a case `header`. */
interface Request {
  readonly part: { readonly case: string | undefined }
}

type Header<A extends Request> = Extract<A["part"], { readonly case: "header" }>

const isHeader = <A extends Request>(part: A["part"]): part is Header<A> => part.case === "header"

/** The header, and the requests behind it. INVALID_ARGUMENT when something else comes first. */
export const open = <A extends Request>(
  requests: Stream.Stream<A, BoundaryError>
): Effect.Effect<
  { readonly header: Header<A>; readonly rest: Stream.Stream<A, BoundaryError> },
  BoundaryError,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const [first, rest] = yield* Stream.peel(requests, Sink.head<A>())
    const part = Option.getOrUndefined(first)?.part
    if (part === undefined || !isHeader<A>(part)) {
      return yield* new InvalidArgument({ field: "header", problem: "the first message must carry it" })
    }
    return { header: part, rest }
  })
