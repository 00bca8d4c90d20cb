/**
 * Fast Sandbox as a contender: by a connected client, and by `fsb-ctl` as people type it.
 */
import type { Created } from "@fast-sandbox/client/Calls"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import type { ConsistencyMode } from "@fast-sandbox/core/Sandbox"
import * as Effect from "effect/Effect"
import * as Command from "../Command.ts"
import { type Common, type Contender, ContenderFailed } from "./Contender.ts"

/** Process 1 ignores SIGTERM where nobody handles it, so a grace period would only be waited for. */
const terminationGracePeriodSeconds = 0

/** What ready slots a pool has, and what it does when they were taken. */
export type Background = Pick<Contender, "ready" | "settled">

type Tier = "parked" | "prepared"

const reported = <A>(name: string, calls: Effect.Effect<A, BoundaryError>) =>
  Effect.mapError(calls, (error) => new ContenderFailed({ contender: name, problem: error.message }))

/** The creates and deletes of a client that is connected already, in one pool. */
export const requests = Effect.fnUntraced(function*(
  { image, program }: Common,
  options: Background & {
    readonly tier: Tier
    readonly pool: string
    /** `strong` writes the resource first; then that is the metric's name. */
    readonly consistencyMode: ConsistencyMode
    /** What the metric is called where another contender has the same tier. */
    readonly called?: string | undefined
    /** Hears of every answer. */
    readonly onCreated: (created: Created) => void
  }
) {
  const sandboxes = yield* Sandboxes
  const { consistencyMode, pool, ready, settled, tier } = options
  const prefix = consistencyMode === "strong" ? "create.strong" : "create"
  const nameOf = (served: string | undefined) =>
    served !== tier
      ? `${prefix}.${served ?? "unknown"}`
      : consistencyMode === "strong"
      ? prefix
      : `${prefix}.${options.called ?? served}`
  const name = nameOf(tier)
  return {
    name,
    boundary: `request: client's create${
      consistencyMode === "strong" ? ", resource first," : ""
    } until its answer, which comes when the program was executed`,
    ready,
    settled,
    start: (id) =>
      reported(
        name,
        sandboxes.create({ name: id, image, args: program, pool, consistencyMode, terminationGracePeriodSeconds })
      ).pipe(
        Effect.tap((created) => Effect.sync(() => options.onCreated(created))),
        // A number under the name of a tier that did not serve it would be a lie.
        Effect.map(({ startup }) => nameOf(startup?.tier))
      ),
    remove: (id) => reported(name, sandboxes.delete(id).pipe(Effect.andThen(sandboxes.waitForDeletion(id))))
  } satisfies Contender
})

/** `fsb-ctl run -d`. */
export const command = Effect.fnUntraced(function*(
  { image, program }: Common,
  options: Background & {
    readonly fsbCtl: string
    readonly endpoint: string
    readonly pool: string
  }
) {
  const sandboxes = yield* Sandboxes
  return {
    name: "cli.run",
    boundary: "process: fsb-ctl run -d",
    ready: options.ready,
    settled: options.settled,
    start: (id) =>
      Effect.as(
        Command.run(options.fsbCtl, [
          "--endpoint",
          options.endpoint,
          "run",
          "-d",
          "--pool",
          options.pool,
          "--image",
          image,
          id,
          "--",
          ...program
        ]),
        "cli.run"
      ),
    // The command line sets no grace period, and the program would use all of it.
    remove: (id) =>
      reported("cli.run", sandboxes.delete(id, { force: true }).pipe(Effect.andThen(sandboxes.waitForDeletion(id))))
  } satisfies Contender
})
