/**
 * A logger that no shim starts: it reads FIFOs and lives on without the agent, as those of the shims do.
 */
import { Internal } from "@fast-sandbox/core/Errors"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { closeSync, constants, openSync } from "node:fs"
import { Socket } from "node:net"

/** The descriptor that the logger closes when it is ready; it reads the two before (see `native/logger.c`). */
const READY_FD = 5

const failed = (cause: unknown) => new Internal({ problem: `the logger could not be started: ${String(cause)}` })

const open = (path: string, flags: number) =>
  Effect.acquireRelease(
    Effect.try({ try: () => openSync(path, flags | constants.O_NONBLOCK), catch: failed }),
    (fd) => Effect.sync(() => closeSync(fd))
  )

/** Until the logger says so; its death says so, too. */
const launch = (binary: string, args: ReadonlyArray<string>, output: ReadonlyArray<number>) =>
  Effect.callback<void, Internal>((resume) => {
    const child = spawn(binary, args, {
      stdio: ["ignore", "ignore", "ignore", ...output, "pipe"],
      detached: true,
      env: {}
    })
    child.once("error", (cause) => resume(Effect.fail(failed(cause))))
    const pipes: ReadonlyArray<unknown> = child.stdio
    const ready = pipes[READY_FD]
    if (ready instanceof Socket) ready.resume().once("close", () => resume(Effect.void)).on("error", () => {})
    child.unref()
  })

/**
 * Starts one on the FIFOs of a program's stdout and stderr. It ends when nobody has them open for writing any more; until
 * the scope closes that is this process.
 */
export const start = (
  binary: string,
  options: Readonly<Record<string, string>>,
  fifos: readonly [stdout: string, stderr: string]
): Effect.Effect<void, Internal, Scope.Scope> =>
  Effect.gen(function*() {
    // a writer that does not wait for readers is one that reads itself
    for (const fifo of fifos) yield* open(fifo, constants.O_RDWR)
    yield* Effect.scoped(Effect.gen(function*() {
      const output = yield* Effect.forEach(fifos, (fifo) => open(fifo, constants.O_RDONLY))
      yield* launch(binary, Object.entries(options).flat(), output)
    }))
  })
