/**
 * crun and runsc as sandboxes get them: behind `fsb-runtime`, which gives them a null device that they can't give away (see
 * `native/runtime.c`). The runtime itself stays where it is, so that what was found out about it holds.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import { createHash, randomUUID } from "node:crypto"
import * as Executable from "./Executable.ts"
import type { OciRuntime } from "./RuntimeProfile.ts"

/** Where and with what. */
export interface RuntimeStreamsOptions {
  /**
   * Absolute; containerd must see it under the same path, and may execute what lies in it. Sandboxes need it as long as
   * they live, and whoever removes them after their agent. Agents may share it.
   */
  readonly directory: string
  /** Absolute path of `fsb-runtime`, on this side. */
  readonly binary: string
}

/** Of the name that is made from a runtime's path: several of them may be used side by side. */
const keyLength = 8

/** Where `fsb-runtime` looks for the runtime that it stands before. */
const realSuffix = ".real"

/**
 * Who change the owner of the files behind a program's standard streams: crun to the program's user, runsc to the one that
 * its kernel runs as. Both go on where they can't. runc leaves a null device alone, and kata's programs have no file of the
 * node's.
 */
const streamOwners: ReadonlySet<OciRuntime["name"]> = new Set(["crun", "runsc"])

/**
 * The runtime that sandboxes should be run with. Those that leave the null device alone are used as they are; so are the others
 * where `fsb-runtime` is not there, with a warning.
 */
export const guard = Effect.fn("RuntimeStreams.guard")(function*(
  runtime: OciRuntime,
  { binary, directory }: RuntimeStreamsOptions
): Effect.fn.Return<OciRuntime, PlatformError.PlatformError, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  const { name, path, problem } = runtime
  if (!streamOwners.has(name) || problem !== undefined) {
    return runtime
  }
  if (!(yield* files.exists(binary))) {
    yield* Effect.logWarning(`${binary} is not there: ${name} may give the node's null device to the user of a program`)
    return runtime
  }
  const own = `${directory}/${createHash("sha256").update(path).digest("hex").slice(0, keyLength)}`
  const guarded = `${own}/${name}`
  const real = `${guarded}${realSuffix}`
  const fresh = `${real}.${randomUUID()}`
  yield* files.makeDirectory(own, { recursive: true })
  yield* files.symlink(path, fresh)
  // A shim may be executing the one of another agent.
  yield* files.rename(fresh, real)
  yield* Executable.install(binary, guarded)
  return { ...runtime, path: guarded }
})
