/**
 * Failures of containerd and of images, as failures that cross the agent's boundary.
 */
import type { ContainerdError } from "@fast-sandbox/containerd/ContainerdError"
import type { ImageNotFound, ImagePullFailed, InvalidImage } from "@fast-sandbox/containerd/ImageErrors"
import type { NoCommand } from "@fast-sandbox/containerd/OciSpec"
import { BoundaryError, FailedPrecondition, Internal, InvalidArgument, Unavailable } from "@fast-sandbox/core/Errors"
import type { InvalidImageName } from "@fast-sandbox/core/ImageName"
import * as Schema from "effect/Schema"

/** What can be turned into a {@link BoundaryError}. */
export type Failure =
  | BoundaryError
  | ContainerdError
  | ImageNotFound
  | ImagePullFailed
  | InvalidImage
  | InvalidImageName
  | NoCommand

const isBoundary = Schema.is(BoundaryError)

const fromContainerd = (error: ContainerdError): BoundaryError =>
  error.isUnavailable || error.code === "DEADLINE_EXCEEDED" || error.code === "CANCELLED"
    ? new Unavailable({ target: "containerd", problem: error.message })
    : new Internal({ problem: error.message })

/** A failure as the agent's callers see it. */
export const toBoundary = (error: Failure): BoundaryError => {
  if (isBoundary(error)) {
    return error
  }
  switch (error._tag) {
    case "ContainerdError":
      return fromContainerd(error)
    case "ImageNotFound":
      return new FailedPrecondition({ reason: "ImageNotPresent", problem: error.message })
    case "ImagePullFailed":
      return new FailedPrecondition({ reason: "ImagePullFailed", problem: error.message })
    case "InvalidImage":
      return new FailedPrecondition({ reason: "InvalidImage", problem: error.message })
    case "InvalidImageName":
      return new InvalidArgument({ field: "image", problem: error.problem })
    case "NoCommand":
      return new FailedPrecondition({ reason: "StartFailed", problem: error.message })
  }
}
