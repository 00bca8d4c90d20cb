/**
 * Memory of idle sandboxes and of parked slots: all processes' shares and the kernel's own, without the program's.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import type { Common } from "../contenders/Contender.ts"
import * as Memory from "../Memory.ts"
import * as Progress from "../Progress.ts"
import type { Recorder } from "../Recorder.ts"
import { timed } from "../Timed.ts"

const concurrency = 4

/** What lazily freed memory and counters need before a reading means something. */
const settled = Effect.andThen(Effect.sleep("3 seconds"), Memory.read)

/** Programs whose growth is told by itself, by the names that the kernel cuts to 15 bytes; Node calls itself MainThread. */
const told = ["MainThread", "containerd", "containerd-shim", "fsb-logger", "init"] as const

/** Records what each of `count` has cost, `program` excluded. */
const record = (
  recorder: Recorder,
  name: string,
  what: string,
  { after, before, count, program }: {
    readonly before: Memory.Usage
    readonly after: Memory.Usage
    readonly count: number
    readonly program: string | undefined
  }
): void => {
  const { available, kernel, programs } = Memory.growth(before, after)
  const ours = [...programs].filter(([name]) => name !== program)
  const processes = ours.reduce((sum, [, mebibytes]) => sum + mebibytes, 0)
  const each = (mebibytes: number): number => mebibytes / count
  const without = program === undefined ? "" : ` without ${program} itself`
  recorder.add(
    name,
    `PSS of all processes${without} and kernel memory for each ${what}, ${count} of them`,
    each(processes + kernel),
    "MiB"
  )
  recorder.add(`${name}.kernel`, "of it the kernel's: slab, stacks, page tables, per-CPU data", each(kernel), "MiB")
  for (const program of told) {
    recorder.add(`${name}.${program}`, `of it PSS of ${program}`, each(programs.get(program) ?? 0), "MiB")
  }
  recorder.add(
    `${name}.available`,
    "MemAvailable less, for comparison: it counts page cache in",
    each(-available),
    "MiB"
  )
}

/** Starts `count` sandboxes in `pool`, reads memory, and deletes them. */
export const run = Effect.fnUntraced(function*(recorder: Recorder, common: Common, options: {
  readonly pool: string
  readonly count: number
}) {
  const { count, pool } = options
  const sandboxes = yield* Sandboxes
  const names = Array.from({ length: count }, (_, at) => `bench-density-${at}`)
  const before = yield* settled
  let done = 0
  const create = (name: string) =>
    sandboxes.create({ name, pool, image: common.image, args: common.program, terminationGracePeriodSeconds: 0 }).pipe(
      Effect.andThen(Effect.suspend(() => Progress.show("sandboxes", ++done, count)))
    )
  const { millis } = yield* timed(Effect.forEach(names, create, { concurrency, discard: true }))
  const after = yield* settled
  record(recorder, "density.sandbox", "idle sandbox", { before, after, count, program: common.program[0] })
  recorder.add("density.rate", `${count} starts, ${concurrency} at once`, count * 1000 / millis, "per second")
  yield* Effect.forEach(names, (name) => sandboxes.delete(name), { concurrency, discard: true })
  yield* Effect.forEach(names, (name) => sandboxes.waitForDeletion(name), { concurrency, discard: true })
})

/** Reads memory before and after `park` has parked `count` slots. */
export const parked = Effect.fnUntraced(function*<E, R>(recorder: Recorder, options: {
  readonly park: (count: number) => Effect.Effect<void, E, R>
  readonly count: number
}) {
  const { count, park } = options
  const before = yield* settled
  yield* park(count)
  const after = yield* settled
  record(recorder, "density.parked", "parked slot", { before, after, count, program: undefined })
})
