/**
 * An agent as a process of this machine: started with its standard input as a pipe that nobody writes to, so that an
 * agent whose Pod runner was killed notices the end of it and goes too (its sandboxes stay, the next agent of the same
 * Pod takes them up). Its output is appended to a file.
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"

/** The process could not be started. */
export class AgentStartError extends Schema.TaggedError<AgentStartError>()("AgentStartError", {
  command: Schema.String,
  cause: Schema.Defect()
}) {
  override get message(): string {
    return `cannot start ${this.command}: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}

/** How a process ended. */
export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A running agent. */
export interface AgentProcess {
  readonly pid: number
  readonly exited: Effect.Effect<Exit>
  /** SIGTERM, then SIGKILL after the grace period; done when the process is gone. */
  stop(grace: Duration.Input): Effect.Effect<Exit>
}

/** What is run. */
export interface AgentCommand {
  readonly file: string
  readonly args: ReadonlyArray<string>
  readonly environment: Readonly<Record<string, string>>
  readonly workingDirectory: string
  /** The file that its output is appended to. */
  readonly log: string
}

/** Variables of the machine that every program needs; nothing else of ours leaks into an agent. */
const inherited = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"] as const

const environmentOf = (command: AgentCommand): Record<string, string> => {
  const environment: Record<string, string> = {}
  for (const name of inherited) {
    const value = process.env[name]
    if (value !== undefined) {
      environment[name] = value
    }
  }
  return { ...environment, ...command.environment }
}

const launch = (command: AgentCommand) =>
  Effect.callback<ChildProcess, AgentStartError>((resume) => {
    const output = openSync(command.log, "a", 0o600)
    const child = spawn(command.file, command.args, {
      cwd: command.workingDirectory,
      env: environmentOf(command),
      // A group of its own: Ctrl-C in the terminal of the stack must not reach it beside the stack's own order.
      detached: true,
      stdio: ["pipe", output, output]
    })
    closeSync(output)
    child.once("spawn", () => resume(Effect.succeed(child)))
    child.once("error", (cause) => resume(Effect.fail(new AgentStartError({ command: command.file, cause }))))
  })

const signal = (child: ChildProcess, name: NodeJS.Signals) =>
  Effect.sync(() => {
    child.kill(name)
  })

/** Starts an agent. Closing the scope ends it in order, within `grace`. */
export const start = (
  command: AgentCommand,
  grace: Duration.Input
): Effect.Effect<AgentProcess, AgentStartError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.gen(function*() {
      const exit = yield* Deferred.make<Exit>()
      const child = yield* launch(command)
      child.once("exit", (code, signal) => Deferred.doneUnsafe(exit, Effect.succeed({ code, signal })))
      const exited = Deferred.await(exit)
      return {
        pid: child.pid ?? 0,
        exited,
        stop: (grace: Duration.Input) =>
          signal(child, "SIGTERM").pipe(
            Effect.andThen(exited),
            Effect.timeoutOrElse({
              duration: grace,
              orElse: () => signal(child, "SIGKILL").pipe(Effect.andThen(exited))
            })
          )
      }
    }),
    (agent) => agent.stop(grace)
  )
