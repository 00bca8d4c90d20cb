/**
 * The FIFOs of execs: the shim copies between them and the program's pipes or terminal. Making one takes a process,
 * because Node.js can't, so some are always ready.
 *
 * A folder's name says whose it is (`CONTAINER.EXEC`), and it is there for as long as containerd may know of the exec:
 * the folders that an agent finds when it starts are the execs that its earlier life left behind.
 */
import { Internal, type Unavailable } from "@fast-sandbox/core/Errors"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as PlatformError from "effect/PlatformError"
import * as Semaphore from "effect/Semaphore"
import { randomUUID } from "node:crypto"
import { AgentConfig } from "../AgentConfig.ts"
import { Inside } from "./Inside.ts"

/** FIFOs for so many execs are made at once: one process for as many as a burst of execs may want. */
const batch = 16

/** When fewer are left, more are made, so that the next exec finds them. */
const reserve = 8

/** A terminal's secrets pass here: for the agent's own user only. */
const directoryMode = 0o700

/** The standard streams of one exec. */
export interface Streams {
  readonly directory: string
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
}

/** An exec, as its folder names it. */
export interface ExecName {
  readonly containerId: string
  readonly execId: string
}

const streamsIn = (directory: string): Streams => ({
  directory,
  stdin: `${directory}/stdin`,
  stdout: `${directory}/stdout`,
  stderr: `${directory}/stderr`
})

/** What an exec's folder is called. */
const folderOf = ({ containerId, execId }: ExecName): string => `${containerId}.${execId}`

/** The reverse of {@link folderOf}: the id of an exec holds no dot. */
const parse = (folder: string): ExecName => {
  const dot = folder.lastIndexOf(".")
  return { containerId: folder.slice(0, dot), execId: folder.slice(dot + 1) }
}

/**
 * - `take` gives fresh FIFOs for an exec.
 * - `remove` takes them away; nobody may use them any more. Safe to repeat.
 * - `found` are the execs of the agent's earlier life.
 */
export class Fifos extends Context.Service<Fifos, {
  readonly take: (exec: ExecName) => Effect.Effect<Streams, Internal | Unavailable>
  readonly remove: (exec: ExecName) => Effect.Effect<void>
  readonly found: ReadonlyArray<ExecName>
}>()("@fast-sandbox/agent/sessions/Fifos") {
  static readonly layer: Layer.Layer<
    Fifos,
    PlatformError.PlatformError,
    AgentConfig | FileSystem.FileSystem | Inside
  > = Layer.effect(Fifos, Effect.suspend(() => make))
}

const make = Effect.gen(function*() {
  const { stateDirectory } = yield* AgentConfig
  const files = yield* FileSystem.FileSystem
  const inside = yield* Inside
  const scope = yield* Effect.scope
  const used = `${stateDirectory}/execs`
  const ready = `${stateDirectory}/fifos`
  yield* files.makeDirectory(used, { recursive: true, mode: directoryMode })
  yield* files.remove(ready, { recursive: true, force: true })
  yield* files.makeDirectory(ready, { recursive: true, mode: directoryMode })
  const found = (yield* files.readDirectory(used)).map(parse)
  const spare: Array<string> = []
  const making = yield* Semaphore.make(1)

  const failed = (error: PlatformError.PlatformError) =>
    new Internal({ problem: `the FIFOs of an exec could not be made: ${error.message}` })

  const more = Effect.gen(function*() {
    if (spare.length >= reserve) return
    const folders = Array.from({ length: batch }, () => `${ready}/${randomUUID()}`)
    yield* Effect.forEach(folders, (folder) => files.makeDirectory(folder, { mode: directoryMode }), { discard: true })
      .pipe(Effect.mapError(failed))
    const made = folders.map(streamsIn)
    yield* inside.run(["fifos", ...made.flatMap((_) => [_.stdin, _.stdout, _.stderr])])
    spare.push(...folders)
  }).pipe(making.withPermits(1))

  return Fifos.of({
    found,
    take: Effect.fn("Fifos.take")(function*(exec) {
      if (spare.length === 0) yield* more
      const folder = spare.pop()
      if (folder === undefined) return yield* new Internal({ problem: "others took the FIFOs of an exec; try again" })
      if (spare.length < reserve) yield* Effect.forkIn(Effect.ignore(more, { log: "Warn" }), scope)
      const directory = `${used}/${folderOf(exec)}`
      yield* files.rename(folder, directory).pipe(Effect.mapError(failed))
      return streamsIn(directory)
    }),
    remove: (exec) =>
      Effect.ignore(files.remove(`${used}/${folderOf(exec)}`, { recursive: true, force: true }), { log: "Warn" })
  })
})
