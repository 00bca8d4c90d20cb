/**
 * Failures of the Kubernetes API as those that cross our boundary: what a user reads when a call of ours could not be
 * carried out, because the API said no or said nothing.
 */
import * as Errors from "@fast-sandbox/core/Errors"
import type { KubeError } from "@fast-sandbox/kube/KubeError"

const target = "the Kubernetes API"

/** The nearest failure that crosses the boundary. `noun` says what was read or written: `sandbox`, `pool`, `secret`. */
export const toBoundary = (noun: string) => (error: KubeError): Errors.BoundaryError => {
  const { reason } = error
  const name = error.name ?? ""
  switch (reason._tag) {
    case "NotFound":
      return new Errors.NotFound({ kind: noun, name })
    case "AlreadyExists":
      return new Errors.AlreadyExists({ kind: noun, name })
    case "Forbidden":
      return new Errors.PermissionDenied({ problem: `${target} forbids it: ${reason.problem}` })
    case "Invalid": {
      const [cause] = reason.causes
      return new Errors.InvalidArgument({
        field: cause?.field ?? noun,
        problem: cause?.message ?? reason.problem
      })
    }
    case "Conflict":
      return new Errors.FailedPrecondition({
        reason: "Conflict",
        problem: `${noun} ${name} was changed at the same time; try again`
      })
    case "TooManyRequests":
      return new Errors.ResourceExhausted({
        resource: "requests",
        problem: `${target} is throttling; try again later`,
        retryAfterMillis: reason.retryAfterMillis
      })
    case "Gone":
    case "Timeout":
    case "Unavailable":
      return new Errors.Unavailable({ target, problem: reason.problem })
    case "ServerError":
      return reason.status >= 500
        ? new Errors.Unavailable({ target, problem: reason.problem })
        : new Errors.Internal({ problem: `${target} answered with status ${reason.status}: ${reason.problem}` })
    case "Unauthorized":
      return new Errors.Unavailable({
        target,
        problem: `it refuses the controller's own credentials (${reason.problem}); check its service account`
      })
    case "BadRequest":
    case "MalformedResponse":
      return new Errors.Internal({ problem: `${target}: ${reason.problem}` })
  }
}

/** Whether the same call can never succeed: the API understood it and refused. */
export const isFinal = ({ reason }: KubeError): boolean =>
  reason._tag === "Forbidden" || reason._tag === "Invalid" || reason._tag === "BadRequest"
