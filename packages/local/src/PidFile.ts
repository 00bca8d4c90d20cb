/**
 * Names the process that runs a stack. A process id alone is not enough, since the kernel gives it again: the file
 * also holds the process's start time, so that a stale file is never taken for a running stack, and nobody else's
 * process is ever signalled.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import type { PlatformError } from "effect/PlatformError"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { dirname } from "node:path"

/** A process, told apart from a later one of the same id. */
export const Process = Schema.Struct({
  pid: Schema.Int,
  /** Clock ticks after boot: field 22 of proc(5) stat. */
  startedAtTicks: Schema.String
})

/** A process, told apart from a later one of the same id. */
export type Process = typeof Process.Type

/** Another stack runs in this home. */
export class AlreadyRunning extends Schema.TaggedError<AlreadyRunning>()("AlreadyRunning", {
  pid: Schema.Int,
  file: Schema.String
}) {
  override get message(): string {
    return `a stack runs here already (process ${this.pid}); stop it with 'fsb-ctl down', or choose another --home`
  }
}

const Json = Schema.fromJsonString(Process)

/** Field 22 of /proc/PID/stat, counted after the command's name, which may hold anything but ends with the last `)`. */
const startTicks = (pid: number): Effect.Effect<Option.Option<string>, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const stat = yield* files.readFileString(`/proc/${pid}/stat`)
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    // A zombie has ended, though its entry is still there.
    return fields[0] === "Z" ? Option.none() : Option.fromUndefinedOr(fields[19])
  }).pipe(Effect.orElseSucceed(() => Option.none()))

/** The process that the file names, when it still runs. */
export const read = (path: string): Effect.Effect<Option.Option<Process>, never, FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const files = yield* FileSystem.FileSystem
    const found = yield* files.readFileString(path).pipe(
      Effect.flatMap(Schema.decodeUnknownEffect(Json)),
      Effect.option
    )
    if (Option.isNone(found)) {
      return Option.none()
    }
    const ticks = yield* startTicks(found.value.pid)
    return Option.filter(found, ({ startedAtTicks }) => Option.contains(ticks, startedAtTicks))
  })

/** Whether the process still runs. */
export const isRunning = (process: Process): Effect.Effect<boolean, never, FileSystem.FileSystem> =>
  startTicks(process.pid).pipe(Effect.map(Option.contains(process.startedAtTicks)))

/** Writes this process into the file for the time of the scope; fails when the one that stands there still runs. */
export const hold = (
  path: string
): Effect.Effect<void, AlreadyRunning | PlatformError, FileSystem.FileSystem | Scope.Scope> =>
  Effect.acquireRelease(
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      yield* files.makeDirectory(dirname(path), { recursive: true, mode: 0o700 })
      const self = { pid: process.pid, startedAtTicks: Option.getOrElse(yield* startTicks(process.pid), () => "") }
      const text = yield* Effect.orDie(Schema.encodeEffect(Json)(self))
      // Written aside and linked into place: of two that start at once, one sees the other's whole file.
      const aside = `${path}.${process.pid}`
      yield* files.writeFileString(aside, text, { mode: 0o600 })
      const claim = files.link(aside, path)
      yield* claim.pipe(
        Effect.catch((error) =>
          Effect.gen(function*() {
            const owner = yield* read(path)
            if (Option.isSome(owner)) {
              return yield* new AlreadyRunning({ pid: owner.value.pid, file: path })
            }
            if (!(yield* files.exists(path))) {
              return yield* error
            }
            yield* files.remove(path)
            yield* claim
          })
        ),
        Effect.ensuring(files.remove(aside, { force: true }).pipe(Effect.ignore))
      )
    }),
    () =>
      Effect.gen(function*() {
        const files = yield* FileSystem.FileSystem
        yield* files.remove(path, { force: true })
      }).pipe(Effect.ignore)
  )
