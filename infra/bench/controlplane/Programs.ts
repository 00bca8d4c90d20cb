/**
 * The control plane's programs as processes of their own: bundled as they ship, started, waited for, measured from
 * outside, and ended with the scope.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as esbuild from "esbuild"
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Place from "./Place.ts"

const names = ["apiserver", "controller", "stack", "agents"] as const

export type Name = typeof names[number]

/** A program could not be built, or ended before it was ready. `output` is the end of what it said. */
export class ProgramFailed extends Schema.TaggedError<ProgramFailed>()("ProgramFailed", {
  program: Schema.String,
  output: Schema.String
}) {
  override get message(): string {
    return `${this.program}: ${this.output}`
  }
}

/** A program that runs. */
export interface Running {
  readonly pid: number
  /** Tells it to end and waits for that. */
  readonly stop: Effect.Effect<void>
}

/** The release that `node_modules` pins. */
const target = "node24"

/** As the controller's manifest has it: V8's own choice lets the garbage of a start grow the process by half. */
const youngGeneration = "--max-semi-space-size=4"

/** A program that does not end within this time is killed, in milliseconds. */
const endMillis = 10_000

const keptOutput = 2_000

/** Bundles all programs into a folder. */
export const build = (directory: string): Effect.Effect<void, ProgramFailed> =>
  Effect.tryPromise({
    try: () =>
      esbuild.build({
        entryPoints: Object.fromEntries(
          names.map((name) => [name, fileURLToPath(new URL(`programs/${name}.ts`, import.meta.url))])
        ),
        outdir: directory,
        outExtension: { ".js": ".mjs" },
        bundle: true,
        splitting: true,
        format: "esm",
        platform: "node",
        target,
        logLevel: "warning",
        // CommonJS dependencies ask for Node's own modules by `require`.
        banner: { js: "import { createRequire } from \"node:module\"; const require = createRequire(import.meta.url);" }
      }),
    catch: (cause) => new ProgramFailed({ program: "esbuild", output: String(cause) })
  })

const ended = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) {
      return resume(Effect.void)
    }
    const done = () => resume(Effect.void)
    child.once("exit", done)
    return Effect.sync(() => child.off("exit", done))
  })

const stop = (child: ChildProcess): Effect.Effect<void> =>
  Effect.sync(() => child.kill("SIGTERM")).pipe(
    Effect.andThen(ended(child)),
    Effect.timeoutOrElse({
      duration: endMillis,
      orElse: () => Effect.andThen(Effect.sync(() => child.kill("SIGKILL")), ended(child))
    })
  )

/** Starts a program of the bundle on the benchmark's folder; it ends with the scope. Does not wait until it is ready. */
export const spawned = Effect.fnUntraced(function*(
  name: Name,
  place: { readonly bundle: string; readonly directory: string }
): Effect.fn.Return<
  Running & { readonly ready: Effect.Effect<void, ProgramFailed | PlatformError> },
  never,
  Scope.Scope | FileSystem.FileSystem
> {
  const files = yield* FileSystem.FileSystem
  const log = join(place.directory, `${name}.log`)
  const ready = yield* Deferred.make<void>()
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const output = openSync(log, "a")
      const flags = name === "controller" ? [youngGeneration] : []
      const child = spawn(process.execPath, [...flags, join(place.bundle, `${name}.mjs`), place.directory], {
        stdio: ["ignore", "pipe", output]
      })
      closeSync(output)
      child.stdout?.setEncoding("utf8").on("data", (text: string) => {
        if (text.split("\n").includes(Place.readyLine)) {
          Deferred.doneUnsafe(ready, Effect.void)
        }
      })
      return child
    }),
    stop
  )
  const failed = ended(child).pipe(
    Effect.andThen(files.readFileString(log)),
    Effect.flatMap((output) => Effect.fail(new ProgramFailed({ program: name, output: output.slice(-keptOutput) })))
  )
  return { pid: child.pid ?? 0, stop: stop(child), ready: Effect.raceFirst(Deferred.await(ready), failed) }
})

/** Starts a program and waits until it is ready. */
export const started = (name: Name, place: { readonly bundle: string; readonly directory: string }) =>
  Effect.tap(spawned(name, place), ({ ready }) => ready)

/** The memory that a process has resident, and the most that it ever had, in MiB. */
export const memory = Effect.fnUntraced(function*({ pid }: Running) {
  const files = yield* FileSystem.FileSystem
  const status = yield* files.readFileString(`/proc/${pid}/status`)
  const mebibytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) / 1024
  return { resident: mebibytes("VmRSS"), peak: mebibytes("VmHWM") }
})

/** Clock ticks of `/proc/<pid>/stat` in a second: USER_HZ, the same on every Linux. */
const ticksPerSecond = 100

/** The processor time that a process has used, in seconds: what the other programs of the machine change least. */
export const processorSeconds = Effect.fnUntraced(function*({ pid }: Running) {
  const files = yield* FileSystem.FileSystem
  const stat = yield* files.readFileString(`/proc/${pid}/stat`)
  // The fields after the name, which is in brackets and may hold anything; utime and stime are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
})
