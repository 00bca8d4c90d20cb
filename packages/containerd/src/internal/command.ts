/** Runs a short command of the system. */
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import type * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"

/** A command that could not be run, or that said no. */
export class CommandError extends Schema.TaggedError<CommandError>()("CommandError", {
  command: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `${this.command}: ${this.problem}`
  }
}

/** Its output (stdout and stderr together); a failure when it does not exit with 0. */
export const run = Effect.fnUntraced(function*(
  command: string,
  ...args: ReadonlyArray<string>
): Effect.fn.Return<string, CommandError, ChildProcessSpawner.ChildProcessSpawner> {
  const fail = (problem: string) => new CommandError({ command: [command, ...args].join(" "), problem })
  return yield* Effect.gen(function*() {
    const handle = yield* ChildProcess.make(command, args)
    const output = yield* handle.all.pipe(Stream.decodeText(), Stream.mkString)
    const exitCode = yield* handle.exitCode
    return exitCode === 0 ? output : yield* fail(output.trim() || `exit code ${exitCode}`)
  }).pipe(Effect.scoped, Effect.catchTag("PlatformError", (error) => Effect.fail(fail(error.message))))
})
