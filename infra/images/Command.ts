/** Programs of the build machine. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { execFile } from "node:child_process"

/** The largest output that is read, in bytes. */
const maxOutput = 64 * 1024 * 1024

/** A program could not be run or failed. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>()("CommandFailed", {
  command: Schema.String,
  output: Schema.String
}) {
  override get message(): string {
    return `${this.command} failed: ${this.output.trim()}`
  }
}

/** Gives what it printed. */
export const run = (
  file: string,
  args: ReadonlyArray<string>,
  options?: { readonly cwd?: string | undefined }
): Effect.Effect<string, CommandFailed> =>
  Effect.callback((resume) => {
    const child = execFile(file, args, { cwd: options?.cwd, maxBuffer: maxOutput }, (error, stdout, stderr) =>
      resume(
        error === null
          ? Effect.succeed(stdout)
          : Effect.fail(new CommandFailed({ command: [file, ...args].join(" "), output: stderr || error.message }))
      ))
    return Effect.sync(() => child.kill())
  })
