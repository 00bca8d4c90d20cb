/**
 * Programs that the benchmark runs, as a user would: started, waited for, their exit code checked.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { spawn } from "node:child_process"
import { performance } from "node:perf_hooks"

/** A program could not be started, or did not end with 0. `output` is the end of what it said. */
export class CommandFailed extends Schema.TaggedError<CommandFailed>()("CommandFailed", {
  command: Schema.String,
  output: Schema.String
}) {
  override get message(): string {
    return `${this.command}: ${this.output}`
  }
}

/** What a program printed to stdout, and the milliseconds from its start to its end. */
export interface Ran {
  readonly stdout: string
  readonly millis: number
}

const keptOutput = 2_000

/** Runs a program to its end. Interruption kills it. */
export const run = (
  file: string,
  args: ReadonlyArray<string>,
  options?: { readonly workingDirectory?: string | undefined }
): Effect.Effect<Ran, CommandFailed> =>
  Effect.callback<Ran, CommandFailed>((resume) => {
    const fail = (output: string) =>
      resume(Effect.fail(new CommandFailed({ command: [file, ...args].join(" "), output: output.slice(-keptOutput) })))
    const startedAt = performance.now()
    const child = spawn(file, args, { cwd: options?.workingDirectory, stdio: ["ignore", "pipe", "pipe"] })
    let stdout = ""
    let stderr = ""
    let millis = 0
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text
    })
    child.once("error", (cause) => fail(cause.message))
    child.once("exit", () => {
      millis = performance.now() - startedAt
    })
    child.once("close", (code) => code === 0 ? resume(Effect.succeed({ stdout, millis })) : fail(stderr || stdout))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** Where a program is found. */
export const find = (file: string): Effect.Effect<string, CommandFailed> =>
  Effect.map(run("sh", ["-c", "command -v \"$0\"", file]), ({ stdout }) => stdout.trim())
