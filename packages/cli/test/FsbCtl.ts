/**
 * Runs the built fsb-ctl as a process, in a home of its own, against a server of its own.
 */
import * as GrpcServer from "@fast-sandbox/grpc/GrpcServer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type ChildProcessByStdio, execFileSync, spawn } from "node:child_process"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Readable, Writable } from "node:stream"
import { fileURLToPath } from "node:url"
import * as FakeFastPath from "../../client/test/FakeFastPath.ts"

const repository = fileURLToPath(new URL("../../..", import.meta.url))
const program = join(repository, "bin/fsb-ctl")

/** How a call ended, and what it printed. */
export interface Ran {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** A call that goes on. */
export interface Running {
  readonly process: ChildProcessByStdio<Writable, Readable, Readable>
  readonly ended: Effect.Effect<Ran>
  /** Waits until stdout and stderr together hold the text. */
  readonly printed: (text: string) => Effect.Effect<void>
}

/** Calls fsb-ctl. */
export class FsbCtl extends Context.Service<FsbCtl, {
  /** An empty folder that is home and working directory of all calls. */
  readonly home: string
  readonly start: (
    args: ReadonlyArray<string>,
    options?: { readonly env?: Readonly<Record<string, string>> }
  ) => Effect.Effect<Running, never, Scope.Scope>
  readonly run: (
    args: ReadonlyArray<string>,
    options?: { readonly env?: Readonly<Record<string, string>>; readonly input?: string }
  ) => Effect.Effect<Ran>
  /** Writes a file below the home. */
  readonly write: (name: string, text: string) => string
}>()("test/FsbCtl") {}

let isBuilt = false

/** Once for all tests of a file; the sources may be newer than what was built last. */
const build = Effect.sync(() => {
  if (isBuilt && existsSync(program)) return
  execFileSync(process.execPath, [join(repository, "packages/cli/build.ts")], { cwd: repository, stdio: "inherit" })
  isBuilt = true
})

const make = Effect.gen(function*() {
  yield* build
  const endpoint = yield* GrpcServer.GrpcServer.useSync(({ addresses }) => addresses[0] ?? "")
  const home = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "fsb-ctl-"))),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
  )
  const environment = {
    PATH: process.env.PATH ?? "",
    HOME: home,
    FSB_ENDPOINT: endpoint
  }
  const start: FsbCtl["Service"]["start"] = (args, options) =>
    Effect.acquireRelease(
      Effect.sync((): Running => {
        const child = spawn(program, args, {
          cwd: home,
          env: { ...environment, ...options?.env },
          stdio: ["pipe", "pipe", "pipe"]
        })
        let stdout = ""
        let stderr = ""
        child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()))
        child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()))
        child.stdin.on("error", () => {})
        const ended = new Promise<Ran>((resolve) =>
          child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }))
        )
        return {
          process: child,
          ended: Effect.promise(() => ended),
          printed: (text) =>
            Effect.callback<void>((resume) => {
              const check = () => (stdout + stderr).includes(text) && resume(Effect.void)
              child.stdout.on("data", check)
              child.stderr.on("data", check)
              check()
            })
        }
      }),
      ({ process }) => Effect.sync(() => process.exitCode === null && process.kill("SIGKILL"))
    )
  return FsbCtl.of({
    home,
    start,
    run: (args, options) =>
      Effect.gen(function*() {
        const running = yield* start(args, options)
        running.process.stdin.end(options?.input ?? "")
        return yield* running.ended
      }).pipe(Effect.scoped),
    write: (name, text) => {
      const path = join(home, name)
      writeFileSync(path, text)
      return path
    }
  })
})

/** fsb-ctl and the server that it talks to. */
export const layer = (): Layer.Layer<FsbCtl | FakeFastPath.Fake, GrpcServer.BindError> =>
  Layer.effect(FsbCtl, make).pipe(Layer.provideMerge(Layer.fresh(FakeFastPath.layer())))
