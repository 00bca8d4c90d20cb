/**
 * Memory of idle sandboxes: what the machine has less, all processes and the kernel's own share included, less what the
 * program itself takes (a sleeping busybox: some tens of KiB, so it is not subtracted).
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { performance } from "node:perf_hooks"
import type { Common } from "../contenders/Contender.ts"
import type { Recorder } from "../Recorder.ts"

const concurrency = 4

const kibi = 1024

/** The kernel's own estimate of what could still be given out. */
const availableMiB = Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const text = yield* files.readFileString("/proc/meminfo")
  return Number(/^MemAvailable:\s+(\d+)/m.exec(text)?.[1] ?? Number.NaN) / kibi
})

/** What the page cache and lazily freed memory need to settle before a reading means something. */
const settled = Effect.andThen(Effect.sleep("3 seconds"), availableMiB)

/** Starts `count` sandboxes in `pool`, reads memory, and deletes them. */
export const run = Effect.fnUntraced(function*(recorder: Recorder, common: Common, options: {
  readonly pool: string
  readonly count: number
}) {
  const { count, pool } = options
  const sandboxes = yield* Sandboxes
  const names = Array.from({ length: count }, (_, at) => `bench-density-${at}`)
  const before = yield* settled
  const startedAt = performance.now()
  yield* Effect.forEach(
    names,
    (name) =>
      sandboxes.create({
        name,
        pool,
        image: common.image,
        args: common.program,
        terminationGracePeriodSeconds: 0
      }),
    { concurrency, discard: true }
  )
  const seconds = (performance.now() - startedAt) / 1000
  const after = yield* settled
  recorder.add(
    "density.memory",
    `MemAvailable less per idle sandbox, ${count} of them`,
    (before - after) / count,
    "MiB"
  )
  recorder.add("density.rate", `${count} starts, ${concurrency} at once`, count / seconds, "per second")
  yield* Effect.forEach(names, (name) => sandboxes.delete(name), { concurrency, discard: true })
  yield* Effect.forEach(names, (name) => sandboxes.waitForDeletion(name), { concurrency, discard: true })
})
