/**
 * `fsb-inside`, the node's own program for what has to be done inside of a sandbox (see `native/inside.c`). One short
 * process for each thing that is done; its standard streams are pipes, or connections that are handed over to it.
 */
import { Internal, Unavailable } from "@fast-sandbox/core/Errors"
import * as Pipe from "@fast-sandbox/grpc/Pipe"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type ChildProcess, spawn } from "node:child_process"
import type { Socket } from "node:net"
import { dirname } from "node:path"
import { AgentConfig } from "../AgentConfig.ts"

/** The exit codes of `fsb-inside`. */
export const codes = {
  failed: 1,
  noSuchPath: 3,
  noFolder: 4,
  gone: 5,
  refused: 6,
  badArchive: 7
} as const

/** How a process ended, and the line that it said about it. */
export interface Ended {
  readonly code: number
  readonly said: string
}

/** Connections that become standard streams of a process: it alone has them from then on. */
export interface HandedOver {
  readonly stdin?: Socket | undefined
  readonly stdout?: Socket | undefined
}

/** A process at work. */
export interface Process {
  /** What it writes to its standard output; nothing where that was handed over. */
  readonly output: Stream.Stream<Uint8Array>
  /** Writes to its standard input; to nobody where that was handed over. */
  readonly write: (bytes: Uint8Array) => Effect.Effect<void>
  /** Lets it read the end of its standard input. */
  readonly end: Effect.Effect<void>
  readonly ended: Effect.Effect<Ended>
}

/**
 * - `start` runs it; closing the scope ends its input, then kills it.
 * - `run` runs it to its end, which must be a good one.
 */
export class Inside extends Context.Service<Inside, {
  readonly start: (
    args: ReadonlyArray<string>,
    handedOver?: HandedOver
  ) => Effect.Effect<Process, Internal | Unavailable, Scope.Scope>
  readonly run: (args: ReadonlyArray<string>) => Effect.Effect<void, Internal | Unavailable>
}>()("@fast-sandbox/agent/sessions/Inside") {
  static readonly layer: Layer.Layer<Inside, never, AgentConfig> = Layer.effect(
    Inside,
    Effect.map(AgentConfig, ({ loggerBinary }) => {
      const begin = start(loggerBinary)
      return Inside.of({
        start: begin,
        run: (args) =>
          Effect.gen(function*() {
            const { ended } = yield* begin(args)
            const { code, said } = yield* ended
            if (code !== 0) return yield* new Internal({ problem: said })
          }).pipe(Effect.scoped)
      })
    })
  )
}

/** It lies beside the logger. */
const binaryName = "fsb-inside"

/** What it says is a line; more is cut. */
const maxSaidBytes = 4096

/** The time in which one whose caller went away may remove what it made half. */
const tidyTime = "2 seconds"

const killed = -1

const launch = (binary: string, args: ReadonlyArray<string>, { stdin, stdout }: HandedOver) =>
  Effect.callback<ChildProcess, Internal>((resume) => {
    const child = spawn(binary, args, { stdio: [stdin ?? "pipe", stdout ?? "pipe", "pipe"], env: {} })
    child.once("spawn", () => {
      // the other end must see the process leave, and not wait for us
      stdin?.destroy()
      stdout?.destroy()
      resume(Effect.succeed(child))
    })
    child.once(
      "error",
      (cause) => resume(Effect.fail(new Internal({ problem: `${binary} could not be started: ${cause.message}` })))
    )
  })

const attach = (child: ChildProcess) =>
  Effect.gen(function*() {
    const { stderr, stdin, stdout } = child
    if (stderr === null) return yield* Effect.die(new Error(`${binaryName} has no pipe for what it says`))
    const ended = yield* Deferred.make<Ended>()
    let said = ""
    stderr.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(0, maxSaidBytes)
    })
    for (const pipe of [stdin, stdout, stderr]) {
      // an end that comes early shows in the exit code
      pipe?.on("error", () => {})
    }
    // Node throws away what nobody listens for when a child exits
    stdout?.on("readable", () => {})
    // after "exit" the last words may still be on their way; "close" would wait for a reader of the output
    child.once("exit", (code) => {
      const tell = () => Deferred.doneUnsafe(ended, Effect.succeed({ code: code ?? killed, said: said.trim() }))
      if (stderr.readableEnded) tell()
      else stderr.once("close", tell)
    })
    return {
      child,
      process: {
        output: stdout === null ? Stream.empty : Pipe.read(stdout),
        write: (bytes: Uint8Array) => stdin === null ? Effect.void : Pipe.write(stdin, bytes),
        end: stdin === null ? Effect.void : Pipe.end(stdin),
        ended: Deferred.await(ended)
      },
      release: Effect.sync(() => stdin?.destroy()).pipe(
        Effect.andThen(Effect.timeoutOption(Deferred.await(ended), tidyTime)),
        Effect.andThen(Effect.sync(() => {
          child.kill("SIGKILL")
          stdout?.destroy()
          stderr.destroy()
        }))
      )
    }
  })

const start = (loggerBinary: string | undefined) => (args: ReadonlyArray<string>, handedOver: HandedOver = {}) =>
  loggerBinary === undefined
    ? Effect.fail(
      new Unavailable({ target: binaryName, problem: "the node has none; set FSB_LOGGER_BINARY to the file beside it" })
    )
    : Effect.acquireRelease(
      Effect.flatMap(launch(`${dirname(loggerBinary)}/${binaryName}`, args, handedOver), attach),
      ({ release }) => release
    ).pipe(Effect.map(({ process }): Process => process))
