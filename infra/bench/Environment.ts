/**
 * The machine that the numbers come from: a number without it says nothing.
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { cpus, loadavg, release, totalmem } from "node:os"
import * as Command from "./Command.ts"

/** Versions of the programs that take part, by name; those that are missing say so. */
const programs = ["containerd", "crun", "runc", "podman", "docker"] as const

const firstLine = (file: string, args: ReadonlyArray<string>) =>
  Command.run(file, args).pipe(
    Effect.map(({ stdout }) => stdout.split("\n")[0] ?? ""),
    Effect.orElseSucceed(() => "not installed")
  )

/** What a reader needs to judge the numbers. `time` and `loadBefore` are of the run, the rest is of the machine. */
export interface Environment {
  /** ISO 8601. */
  readonly time: string
  /** The load average of one minute. */
  readonly loadBefore: number
  readonly [name: string]: string | number
}

/** In one line, for whoever watches. */
export const sentence = ({ containerd, cores, kernel, loadBefore, memoryGiB, processor }: Environment): string =>
  `${processor}, ${cores} cores, ${memoryGiB} GiB, kernel ${kernel}, ${containerd}, load ${loadBefore.toFixed(1)}`

/** The machine as it is now. */
export const read: Effect.Effect<Environment> = Effect.gen(function*() {
  const versions = yield* Effect.forEach(
    programs,
    (name) => firstLine(name, ["--version"]).pipe(Effect.map((version) => [name, version] as const))
  )
  const processor = Option.fromUndefinedOr(cpus()[0])
  return {
    time: DateTime.formatIso(yield* DateTime.now),
    processor: Option.match(processor, { onNone: () => "unknown", onSome: ({ model }) => model.trim() }),
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    loadBefore: loadavg()[0] ?? 0,
    ...Object.fromEntries(versions)
  }
})
