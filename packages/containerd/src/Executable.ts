/**
 * Programs that are put where others execute them.
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as PlatformError from "effect/PlatformError"
import { randomUUID } from "node:crypto"
import { dirname } from "node:path"

const executable = 0o755

/** Copies a program to `path`, whose folders are made; renamed into place, because somebody may be executing the old one. */
export const install = Effect.fn("Executable.install")(function*(
  program: string,
  path: string
): Effect.fn.Return<void, PlatformError.PlatformError, FileSystem.FileSystem> {
  const files = yield* FileSystem.FileSystem
  const fresh = `${path}.${randomUUID()}`
  yield* files.makeDirectory(dirname(path), { recursive: true })
  yield* files.copyFile(program, fresh)
  yield* files.chmod(fresh, executable)
  yield* files.rename(fresh, path)
})
