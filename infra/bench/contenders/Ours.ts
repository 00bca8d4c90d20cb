/**
 * Fast Sandbox as a contender: by a connected client, and by `fsb-ctl` as people type it.
 */
import type { Created } from "@fast-sandbox/client/Calls"
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import type { BoundaryError } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import * as Command from "../Command.ts"
import { type Common, type Contender, ContenderFailed } from "./Contender.ts"

/** Process 1 ignores SIGTERM where nobody handles it, so a grace period would only be waited for. */
const terminationGracePeriodSeconds = 0

const reported = <A>(name: string, calls: Effect.Effect<A, BoundaryError>) =>
  Effect.mapError(calls, (error) => new ContenderFailed({ contender: name, problem: error.message }))

/** The creates and deletes of a client that is connected already, in one pool. */
export const requests = Effect.fnUntraced(function*(
  { image, program }: Common,
  options: {
    readonly tier: string
    readonly pool: string
    /** Waits until so many slots of the tier are there. */
    readonly ready: Contender["ready"]
    /** Hears of every answer. */
    readonly onCreated: (created: Created) => void
  }
) {
  const sandboxes = yield* Sandboxes
  const name = `create.${options.tier}`
  return {
    name,
    boundary: "request: client's create until its answer, which comes when the program was executed",
    ready: options.ready,
    start: (id) =>
      reported(
        name,
        sandboxes.create({ name: id, image, args: program, pool: options.pool, terminationGracePeriodSeconds })
      ).pipe(
        Effect.tap((created) => Effect.sync(() => options.onCreated(created))),
        // A number under the name of a tier that did not serve it would be a lie.
        Effect.map(({ startup }) => `create.${startup?.tier ?? "unknown"}`)
      ),
    remove: (id) => reported(name, sandboxes.delete(id).pipe(Effect.andThen(sandboxes.waitForDeletion(id))))
  } satisfies Contender
})

/** `fsb-ctl run -d`. */
export const command = Effect.fnUntraced(function*(
  { image, program }: Common,
  options: {
    readonly fsbCtl: string
    readonly endpoint: string
    readonly pool: string
    readonly ready: Contender["ready"]
  }
) {
  const sandboxes = yield* Sandboxes
  return {
    name: "cli.run",
    boundary: "process: fsb-ctl run -d",
    ready: options.ready,
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
    remove: (id) => reported("cli.run", sandboxes.delete(id).pipe(Effect.andThen(sandboxes.waitForDeletion(id))))
  } satisfies Contender
})
