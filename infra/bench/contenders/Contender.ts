/**
 * One way to start a container in the background: ours, or what a user would pick instead. All of them start the same
 * program from the same image.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Command from "../Command.ts"

/** A contender refused a container or lost one; the problem is in its own words. */
export class ContenderFailed extends Schema.TaggedError<ContenderFailed>()("ContenderFailed", {
  contender: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.contender}: ${this.problem}`
  }
}

/** What a start or a removal may fail with. */
export type Failure = Command.CommandFailed | ContenderFailed

/** One way to start a container. */
export interface Contender {
  /** The metric's name without the scenario: `create.parked`, `peer.docker.api`. It is unique in a run. */
  readonly name: string
  /** Between which two points a start is timed. */
  readonly boundary: string
  /** Of a contender that takes long: it takes part in each n-th round only. */
  readonly everyRounds?: number | undefined
  /** Waits until `count` starts find everything that this contender makes ready ahead of time; never timed. */
  ready(count: number): Effect.Effect<void, Failure>
  /** Waits until nothing goes on behind its answers any more, which the next contender would pay for; never timed. */
  readonly settled: Effect.Effect<void, Failure>
  /**
   * Starts container `id`; done when its program was started. Gives the metric's name, which may be another one than
   * `name` when something else than expected served it.
   */
  start(id: string): Effect.Effect<string, Failure>
  /** Removes it; done when it is gone. */
  remove(id: string): Effect.Effect<void, Failure>
}

/** Of contenders that make nothing ready and leave nothing behind. */
export const withoutBackground = {
  ready: () => Effect.void,
  settled: Effect.void
} satisfies Partial<Contender>

/** What all contenders of one run have in common. */
export interface Common {
  /** An OCI archive of the image. */
  readonly archive: string
  readonly image: string
  readonly program: ReadonlyArray<string>
  /** Scratch space, gone after the run. */
  readonly directory: string
}
