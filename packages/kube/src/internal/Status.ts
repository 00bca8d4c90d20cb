/**
 * What an unsuccessful answer of the API server means. The body is a `Status` object where the API itself answers, and
 * anything at all where a proxy does.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  AlreadyExists,
  BadRequest,
  Conflict,
  Forbidden,
  Gone,
  Invalid,
  InvalidCause,
  type KubeErrorReason,
  NotFound,
  ServerError,
  Timeout,
  TooManyRequests,
  Unauthorized,
  Unavailable
} from "../KubeError.ts"

/** `meta/v1.Status`, as far as it is understood here. */
const Status = Schema.Struct({
  kind: Schema.Literal("Status"),
  code: Schema.optional(Schema.Number),
  reason: Schema.optional(Schema.String),
  message: Schema.optional(Schema.String),
  details: Schema.optional(Schema.Struct({
    retryAfterSeconds: Schema.optional(Schema.Number),
    causes: Schema.optional(Schema.NullOr(Schema.Array(Schema.Struct({
      field: Schema.optional(Schema.String),
      reason: Schema.optional(Schema.String),
      message: Schema.optional(Schema.String)
    }))))
  }))
})

const decodeStatus = Schema.decodeUnknownOption(Status)
const decodeStatusText = Schema.decodeUnknownOption(Schema.fromJsonString(Status))

/** How long to wait after a 429 that does not say: client-go's default. */
const defaultRetryAfterMillis = 1000

/** Characters of a body that is not a `Status` which are worth showing. */
const maxExcerpt = 200

/** The meaning of an answer with an HTTP status of 400 or above. `body` is its text, or its parsed JSON. */
export const reasonOf = (
  code: number,
  body: unknown,
  retryAfterHeader?: string | undefined
): KubeErrorReason => {
  const status = Option.getOrUndefined(typeof body === "string" ? decodeStatusText(body) : decodeStatus(body))
  const excerpt = typeof body === "string" ? body.trim().slice(0, maxExcerpt) : ""
  const problem = status?.message ?? (excerpt === "" ? `HTTP status ${code}` : `HTTP status ${code}: ${excerpt}`)
  switch (code) {
    case 401:
      return new Unauthorized({ problem })
    case 403:
      return new Forbidden({ problem })
    case 404:
      return new NotFound({ problem })
    case 409:
      return status?.reason === "AlreadyExists" ? new AlreadyExists({ problem }) : new Conflict({ problem })
    case 410:
      return new Gone({ problem })
    case 422:
      return new Invalid({
        problem,
        causes: (status?.details?.causes ?? []).map((cause) =>
          new InvalidCause({ field: cause.field ?? "", reason: cause.reason ?? "", message: cause.message ?? "" })
        )
      })
    case 429: {
      const seconds = status?.details?.retryAfterSeconds ?? Number(retryAfterHeader ?? Number.NaN)
      return new TooManyRequests({
        problem,
        retryAfterMillis: Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : defaultRetryAfterMillis
      })
    }
    case 408:
    case 504:
      return new Timeout({ problem })
    case 502:
    case 503:
      return new Unavailable({ problem, sent: true })
  }
  if (status?.reason === "ServerTimeout" || status?.reason === "Timeout") {
    return new Timeout({ problem })
  }
  return code < 500 ? new BadRequest({ problem }) : new ServerError({ problem, status: code })
}

/** The meaning of an `ERROR` event of a watch, whose object is a `Status`. */
export const reasonOfEvent = (object: unknown): KubeErrorReason =>
  Option.match(decodeStatus(object), {
    onNone: () => new ServerError({ problem: "the watch failed without saying why", status: 500 }),
    onSome: (status) => reasonOf(status.code ?? 500, object)
  })
