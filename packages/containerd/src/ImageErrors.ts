/**
 * What can be wrong with an image: it is not here, it is broken, or its registry does not give it.
 */
import * as Schema from "effect/Schema"

/** The image is not on this machine, or not for its platform. Pull or load it first. */
export class ImageNotFound extends Schema.TaggedError<ImageNotFound>()("ImageNotFound", {
  image: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `image ${this.image}: ${this.problem}`
  }
}

/** The archive or the image in it can't be used; nothing of it was kept. `path` is the entry at fault, if one is. */
export class InvalidImage extends Schema.TaggedError<InvalidImage>()("InvalidImage", {
  path: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return this.path === "" ? this.problem : `${this.path}: ${this.problem}`
  }
}

/** The registry did not give the image. `problem` is containerd's text, which names the registry and its answer. */
export class ImagePullFailed extends Schema.TaggedError<ImagePullFailed>()("ImagePullFailed", {
  image: Schema.String,
  problem: Schema.String,
  /** Whether it may succeed later (a registry that can't be reached), or not (no such image, no permission). */
  retryable: Schema.Boolean
}) {
  override get message(): string {
    return `image ${this.image}: ${this.problem}`
  }
}
