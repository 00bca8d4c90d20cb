/**
 * What people do in a sandbox that runs: one more program in it, and files into it and out of it.
 */
import { Sandboxes } from "@fast-sandbox/client/Sandboxes"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Command from "../Command.ts"
import type { Common } from "../contenders/Contender.ts"
import type { Recorder } from "../Recorder.ts"
import { timed } from "../Timed.ts"

const name = "bench-sessions"

/** Larger than any buffer on the way, and than most things that are copied. */
const fileMebibytes = 1024

const millisPerSecond = 1000

/** `fsbCtl` copies from and to `endpoint`; the program is executed by a client that is connected. */
export const run = Effect.fnUntraced(function*(recorder: Recorder, common: Common, options: {
  readonly fsbCtl: string
  readonly endpoint: string
  readonly pool: string
  readonly rounds: number
  readonly copies: number
}) {
  const files = yield* FileSystem.FileSystem
  const sandboxes = yield* Sandboxes
  const sandbox = yield* sandboxes.scoped({
    name,
    pool: options.pool,
    image: common.image,
    args: ["sleep", "3600"],
    terminationGracePeriodSeconds: 0
  })
  for (let round = 0; round < options.rounds; round++) {
    const { millis } = yield* timed(sandbox.output({ command: ["true"] }))
    recorder.add("exec.true", "request: client's exec of true until its exit code", millis)
  }
  const source = `${common.directory}/file`
  const target = `${common.directory}/copied`
  yield* Command.run("dd", ["if=/dev/zero", `of=${source}`, "bs=1M", `count=${fileMebibytes}`])
  const boundary = `process: fsb-ctl cp of one file of ${fileMebibytes} MiB, from its start to its end`
  const copy = (direction: string, from: string, to: string) =>
    Effect.map(Command.run(options.fsbCtl, ["--endpoint", options.endpoint, "cp", from, to]), ({ millis }) => {
      recorder.add(`cp.${direction}`, boundary, fileMebibytes / (millis / millisPerSecond), "MiB/s")
    })
  for (let round = 0; round < options.copies; round++) {
    yield* copy("in", source, `${name}:/tmp/file`)
    yield* copy("out", `${name}:/tmp/file`, target)
    yield* files.remove(target)
  }
  yield* files.remove(source)
}, Effect.scoped)
