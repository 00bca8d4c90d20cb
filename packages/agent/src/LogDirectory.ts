/**
 * Where a container's output goes: a directory of its own, written by a logger that the shim starts, so that logging
 * needs no agent. Without the logger's binary containerd's shim writes plain files, which have no time stamps.
 */
import type { Stdio } from "@fast-sandbox/containerd/Tasks"
import { type BoundaryError, FailedPrecondition } from "@fast-sandbox/core/Errors"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as PlatformError from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import { AgentConfig } from "./AgentConfig.ts"
import * as StandaloneLogger from "./logs/StandaloneLogger.ts"
import { Inside } from "./sessions/Inside.ts"

/** A sandbox's log: three files of 10 MiB, as the kubelet rotates container logs by default (its limit is five). */
const rotation = { maxBytes: 10 * 1024 * 1024, files: 3 } as const

/** Output may hold secrets: for the agent's own user only. */
const directoryMode = 0o700
const fileMode = 0o600

/**
 * - `format` is `records` with the logger, `plain` without it.
 * - `prepare` makes the directory and tells where the task reads and writes; the task is made within the scope.
 * - `stdinOf` is the FIFO of a program whose stdin is kept open.
 * - `remove` takes it away with all it holds; safe to repeat.
 */
export class LogDirectory extends Context.Service<LogDirectory, {
  readonly format: "records" | "plain"
  readonly pathOf: (containerId: string) => string
  readonly stdinOf: (containerId: string) => string
  readonly prepare: (
    containerId: string,
    program: { readonly tty: boolean; readonly stdin: boolean }
  ) => Effect.Effect<Stdio, BoundaryError | PlatformError.PlatformError, Scope.Scope>
  readonly remove: (containerId: string) => Effect.Effect<void, PlatformError.PlatformError>
}>()("@fast-sandbox/agent/LogDirectory") {
  static readonly layer: Layer.Layer<
    LogDirectory,
    PlatformError.PlatformError,
    AgentConfig | FileSystem.FileSystem | Inside
  > = Layer.effect(
    LogDirectory,
    Effect.gen(function*() {
      const { logBytesPerSecond, logDirectory, loggerBinary } = yield* AgentConfig
      const files = yield* FileSystem.FileSystem
      const inside = yield* Inside
      yield* files.makeDirectory(logDirectory, { recursive: true, mode: directoryMode })
      const hasLogger = loggerBinary !== undefined && (yield* files.exists(loggerBinary))
      if (!hasLogger) {
        yield* Effect.logWarning("there is no logger: output goes to plain files that can't be read as a log", {
          loggerBinary
        })
      }

      const pathOf = (containerId: string): string => `${logDirectory}/${containerId}`

      const loggerOptions = (directory: string) => ({
        dir: directory,
        "max-bytes": String(rotation.maxBytes),
        files: String(rotation.files),
        rate: String(logBytesPerSecond)
      })

      const loggerUri = (directory: string): string =>
        `binary://${loggerBinary}?${new URLSearchParams(loggerOptions(directory))}`

      /**
       * containerd's shim gives no pipe as stdin to a program whose output goes to a logger of the shim's own, so this
       * logger reads FIFOs and is ours. It ends with the last writer: the shim, or we, when no task comes of it.
       */
      const piped = Effect.fnUntraced(function*(binary: string, directory: string) {
        const stdin = `${directory}/stdin`
        const stdout = `${directory}/stdout`
        const stderr = `${directory}/stderr`
        yield* inside.run(["fifos", stdin, stdout, stderr])
        yield* StandaloneLogger.start(binary, { ...loggerOptions(directory), "at-once": "1" }, [stdout, stderr])
        return { stdin, stdout, stderr }
      })

      /** The shim holds the terminal and one end of its input, so that both outlive the agent. */
      const terminal = Effect.fnUntraced(function*(directory: string, hasStdin: boolean) {
        const stdin = `${directory}/stdin`
        if (hasStdin) yield* inside.run(["fifos", stdin])
        return { stdin: hasStdin ? stdin : "", stdout: `${loggerUri(directory)}&tty=1`, terminal: true }
      })

      const plain = Effect.fnUntraced(function*(directory: string) {
        const stdout = `${directory}/stdout`
        const stderr = `${directory}/stderr`
        yield* files.writeFile(stdout, new Uint8Array(), { mode: fileMode })
        yield* files.writeFile(stderr, new Uint8Array(), { mode: fileMode })
        return { stdout, stderr }
      })

      return LogDirectory.of({
        format: hasLogger ? "records" : "plain",
        pathOf,
        stdinOf: (containerId) => `${pathOf(containerId)}/stdin`,
        prepare: Effect.fn("LogDirectory.prepare")(function*(containerId, program) {
          const directory = pathOf(containerId)
          yield* files.makeDirectory(directory, { recursive: true, mode: directoryMode })
          if (!hasLogger && (program.tty || program.stdin)) {
            return yield* new FailedPrecondition({
              reason: "NoLogger",
              problem: "the node has no logger, and without one nobody can be attached to a program"
            })
          }
          if (program.tty) return yield* terminal(directory, program.stdin)
          if (!hasLogger) return yield* plain(directory)
          return program.stdin
            ? yield* piped(loggerBinary, directory)
            : { stdout: loggerUri(directory), stderr: loggerUri(directory) }
        }),
        remove: Effect.fn("LogDirectory.remove")((containerId) =>
          files.remove(pathOf(containerId), { recursive: true, force: true })
        )
      })
    })
  )
}
