/**
 * A controller that comes back to Sandboxes that run already: how soon it serves, how much memory it holds, and that it
 * leaves alone what is as it should be.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import { Health, HealthCheckResponse_ServingStatus } from "@fast-sandbox/grpc/gen/grpc/health/v1/health_pb"
import * as GrpcClient from "@fast-sandbox/grpc/GrpcClient"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { performance } from "node:perf_hooks"
import type { Recorder } from "../Recorder.ts"
import { timed } from "../Timed.ts"
import * as Place from "./Place.ts"
import * as Programs from "./Programs.ts"
import * as World from "./World.ts"

/** `counts`: at how many Sandboxes the controller is restarted, ascending; the last one names the metrics. */
export interface Options {
  readonly bundle: string
  readonly directory: string
  readonly counts: readonly [number, ...ReadonlyArray<number>]
}

const agents = 20

/** Slots that are still free with the most Sandboxes, for the create after the restart. */
const spareSlots = 5

/** How often it is looked whether the controller serves. */
const lookInterval = "20 millis"

/** After this time of rest the memory is read again: what the start left behind has been collected by then, or stays. */
const rest = "10 seconds"

const isServing = (endpoint: string) =>
  Effect.scoped(Effect.gen(function*() {
    // A connection of its own for each look: one that was refused would wait before it tries again.
    const client = yield* GrpcClient.makeBoundary(Health, { address: endpoint })
    const { status } = yield* client.check({ service: "" })
    return status === HealthCheckResponse_ServingStatus.SERVING
  })).pipe(Effect.orElseSucceed(() => false))

const restart = Effect.fnUntraced(function*(recorder: Recorder, { bundle, directory }: Options, count: number) {
  const endpoint = `unix:${Place.fastPathSocket(directory)}`
  const before = yield* World.revision
  const startedAt = performance.now()
  const seconds = () => (performance.now() - startedAt) / 1000
  const controller = yield* Programs.spawned("controller", { bundle, directory })
  yield* Effect.repeat(isServing(endpoint), { until: (serving) => serving, schedule: Schedule.spaced(lookInterval) })
  const serving = seconds()
  const { answered, created } = yield* Effect.gen(function*() {
    const client = yield* Sandboxes
    const listed = yield* client.list({ deadline: "30 seconds" })
    if (listed.filter(({ phase }) => phase === "Running").length < count) {
      return yield* Effect.die(new Error(`${listed.length} of ${count} Sandboxes are listed after a restart`))
    }
    const answered = seconds()
    const name = `after-restart-${count}`
    yield* client.create({ name, image: World.image, pool: "bench", deadline: "30 seconds" })
    const created = seconds()
    yield* client.delete(name)
    yield* client.waitForDeletion(name)
    return { answered, created }
  }).pipe(Effect.provide(Sandboxes.layer({ endpoint })))
  const atStart = yield* Programs.memory(controller)
  yield* Effect.sleep(rest)
  const { peak, resident } = yield* Programs.memory(controller)
  const name = `controlplane.restart${count}`
  const boundary =
    `the controller's process started with ${count} Running Sandboxes on ${agents} simulated agents, until`
  recorder.add(`${name}.serving`, `${boundary} its health is SERVING`, serving, "s")
  recorder.add(`${name}.list`, `${boundary} it has listed all of them`, answered, "s")
  recorder.add(`${name}.create`, `${boundary} it has created one more`, created, "s")
  recorder.add(
    `controlplane.rssMb.${count}`,
    `resident memory of the controller with ${count} Sandboxes, after a rest`,
    resident,
    "MiB"
  )
  recorder.add(
    `controlplane.rssPeakMb.${count}`,
    `most resident memory of the controller with ${count} Sandboxes`,
    peak,
    "MiB"
  )
  const writes = yield* World.writes(before)
  yield* Console.error(
    `${count}: serving ${serving.toFixed(2)} s, listed ${answered.toFixed(2)} s, created ${created.toFixed(2)} s, ` +
      `memory ${atStart.resident.toFixed(0)}, then ${resident.toFixed(0)}, at most ${peak.toFixed(0)} MiB, ` +
      `writes: ${JSON.stringify(writes)}`
  )
  recorder.add(
    `${name}.writes`,
    "stored writes after the restart, with those of one create and its deletion",
    writes.total,
    "writes"
  )
  yield* controller.stop
}, Effect.scoped)

export const run = Effect.fn("Restart.run")(
  function*(recorder: Recorder, options: Options) {
    const { bundle, counts, directory } = options
    const most = Math.max(...counts)
    yield* Programs.started("apiserver", { bundle, directory })
    yield* Effect.gen(function*() {
      yield* Programs.started("agents", { bundle, directory })
      const store = yield* World.sandboxes
      let filled = 0
      for (const count of counts) {
        yield* Effect.scoped(Effect.gen(function*() {
          const controller = yield* Programs.started("controller", { bundle, directory })
          if (filled === 0) {
            yield* World.addPool("bench", agents, Math.ceil(most / agents) + spareSlots)
          }
          const { millis } = yield* timed(
            World.applyAll(Array.from({ length: count - filled }, (_, n) => `restart-${filled + n}`), "bench").pipe(
              Effect.andThen(World.running(store, count))
            )
          )
          yield* Console.error(`filled from ${filled} to ${count} in ${(millis / 1000).toFixed(1)} s`)
          yield* World.quiet
          filled = count
          yield* controller.stop
        }))
        yield* restart(recorder, options, count)
      }
    }).pipe(Effect.provide(Place.kubeClient(directory)))
  },
  Effect.scoped
)
